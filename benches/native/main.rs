//! Copies without Python: durable ones against libpmem, the C library's `memcpy`, and `memcpy` followed by write-backs;
//! those that are ready for bad memory against plain ones and `memcpy`.
//!
//! `cargo bench --no-default-features --bench native [-- flat|append|vectored|careful|limits|behind] [-- quick]`

#![allow(clippy::print_stdout, clippy::cast_precision_loss)] // a report of times

mod append;
mod behind;
mod careful;
mod flat;
mod limits;
mod memory;
mod race;
mod rivals;
mod vectored;

use race::Report;
use std::process::ExitCode;

type Job = fn(&rivals::Libpmem, &Report);

const JOBS: [(&str, Job); 6] = [
    ("flat", flat::run),
    ("append", append::run),
    ("vectored", vectored::run),
    ("careful", careful::run),
    ("limits", limits::run),
    ("behind", behind::run),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let (modes, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| *argument == "quick");
    if let Some(unknown) = names.iter().find(|name| JOBS.iter().all(|(job, _)| job != *name)) {
        eprintln!("no such bench: {unknown} (there are: flat, append, vectored, careful, limits, behind)");
        return ExitCode::FAILURE;
    }
    let Some(pmem) = rivals::Libpmem::load() else {
        eprintln!("libpmem.so.1 cannot be loaded: install it (Debian: libpmem1)");
        return ExitCode::FAILURE;
    };
    race::pin();
    println!(
        "isa {}, write-backs by {}",
        _core::arch::primitives().name,
        _core::arch::write_back().map_or("nothing", |instruction| instruction.name)
    );
    let report = Report { is_quick: !modes.is_empty() };
    if report.is_quick {
        println!("quick: too short to be judged");
    }
    for (name, run) in JOBS {
        if names.is_empty() || names.iter().any(|wanted| *wanted == name) {
            run(&pmem, &report);
        }
    }
    ExitCode::SUCCESS
}
