//! Tests that the fault table has every access to foreign memory of the guarded routines, and nothing else. All
//! instructions have the same length, and a few bits tell which of them touch memory.

use super::{SETS, WRITE_BACKS};
use crate::arch::guard::{self, Instruction};

/// What an instruction does to memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Touch {
    Nothing,
    Loads,
    Stores,
}

fn touch(code: u32) -> Touch {
    let is_load_or_store = code >> 25 & 0b0101 == 0b0100;
    let is_hint = code & 0xff00_0000 == 0xf900_0000 && code >> 22 & 0b11 == 0b10;
    let is_cache_operation = code & 0xffff_f000 == 0xd50b_7000;
    // A load of a pair is marked by one bit, a load of a single general register by either of two.
    let is_pair = code >> 28 & 0b11 == 0b10;
    let loads = if is_pair { code >> 22 & 1 != 0 } else { code >> 22 & 0b11 != 0 };
    match () {
        () if is_cache_operation => Touch::Stores,
        () if !is_load_or_store || is_hint => Touch::Nothing,
        () if loads => Touch::Loads,
        () => Touch::Stores,
    }
}

/// All guarded routines, found by the addresses at which they are called.
fn routines() -> Vec<(&'static str, *const ())> {
    let of_sets = SETS.iter().flat_map(|set| {
        [set.copy as *const (), set.nontemporal as *const (), set.zero as *const ()].map(|start| (set.name, start))
    });
    of_sets.chain(WRITE_BACKS.iter().map(|one| (one.name, one.run as *const ()))).collect()
}

#[test]
fn every_access_to_foreign_memory_has_an_entry_that_says_what_it_does_and_nothing_else_has() {
    const RETURN: u32 = 0xd65f_03c0;
    let (mut accesses, mut seen) = (0, 0);
    for (name, start) in routines() {
        let (mut at, mut fixup) = (start.addr(), usize::MAX);
        loop {
            // SAFETY: `at` is the address of an instruction of a routine in this binary, since the loop ends at the
            // return of its fixup.
            let code = unsafe { std::ptr::with_exposed_provenance::<u32>(at).read() };
            let entry = guard::find(at);
            let case = format!("{name}+{:#x}: {code:#010x}", at - start.addr());
            match entry {
                None if at >= fixup => {}
                None => assert_eq!(touch(code), Touch::Nothing, "{case}"),
                Some(entry) => {
                    accesses += 1;
                    seen += usize::from(entry.start == at);
                    fixup = entry.fixup;
                    let is_store = entry.meta & 0xff == Instruction::Store as i32;
                    assert_eq!(touch(code), if is_store { Touch::Stores } else { Touch::Loads }, "{case}");
                }
            }
            if at >= fixup && code == RETURN {
                break;
            }
            at += 4;
        }
    }
    assert!(accesses > 200, "{accesses} accesses in all");
    let tables = SETS.iter().flat_map(|set| set.tables).chain(WRITE_BACKS.iter().flat_map(|one| one.tables));
    assert_eq!(seen, tables.flat_map(|table| table.entries()).count(), "every entry lies in a routine");
}

#[test]
fn an_instruction_is_read_for_what_it_does() {
    let cases = [
        (0x3940_0025, Touch::Loads, "ldrb w5, [x1]"),
        (0x3900_0005, Touch::Stores, "strb w5, [x0]"),
        (0xa940_1825, Touch::Loads, "ldp x5, x6, [x1]"),
        (0xad00_0400, Touch::Stores, "stp q0, q1, [x0]"),
        (0xac00_0400, Touch::Stores, "stnp q0, q1, [x0]"),
        (0xad40_0420, Touch::Loads, "ldp q0, q1, [x1]"),
        (0xf85f_81c6, Touch::Loads, "ldur x6, [x14, -8]"),
        (0xd50b_7a20, Touch::Stores, "dc cvac, x0"),
        (0xf980_0020, Touch::Nothing, "prfm pldl1keep, [x1]"),
        (0xd503_3f9f, Touch::Nothing, "dsb sy"),
        (0x9101_0021, Touch::Nothing, "add x1, x1, 64"),
        (0xd65f_03c0, Touch::Nothing, "ret"),
    ];
    for (code, expected, text) in cases {
        assert_eq!(touch(code), expected, "{text}");
    }
}
