//! Whether the handler knows every access to foreign memory in the guarded routines, and nothing else: this test binary is
//! disassembled (by binutils' `objdump`), and what the table says is compared with what the instructions do.
//!
//! New routines are found by their names, `iovec_rs_*`. What they may touch without an entry: constants relative to the
//! instruction pointer, and the call's trap record (in `r10`), in the fixup.

use crate::arch::guard::{self, Access, Resume};
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A routine as it is in memory now.
struct Routine {
    name: String,
    instructions: Vec<Instruction>,
}

#[derive(Clone)]
struct Instruction {
    address: usize,
    /// As disassembled in Intel's syntax: `mov    QWORD PTR [rdi],rax`.
    text: String,
}

impl Instruction {
    fn mnemonic(&self) -> &str {
        let prefixes = ["rep", "repz", "repnz", "lock", "cs", "ds", "es", "data16", "notrack"];
        self.text.split_whitespace().find(|word| !prefixes.contains(word)).unwrap_or_default()
    }

    /// Whether it reads or writes memory in a way that can fault. Hints cannot; addresses are only computed by `lea` and `nop`.
    fn touches_memory(&self) -> bool {
        let mnemonic = self.mnemonic();
        let harmless = mnemonic == "lea" || mnemonic.starts_with("nop") || mnemonic.starts_with("prefetch");
        let implicit =
            ["push", "pop", "call", "leave", "enter", "xlat", "movs", "maskmov", "stos", "lods", "scas", "cmps"];
        !harmless && (self.text.contains('[') || implicit.iter().any(|known| mnemonic.starts_with(known)))
    }

    fn is_constant(&self) -> bool {
        self.text.contains("[rip")
    }

    fn is_trap_record(&self) -> bool {
        self.text.contains("PTR [r10") && self.mnemonic() == "mov"
    }

    /// Memory is the first operand: what is written, or worked on.
    fn writes(&self) -> bool {
        self.text.split(',').next().is_some_and(|first| first.contains('[')) || self.is_masked()
    }

    fn is_masked(&self) -> bool {
        self.mnemonic().starts_with("maskmov")
    }

    fn is_string(&self) -> bool {
        self.text.starts_with("rep ")
    }
}

/// What this file's addresses are off by in memory.
fn bias() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let exe = std::env::current_exe().unwrap();
    let mut lines = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let first = lines.find(|fields| fields[2] == "00000000" && fields.get(5) == Some(&exe.to_str().unwrap())).unwrap();
    usize::from_str_radix(first[0].split('-').next().unwrap(), 16).unwrap()
}

/// All guarded routines of this binary.
fn routines() -> Vec<Routine> {
    let exe = std::env::current_exe().unwrap();
    let options = ["--disassemble", "--no-show-raw-insn", "--disassembler-options=intel"];
    let run = Command::new("objdump").args(options).arg(exe).output();
    let output = run.expect("this test needs objdump, of binutils");
    assert!(output.status.success());
    let bias = bias();
    let mut found: Vec<Routine> = Vec::new();
    let mut inside = false;
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        if let Some((_, label)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            inside = label.starts_with("iovec_rs_") && !label.ends_with("_end");
            if inside {
                found.push(Routine { name: label.to_owned(), instructions: Vec::new() });
            }
        } else if inside && let Some((address, text)) = line.split_once(":\t") {
            let address = usize::from_str_radix(address.trim(), 16).unwrap() + bias;
            let text = text.split(" #").next().unwrap().trim().to_owned();
            found.last_mut().unwrap().instructions.push(Instruction { address, text });
        }
    }
    found
}

/// The entries that cover some byte of the routine, by their starts.
fn entries(routine: &Routine) -> BTreeMap<usize, Resume> {
    let code = &routine.instructions;
    let (start, end) = (code[0].address, code[code.len() - 1].address);
    (start..=end).filter_map(guard::find).map(|entry| (entry.start, entry)).collect()
}

