//! Contestants interleaved in one run, medians of many rounds' ratios, and what the project wanted of them.

use std::collections::BTreeMap;
use std::time::Instant;

/// The least ratio (rival's time by ours) that the project set itself.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    ratio: f64,
    level: f64,
}

impl Target {
    pub(crate) fn least(ratio: f64) -> Self {
        Self { ratio, level: ratio }
    }

    /// Below the ratio, but not below `level`, the two count as level.
    pub(crate) fn level(ratio: f64, level: f64) -> Self {
        Self { ratio, level }
    }

    fn verdict(self, ratio: f64) -> &'static str {
        match ratio {
            _ if ratio >= self.ratio => "met",
            _ if ratio >= self.level => "level",
            _ => "MISSED",
        }
    }
}

/// One way to do the job. It is told the number of the call.
pub(crate) struct Contestant<'a> {
    name: &'static str,
    run: Box<dyn FnMut(usize) + 'a>,
    target: Option<Target>,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(name: &'static str, run: impl FnMut(usize) + 'a) -> Self {
        Self { name, run: Box::new(run), target: None }
    }

    /// Ours against this one.
    pub(crate) fn target(self, target: Option<Target>) -> Self {
        Self { target, ..self }
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

/// Prints tables as the Python benches do, and counts verdicts.
pub(crate) struct Report {
    /// Too short to judge.
    pub(crate) is_quick: bool,
    verdicts: BTreeMap<&'static str, usize>,
}

impl Report {
    pub(crate) fn new(is_quick: bool) -> Self {
        Self { is_quick, verdicts: BTreeMap::new() }
    }

    /// Runs them in turn, the order rotating, `before` ahead of each sample, and prints nanoseconds an operation and
    /// ratios to the first.
    pub(crate) fn race(&mut self, case: &Case, contestants: &mut [Contestant], mut before: impl FnMut()) {
        let rounds = if self.is_quick { 3 } else { case.rounds };
        let count = contestants.len();
        let mut samples = vec![Vec::with_capacity(rounds); count];
        for round in 0..=rounds {
            for turn in 0..count {
                let which = (turn + round) % count;
                before();
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
        self.print(case, contestants, &samples);
    }

    fn print(&mut self, case: &Case, contestants: &[Contestant], samples: &[Vec<f64>]) {
        println!("\n{}", case.title);
        println!("{:34}{:>12}{:>12}{:>7}{:>7}{:>8}", "", "ns/op", "min", "GB/s", "ratio", "target");
        for (which, (contestant, taken)) in contestants.iter().zip(samples).enumerate() {
            let (middle, least) = (median(taken.iter().copied()), taken.iter().copied().fold(f64::INFINITY, f64::min));
            let rate = if case.bytes == 0 { String::new() } else { format!("{:.2}", case.bytes as f64 / middle) };
            // Round by round: of one that a neighbour slowed down, both sides were.
            let ratio = (which > 0).then(|| median(taken.iter().zip(&samples[0]).map(|(his, mine)| his / mine)));
            let (target, verdict) = contestant.target.zip(ratio).map_or(Default::default(), |(target, ratio)| {
                (format!(">={:.2}", target.ratio), if self.is_quick { "" } else { target.verdict(ratio) })
            });
            let ratio = ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"));
            let figures = format!("{middle:>12.1}{least:>12.1}{rate:>7}{ratio:>7}{target:>8}  {verdict}");
            println!("{:<34}{}", contestant.name, figures.trim_end());
            if !verdict.is_empty() {
                *self.verdicts.entry(verdict).or_default() += 1;
            }
        }
    }

    /// How many targets were met.
    pub(crate) fn summary(&self) -> String {
        if self.verdicts.is_empty() {
            return "targets: not judged".to_owned();
        }
        let counts: Vec<String> = self.verdicts.iter().map(|(verdict, count)| format!("{count} {verdict}")).collect();
        format!("targets: {}", counts.join(", "))
    }
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = figures.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}
