//! Tests that the fault table has every access to foreign memory of the guarded routines, and nothing else: they
//! disassemble the routines as they are in memory, and compare each instruction with its entry.
//!
//! A routine may touch without an entry: constants relative to the instruction pointer, the return address, and, in its
//! fixup, the trap record that `r10` points to. The copies of lists of lines also read what is the library's own: the
//! list that `rcx` points to, and the word that `r8` points to. The copies to two places store to the stage, to which
//! `r8` points.

use super::{SETS, WRITE_BACKS};
use crate::arch::guard::{self, Instruction, Resume};
use iced_x86::{Decoder, DecoderOptions, InstructionInfoFactory, Mnemonic, OpAccess, Register, UsedMemory};
use std::collections::{BTreeMap, BTreeSet};

/// The registers that point to what is the library's own: none; the list and the word, which are only read; the stage.
const NOTHING: &[Register] = &[];
const LIST: &[Register] = &[Register::RCX, Register::R8];
const STAGE: &[Register] = &[Register::R8];

/// The instructions of a routine, decoded from memory.
struct Routine {
    name: String,
    /// The registers that point to what is the library's own.
    own: &'static [Register],
    instructions: Vec<Decoded>,
}

/// An instruction, and whether it reads or writes memory in a way that can fault.
struct Decoded {
    address: usize,
    code: iced_x86::Instruction,
    reads: bool,
    writes: bool,
}

impl Decoded {
    fn new(code: iced_x86::Instruction) -> Self {
        let is_write_back = matches!(code.mnemonic(), Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb);
        let mut info = InstructionInfoFactory::new();
        let accesses: Vec<OpAccess> = info.info(&code).used_memory().iter().map(UsedMemory::access).collect();
        // Prefetches and `lea` have memory operands, but access nothing.
        let any = |kinds: &[OpAccess]| accesses.iter().any(|access| kinds.contains(access));
        let reads = any(&[OpAccess::Read, OpAccess::CondRead, OpAccess::ReadWrite, OpAccess::ReadCondWrite]);
        let writes = any(&[OpAccess::Write, OpAccess::CondWrite, OpAccess::ReadWrite, OpAccess::ReadCondWrite]);
        Self { address: code.ip() as usize, code, reads, writes: writes || is_write_back }
    }

    fn touches_memory(&self) -> bool {
        self.reads || self.writes
    }

    /// Whether it touches memory that belongs neither to the routine nor to its caller.
    fn touches_foreign_memory(&self, fixup: usize, own: &[Register]) -> bool {
        let is_own = own.contains(&self.code.memory_base()) && (!self.writes || own == STAGE);
        let is_constant = self.code.is_ip_rel_memory_operand();
        let is_return = self.code.mnemonic() == Mnemonic::Ret;
        let is_record = self.address >= fixup && self.code.memory_base() == Register::R10 && !self.is_string();
        self.touches_memory() && !is_own && !is_constant && !is_return && !is_record
    }

    fn is_masked(&self) -> bool {
        self.code.mnemonic() == Mnemonic::Maskmovdqu
    }

    fn is_string(&self) -> bool {
        self.code.has_rep_prefix()
    }
}

/// All guarded routines, found by the addresses at which they are called.
fn routines() -> Vec<Routine> {
    let of_sets = SETS.iter().flat_map(|set| {
        let mut kinds = vec![
            ("copy", set.copy as *const (), NOTHING),
            ("nontemporal", set.nontemporal as *const (), NOTHING),
            ("zero", set.zero as *const (), NOTHING),
        ];
        if let Some(lines) = &set.lines {
            kinds.extend([("gather", lines.gather as *const (), LIST), ("scatter", lines.scatter as *const (), LIST)]);
        }
        if let Some(tee) = set.tee {
            kinds.extend([("tee", tee.copy as *const (), STAGE), ("tee past", tee.nontemporal as *const (), STAGE)]);
        }
        kinds.into_iter().map(|(kind, start, own)| (format!("{kind} {}", set.name), start, own))
    });
    let of_write_backs = WRITE_BACKS.iter().map(|one| (one.name.to_owned(), one.run as *const (), NOTHING));
    let all = of_sets.chain(of_write_backs);
    all.map(|(name, start, own)| Routine { instructions: disassemble(start), name, own }).collect()
}

/// Decodes a routine from its start to the `ret` behind the last fixup that an entry of it names.
fn disassemble(start: *const ()) -> Vec<Decoded> {
    const LONGEST: usize = 15;
    let mut found: Vec<Decoded> = Vec::new();
    let (mut at, mut last_fixup) = (start.addr(), 0);
    loop {
        let here = std::ptr::with_exposed_provenance::<[u8; LONGEST]>(at);
        // SAFETY: `at` is the start of an instruction of a routine in this binary, and behind every routine the text
        // section has more than 15 bytes.
        let bytes = unsafe { here.read() };
        let code = Decoder::with_ip(64, &bytes, at as u64, DecoderOptions::NONE).decode();
        assert!(!code.is_invalid(), "{at:#x} is no instruction");
        last_fixup = guard::find(at).map_or(last_fixup, |entry| last_fixup.max(entry.fixup));
        let is_end = code.mnemonic() == Mnemonic::Ret && last_fixup != 0 && at >= last_fixup;
        at += code.len();
        found.push(Decoded::new(code));
        if is_end {
            return found;
        }
    }
}

