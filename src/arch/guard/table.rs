//! The fault table: which instructions may fault, and where to go on if they do.

use crate::arch;

/// One guarded stretch of code. Offsets are relative to the fields themselves.
#[repr(C)]
pub struct Entry {
    start: i32,
    end: i32,
    fixup: i32,
    /// The [`Instruction`](super::Instruction) in the low byte; in the 12 bits above it the bytes of this turn that
    /// were stored before, in the 12 above those how many more had been loaded and not stored.
    meta: i32,
}

/// A routine's entries.
#[derive(Clone, Copy)]
pub struct Table {
    start: *const Entry,
    end: *const Entry,
}

// SAFETY: the pointers are to read-only data of this library, which nothing changes.
unsafe impl Sync for Table {}
// SAFETY: read-only data of this library may be read from any thread.
unsafe impl Send for Table {}

impl Table {
    /// The entries between two symbols of one section.
    #[allow(dead_code)] // by sets that guard nothing
    pub(in crate::arch) const fn new(start: *const Entry, end: *const Entry) -> Self {
        Self { start, end }
    }

    /// The entries in the order of their code, each with its addresses.
    pub fn entries(self) -> impl DoubleEndedIterator<Item = Resume> {
        let count = (self.end.addr() - self.start.addr()) / size_of::<Entry>();
        (0..count).map(move |index| {
            // SAFETY: index < count, so the entry lies between the two symbols, which the assembler filled with
            // entries.
            let entry = unsafe { &*self.start.wrapping_add(index) };
            let at = |field: &i32| std::ptr::from_ref(field).addr().wrapping_add_signed(*field as isize);
            Resume { start: at(&entry.start), end: at(&entry.end), fixup: at(&entry.fixup), meta: entry.meta }
        })
    }

    /// Whether the instruction at `pointer` is between the first and the last of them.
    fn may_hold(self, pointer: usize) -> bool {
        let (first, last) = (self.entries().next(), self.entries().next_back());
        first.is_some_and(|first| first.start <= pointer) && last.is_some_and(|last| pointer < last.end)
    }
}

/// An entry with absolute addresses.
#[derive(Clone, Copy, Debug)]
pub struct Resume {
    /// First instruction.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Where to go on.
    pub fixup: usize,
    /// For [`Trap::encode`](super::Trap::encode).
    pub meta: i32,
}

/// Where to go on if the instruction at `pointer` faults. Runs in a signal handler: no allocation, no lock.
pub fn find(pointer: usize) -> Option<Resume> {
    let tables = arch::SETS.iter().flat_map(|set| set.tables);
    let tables = tables.chain(arch::WRITE_BACKS.iter().flat_map(|instruction| instruction.tables));
    let near = tables.filter(|table| table.may_hold(pointer));
    near.flat_map(|table| table.entries()).find(|entry| entry.start <= pointer && pointer < entry.end)
}
