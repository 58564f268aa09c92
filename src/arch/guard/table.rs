//! The fault table: which instructions may fault, and the fixup of each.

use crate::arch;

/// The entry of one guarded stretch of code, as the assembler writes it (the `guarded!` macro of the instruction set's
/// `table.rs`). Each address is an offset from its own field, so that the table needs no relocation and stays
/// read-only.
#[repr(C)]
pub struct Entry {
    start: i32,
    end: i32,
    fixup: i32,
    /// Bits 0 to 7 are the [`Instruction`](super::Instruction). Bits 8 to 19 are how many bytes of the loop iteration
    /// were stored before this access, bits 20 to 31 how many more were loaded but not stored.
    meta: i32,
}

/// The entries of one routine.
#[derive(Clone, Copy)]
pub struct Table {
    start: *const Entry,
    end: *const Entry,
}

// SAFETY: `Table::new` is called on the bounds of a read-only section of this library, which nothing changes, and which
// is mapped as long as this code is.
unsafe impl Sync for Table {}
// SAFETY: the pointers are to a read-only section, by `Table::new`'s callers, and any thread may read that.
unsafe impl Send for Table {}

impl Table {
    /// The entries between two symbols of one section.
    #[allow(dead_code)] // by the portable set, which guards nothing
    pub(in crate::arch) const fn new(start: *const Entry, end: *const Entry) -> Self {
        Self { start, end }
    }

    /// The entries in the order of their code, each with its addresses.
    pub fn entries(self) -> impl DoubleEndedIterator<Item = Resume> {
        let count = (self.end.addr() - self.start.addr()) / size_of::<Entry>();
        (0..count).map(move |index| {
            // SAFETY: index < count, so the entry lies between the two symbols that `Table::new` was given, and the
            // assembler put nothing but entries there.
            let entry = unsafe { &*self.start.wrapping_add(index) };
            let at = |field: &i32| std::ptr::from_ref(field).addr().wrapping_add_signed(*field as isize);
            Resume { start: at(&entry.start), end: at(&entry.end), fixup: at(&entry.fixup), meta: entry.meta }
        })
    }

    /// Whether `pointer` lies between the start of the first entry and the end of the last. This rules out most tables
    /// at once.
    fn may_hold(self, pointer: usize) -> bool {
        let (first, last) = (self.entries().next(), self.entries().next_back());
        first.is_some_and(|first| first.start <= pointer) && last.is_some_and(|last| pointer < last.end)
    }
}

/// An entry with absolute addresses.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// The address of its first instruction.
    pub start: usize,
    /// The address behind its last instruction.
    pub end: usize,
    /// The address of its fixup.
    pub fixup: usize,
    /// The kind and progress of the access, packed for [`Trap::encode`](super::Trap::encode).
    pub meta: i32,
}

/// Finds the entry of the instruction at `pointer`; `None` if that is not a guarded access. It runs in a signal
/// handler, so it neither allocates nor locks.
pub fn find(pointer: usize) -> Option<Resume> {
    let tables = arch::SETS.iter().flat_map(|set| set.tables);
    let tables = tables.chain(arch::WRITE_BACKS.iter().flat_map(|instruction| instruction.tables));
    let near = tables.filter(|table| table.may_hold(pointer));
    near.flat_map(|table| table.entries()).find(|entry| entry.start <= pointer && pointer < entry.end)
}