/// The entries that cover a byte of the routine, by the addresses where they start.
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
        for instruction in &routine.instructions {
            let address = instruction.address;
            let at = address - routine.instructions[0].address;
            let case = format!("{}+{at:#x}: {:?}", routine.name, instruction.code.code());
            let entry = guard::find(address);
            let foreign = instruction.touches_foreign_memory(fixup, routine.own);
            accesses += usize::from(foreign);
            // Some CPUs report poison in a string instruction with the instruction pointer behind it.
            let behind =
                entry.is_some_and(|entry| entry.meta & 0xff == Instruction::String as i32 && entry.start != address);
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
            let within = |one: &&Decoded| (entry.start..entry.end).contains(&one.address);
            let covered: Vec<&Decoded> = routine.instructions.iter().filter(within).collect();
            let codes: Vec<_> = covered.iter().map(|one| one.code.code()).collect();
            let case = format!("{}: {codes:?}", routine.name);
            assert_eq!(covered[0].address, entry.start, "{case}");
            let next = routine.instructions.iter().map(|one| one.address).find(|at| *at >= entry.end);
            assert_eq!(next, Some(entry.end), "{case}");
            assert_eq!(
                covered.iter().any(|one| one.is_masked()),
                Some(entry.fixup) != fixup,
                "{case}: masked stores' own fixup"
            );
            match entry.meta & 0xff {
                kind if kind == Instruction::String as i32 => {
                    assert!(covered[0].is_string() && covered.len() == 2 && !covered[1].touches_memory(), "{case}");
                }
                kind if kind == Instruction::Store as i32 => assert!(covered.iter().all(|one| one.writes), "{case}"),
                kind if kind == Instruction::First as i32 => {
                    assert!(covered.len() == 1 && !covered[0].writes, "{case}");
                }
                kind if kind == Instruction::Load as i32 => assert!(!covered.iter().any(|one| one.writes), "{case}"),
                kind => panic!("{case}: an unknown kind of access, {kind}"),
            }
        }
    }
}

#[test]
fn all_routines_are_looked_at_to_their_ends() {
    let routines = routines();
    let of_sets = SETS.iter().map(|set| set.tables.len()).sum::<usize>();
    assert_eq!(routines.len(), of_sets + WRITE_BACKS.len());
    let tables = SETS.iter().flat_map(|set| set.tables).chain(WRITE_BACKS.iter().flat_map(|one| one.tables));
    let known: BTreeSet<usize> = tables.flat_map(|table| table.entries()).map(|entry| entry.start).collect();
    let seen: BTreeSet<usize> = routines.iter().flat_map(|routine| entries(routine).into_keys()).collect();
    assert_eq!(seen, known, "every entry of every table lies in a routine");
}

#[test]
fn an_instruction_is_read_for_what_it_does() {
    let of = |bytes: &[u8]| Decoded::new(Decoder::new(64, bytes, DecoderOptions::NONE).decode());
    let harmless: [(&str, &[u8]); 5] = [
        ("lea r11, [rsi+rdx]", &[0x4C, 0x8D, 0x1C, 0x16]),
        ("nop word ptr [rax+rax]", &[0x66, 0x0F, 0x1F, 0x44, 0x00, 0x00]),
        ("prefetcht0 [rsi]", &[0x0F, 0x18, 0x0E]),
        ("sfence", &[0x0F, 0xAE, 0xF8]),
        ("mov r9, rdx", &[0x49, 0x89, 0xD1]),
    ];
    for (text, bytes) in harmless {
        assert!(!of(bytes).touches_memory(), "{text}");
    }
    let touching: [(&str, &[u8], bool); 6] = [
        ("mov al, [rsi]", &[0x8A, 0x06], false),
        ("movnti [rdi], rax", &[0x48, 0x0F, 0xC3, 0x07], true),
        ("rep movsb", &[0xF3, 0xA4], true),
        ("push rbx", &[0x53], true),
        ("clwb [rdi]", &[0x66, 0x0F, 0xAE, 0x37], true),
        ("maskmovdqu xmm0, xmm1", &[0x66, 0x0F, 0xF7, 0xC1], true),
    ];
    for (text, bytes, writes) in touching {
        assert_eq!((of(bytes).touches_memory(), of(bytes).writes), (true, writes), "{text}");
    }
}
