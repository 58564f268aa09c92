//! Which memory is guarded: a fixed table that the handler reads and never writes to but in its turn.

use super::turn::Turn;
use crate::memory::Segment;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};

/// Ranges, and threads that guard every file, that can be guarded at once.
pub(super) const CLAIMS: usize = 4096;

static TABLE: [Claim; CLAIMS] = [const { Claim::new() }; CLAIMS];
/// How many of them from the first on were ever taken.
static EVER_TAKEN: AtomicUsize = AtomicUsize::new(0);
/// How many are active.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);

/// What becomes of a claim, in the low bits of its state; the rest counts changes.
const STEPS: usize = 4;
const FREE: usize = 0;
const FILLED: usize = 1;
/// Puts pages under zeroes, and keeps them there.
const GUARDS: usize = 2;

/// What a claim covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// Whole pages, whichever thread's fault it is.
    Pages {
        /// Which.
        seg: Segment,
        /// Whether they are known to be writable.
        is_writable: bool,
        /// Whether nobody can unmap them, as they are exported.
        is_pinned: bool,
    },
    /// Every mapped file, for faults of this thread.
    Thread(usize),
}

/// One entry, on lines of its own.
#[repr(align(128))]
pub(super) struct Claim {
    state: AtomicUsize,
    /// Of pages; or of the mapping that a thread faulted in last, for a claim of a thread.
    start: AtomicUsize,
    len: AtomicUsize,
    is_writable: AtomicBool,
    is_pinned: AtomicBool,
    /// 0 for a claim of pages.
    thread: AtomicUsize,
    /// What the handler keeps of earlier faults under this claim, in its turn.
    pub(super) faults: AtomicU32,
    pub(super) run: AtomicU32,
    pub(super) last: [AtomicUsize; 2],
    pub(super) growth: AtomicU32,
}

impl Claim {
    const fn new() -> Self {
        Self {
            state: AtomicUsize::new(FREE),
            start: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            is_writable: AtomicBool::new(false),
            is_pinned: AtomicBool::new(false),
            thread: AtomicUsize::new(0),
            faults: AtomicU32::new(0),
            run: AtomicU32::new(0),
            last: [const { AtomicUsize::new(0) }; 2],
            growth: AtomicU32::new(0),
        }
    }

    fn step(&self, step: usize) {
        let state = self.state.load(Ordering::Relaxed);
        self.state.store(state / STEPS * STEPS + STEPS + step, Ordering::SeqCst);
    }

    fn take(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state % STEPS == FREE
            && self.state.compare_exchange(state, state + FILLED, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// What it covers, if it guards.
    fn scope(&self) -> Option<Scope> {
        let before = self.state.load(Ordering::SeqCst);
        let seg = Segment::new(self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        let [is_writable, is_pinned] = [&self.is_writable, &self.is_pinned].map(|flag| flag.load(Ordering::Relaxed));
        let thread = self.thread.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_whole = before % STEPS == GUARDS && self.state.load(Ordering::Relaxed) == before;
        let pages = Scope::Pages { seg, is_writable, is_pinned };
        is_whole.then_some(if thread == 0 { pages } else { Scope::Thread(thread) })
    }

    /// The mapping that the claim's thread faulted in last, and whether it may be written to.
    pub(super) fn mapping(&self, _turn: &Turn) -> (Segment, bool) {
        let seg = Segment::new(self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        (seg, self.is_writable.load(Ordering::Relaxed))
    }

    /// Remembers that mapping.
    pub(super) fn set_mapping(&self, seg: Segment, is_writable: bool, _turn: &Turn) {
        self.start.store(seg.addr, Ordering::Relaxed);
        self.len.store(seg.len, Ordering::Relaxed);
        self.is_writable.store(is_writable, Ordering::Relaxed);
    }
}

/// Every claim that guards, and what it covers.
fn claims() -> impl Iterator<Item = (&'static Claim, Scope)> {
    let some = if is_any() { EVER_TAKEN.load(Ordering::Relaxed) } else { 0 };
    TABLE[..some.min(CLAIMS)].iter().filter_map(|claim| Some((claim, claim.scope()?)))
}

/// What is covered by claims that have not ended.
pub(super) fn scopes() -> impl Iterator<Item = Scope> {
    claims().map(|(_, scope)| scope)
}

/// Whether there is any claim.
pub fn is_any() -> bool {
    ACTIVE.load(Ordering::SeqCst) != 0
}

/// Has a claim guard what a scope covers, until it is given to [`free`]. `None` if the table is full.
pub(super) fn take(scope: Scope) -> Option<&'static Claim> {
    let at = TABLE.iter().position(Claim::take)?;
    EVER_TAKEN.fetch_max(at + 1, Ordering::Relaxed);
    let claim = &TABLE[at];
    // Whoever finds the new fields finds that the state has changed.
    fence(Ordering::Release);
    let (seg, is_writable, is_pinned, thread) = match scope {
        Scope::Pages { seg, is_writable, is_pinned } => (seg, is_writable, is_pinned, 0),
        Scope::Thread(thread) => (Segment::default(), false, false, thread),
    };
    claim.start.store(seg.addr, Ordering::Relaxed);
    claim.len.store(seg.len, Ordering::Relaxed);
    claim.is_writable.store(is_writable, Ordering::Relaxed);
    claim.is_pinned.store(is_pinned, Ordering::Relaxed);
    claim.thread.store(thread, Ordering::Relaxed);
    for counter in [&claim.faults, &claim.run, &claim.growth] {
        counter.store(0, Ordering::Relaxed);
    }
    claim.last.iter().for_each(|end| end.store(0, Ordering::Relaxed));
    ACTIVE.fetch_add(1, Ordering::SeqCst);
    claim.step(GUARDS);
    Some(claim)
}

/// Ends a claim that [`take`] returned, once. In a turn, or with nothing under zeroes yet that it was over.
pub(super) fn free(claim: &'static Claim) {
    claim.step(FREE);
    ACTIVE.fetch_sub(1, Ordering::SeqCst);
}

/// The claim that a fault of a thread is under: the widest.
pub(super) fn covering(address: usize, thread: usize) -> Option<(&'static Claim, Scope)> {
    let width = |scope: Scope| match scope {
        Scope::Pages { seg, .. } => seg.overlaps(Segment::new(address, 1)).then_some(seg.len),
        Scope::Thread(guarded) => (guarded == thread).then_some(0),
    };
    let covering = claims().filter_map(|(claim, scope)| Some((width(scope)?, claim, scope)));
    covering.max_by_key(|(width, ..)| *width).map(|(_, claim, scope)| (claim, scope))
}
