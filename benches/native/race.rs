//! Contestants interleaved in one run, and medians of many rounds' ratios.

use std::time::Instant;

/// One way to do the job. It is told the number of the call.
pub(crate) struct Contestant<'a> {
    name: &'static str,
    run: Box<dyn FnMut(usize) + 'a>,
    warm: usize,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut(usize) + 'a) -> Self {
        Self { name, run: Box::new(run), warm: 0 }
    }

    /// Makes so many calls ahead of each sample, outside the timing.
    pub(crate) fn warmed(self, calls: usize) -> Self {
        Self { warm: calls, ..self }
    }
}

/// Stays on one CPU.
pub(crate) fn pin() {
    // SAFETY: a CPU set is plain bits, for which zeroes are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU 1 fits the set; where there is none, setting the affinity fails and nothing changes.
    unsafe { libc::CPU_SET(1, &mut set) };
    // SAFETY: `set` is valid for its size.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
}

/// One job. A sample makes `calls` calls of `ops` operations, each of which moves `bytes`.
pub(crate) struct Case {
    pub(crate) title: String,
    pub(crate) bytes: usize,
    pub(crate) calls: usize,
    pub(crate) ops: usize,
    pub(crate) rounds: usize,
}

/// Prints tables as the Python benches do, which know what is wanted of them.
pub(crate) struct Report {
    /// Too short to be judged.
    pub(crate) is_quick: bool,
}

impl Report {
    /// Runs them in turn, each round in an order of its own, `before` ahead of each sample, and prints nanoseconds an
    /// operation and ratios to the first.
    pub(crate) fn race(&self, case: &Case, contestants: &mut [Contestant], mut before: impl FnMut()) {
        let rounds = if self.is_quick { 3 } else { case.rounds };
        let count = contestants.len();
        let mut samples = vec![Vec::with_capacity(rounds); count];
        let (mut order, mut random) = ((0..count).collect::<Vec<_>>(), 1);
        for round in 0..=rounds {
            shuffle(&mut order, &mut random);
            for &which in &order {
                before();
                for call in 0..contestants[which].warm {
                    (contestants[which].run)(call);
                }
                let start = Instant::now();
                for call in 0..case.calls {
                    (contestants[which].run)(call);
                }
                let taken = start.elapsed().as_nanos() as f64 / (case.calls * case.ops) as f64;
                if round > 0 {
                    samples[which].push(taken);
                }
            }
        }
        print(case, contestants, &samples);
    }
}

/// Puts contestants in any order, the same one in each run of the program. In an order that only rotates each always
/// runs behind the same other one, and pays for what that leaves in the caches.
fn shuffle(order: &mut [usize], random: &mut u64) {
    for end in (1..order.len()).rev() {
        // The multiplier of Knuth's MMIX, whose high bits are the random ones.
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(end, (*random >> 33) as usize % (end + 1));
    }
}

fn print(case: &Case, contestants: &[Contestant], samples: &[Vec<f64>]) {
    println!("\n{}", case.title);
    println!("{:34}{:>12}{:>12}{:>7}{:>7}", "", "ns/op", "min", "GB/s", "ratio");
    for (which, (contestant, taken)) in contestants.iter().zip(samples).enumerate() {
        let (middle, least) = (median(taken.iter().copied()), taken.iter().copied().fold(f64::INFINITY, f64::min));
        let rate = if case.bytes == 0 { String::new() } else { format!("{:.2}", case.bytes as f64 / middle) };
        // Round by round: of one that a neighbour slowed down, both sides were.
        let ratio = (which > 0).then(|| median(taken.iter().zip(&samples[0]).map(|(his, mine)| his / mine)));
        let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let figures = format!("{middle:>12.1}{least:>12.1}{rate:>7}{ratio:>7}");
        println!("{:<34}{}", contestant.name, figures.trim_end());
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
