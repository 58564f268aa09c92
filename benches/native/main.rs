//! Copies without Python: durable ones against libpmem, the C library's `memcpy`, and `memcpy` followed by write-backs; those that
//! are ready for bad memory against plain ones and `memcpy`.
//!
//! `cargo bench --no-default-features [-- flat|append|vectored|careful] [-- quick]`

#![allow(clippy::print_stdout, clippy::cast_precision_loss)] // a report of times

mod cases;
mod memory;
mod race;
mod rivals;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let quick = arguments.iter().any(|argument| argument == "quick");
    let wanted =
        |name: &str| arguments.iter().all(|argument| argument == "quick") || arguments.iter().any(|a| a == name);
    let Some(pmem) = rivals::Libpmem::load() else {
        eprintln!("libpmem.so.1 cannot be loaded: install it (Debian: libpmem1)");
        return ExitCode::FAILURE;
    };
    race::pin();
    println!(
        "isa {}, write-backs by {}; ratio: the rival's time by ours",
        _core::arch::primitives().name,
        _core::arch::write_back().map_or("nothing", |instruction| instruction.name)
    );
    for (name, run) in cases::ALL {
        if wanted(name) {
            run(&pmem, quick);
        }
    }
    ExitCode::SUCCESS
}