#[test]
fn every_access_to_foreign_memory_has_an_entry_and_nothing_else_has() {
    let mut accesses = 0;
    for routine in routines() {
        let entries = entries(&routine);
        let fixups: BTreeSet<usize> = entries.values().map(|entry| entry.fixup).collect();
        let fixup = *fixups.first().unwrap_or_else(|| panic!("{} has no entries that the handler knows", routine.name));
        let known = |address| routine.instructions.iter().any(|instruction| instruction.address == address);
        assert!(fixups.iter().copied().all(known), "{}: its fixups lie in it", routine.name);
        let last = entries.values().map(|entry| entry.end).max();
        assert!(last <= Some(fixup), "{}: they lie behind all that is guarded", routine.name);
        for Instruction { address, text } in &routine.instructions {
            let instruction = Instruction { address: *address, text: text.clone() };
            let case = format!("{}+{:#x}: {text}", routine.name, address - routine.instructions[0].address);
            let entry = guard::find(*address);
            let own = instruction.is_constant() || *address >= fixup && instruction.is_trap_record();
            let foreign = instruction.touches_memory() && !own;
            accesses += usize::from(foreign);
            // The byte behind a string instruction is where some CPUs report that poison stopped it.
            let behind =
                entry.is_some_and(|entry| entry.meta & 0xff == Access::String as i32 && entry.start != *address);
            assert_eq!(entry.is_some(), foreign || behind, "{case}");
        }
    }
    assert!(accesses > 400, "{accesses} accesses in all");
}

#[test]
fn an_entry_holds_whole_instructions_and_names_what_they_do() {
    for routine in routines() {
        let entries = entries(&routine);
        let fixup = entries.values().map(|entry| entry.fixup).max();
        for entry in entries.values() {
            let within = |one: &&Instruction| (entry.start..entry.end).contains(&one.address);
            let covered: Vec<&Instruction> = routine.instructions.iter().filter(within).collect();
            let case = format!("{}: {:?}", routine.name, covered.iter().map(|one| &one.text).collect::<Vec<_>>());
            assert_eq!(covered[0].address, entry.start, "{case}");
            let next = routine.instructions.iter().map(|one| one.address).find(|at| *at >= entry.end);
            assert_eq!(next, Some(entry.end), "{case}");
            assert_eq!(
                covered.iter().any(|one| one.is_masked()),
                Some(entry.fixup) != fixup,
                "{case}: masked stores' own fixup"
            );
            match entry.meta & 0xff {
                kind if kind == Access::String as i32 => {
                    assert!(covered[0].is_string() && covered.len() == 2 && !covered[1].touches_memory(), "{case}");
                }
                kind if kind == Access::Store as i32 => assert!(covered.iter().all(|one| one.writes()), "{case}"),
                kind if kind == Access::First as i32 => assert!(covered.len() == 1 && !covered[0].writes(), "{case}"),
                kind if kind == Access::Load as i32 => assert!(!covered.iter().any(|one| one.writes()), "{case}"),
                kind => panic!("{case}: an unknown kind of access, {kind}"),
            }
        }
    }
}

#[test]
fn all_routines_are_looked_at() {
    let names: Vec<String> = routines().into_iter().map(|routine| routine.name).collect();
    for kind in ["copy", "zero"] {
        for set in ["scalar", "sse2", "avx2", "avx512"] {
            assert!(names.contains(&format!("iovec_rs_{kind}_{set}")), "{kind} {set} is not in {names:?}");
        }
    }
}

#[test]
fn an_instruction_is_read_for_what_it_does() {
    let of = |text: &str| Instruction { address: 0, text: text.to_owned() };
    for harmless in [
        "lea    r11,[rsi+rdx*1]",
        "cs nop WORD PTR [rax+rax*1+0x0]",
        "nopw   [rax]",
        "prefetchnta BYTE PTR [rsi+0x800]",
        "ret",
        "sfence",
        "mov    r9,rdx",
    ] {
        assert!(!of(harmless).touches_memory(), "{harmless}");
    }
    for touching in [
        "mov    al,BYTE PTR [rsi]",
        "movnti QWORD PTR [rdi],rax",
        "rep movs BYTE PTR es:[rdi],BYTE PTR ds:[rsi]",
        "push   rbx",
        "clwb   BYTE PTR [rdi]",
        "cmp    rdx,QWORD PTR [rip+0x10]",
    ] {
        assert!(of(touching).touches_memory(), "{touching}");
    }
    assert!(of("vmovdqu YMMWORD PTR [rdi+0x20],ymm1").writes() && !of("vmovdqu ymm1,YMMWORD PTR [rsi]").writes());
}
