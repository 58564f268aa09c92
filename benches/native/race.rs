//! Contestants interleaved in one run, medians of many.

use std::time::Instant;

/// One way to do the job. A sample does `ops` operations.
pub(crate) struct Contestant<'a> {
    pub(crate) name: String,
    pub(crate) run: Box<dyn FnMut(usize) + 'a>,
}

impl<'a> Contestant<'a> {
    pub(crate) fn new(name: &str, run: impl FnMut(usize) + 'a) -> Self {
        Self { name: name.to_owned(), run: Box::new(run) }
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

/// Runs them in turn, the order rotating, `before` ahead of each sample, and prints nanoseconds an operation and ratios to the first.
/// `op_bytes` is what one operation moves. A sample starts at operation `round * ops`, so that all see the same memory.
pub(crate) fn race(
    title: &str,
    op_bytes: usize,
    ops: usize,
    rounds: usize,
    contestants: &mut [Contestant],
    mut before: impl FnMut(),
) {
    let count = contestants.len();
    let mut samples = vec![Vec::with_capacity(rounds); count];
    for round in 0..=rounds {
        for turn in 0..count {
            let which = (turn + round) % count;
            before();
            let start = Instant::now();
            for op in 0..ops {
                (contestants[which].run)(op);
            }
            let taken = start.elapsed().as_nanos() as f64 / ops as f64;
            if round > 0 {
                samples[which].push(taken);
            }
        }
    }
    let medians: Vec<f64> = samples
        .iter_mut()
        .map(|sample| {
            sample.sort_by(f64::total_cmp);
            sample[sample.len() / 2]
        })
        .collect();
    println!("\n{title}");
    for (contestant, median) in contestants.iter().zip(&medians) {
        let rate = op_bytes as f64 / median;
        println!("  {:<34}{median:>12.1} ns {rate:>8.2} GB/s {:>8.2}", contestant.name, median / medians[0]);
    }
}
