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
/// Keeps them there until it is known what they were, and puts no more there.
const LEAVES: usize = 3;

/// What a claim covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// Whole pages, whichever thread's fault it is; and whether they are known to be writable.
    Pages(Segment, bool),
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

    /// What it covers, if it is in one of these steps.
    fn scope(&self, steps: &[usize]) -> Option<Scope> {
        let before = self.state.load(Ordering::SeqCst);
        let seg = Segment::new(self.start.load(Ordering::Relaxed), self.len.load(Ordering::Relaxed));
        let (is_writable, thread) = (self.is_writable.load(Ordering::Relaxed), self.thread.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_whole = steps.contains(&(before % STEPS)) && self.state.load(Ordering::Relaxed) == before;
        is_whole.then_some(if thread == 0 { Scope::Pages(seg, is_writable) } else { Scope::Thread(thread) })
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

/// Every claim in one of these steps, and what it covers.
fn claims(steps: &'static [usize]) -> impl Iterator<Item = (&'static Claim, Scope)> {
    let some = if ACTIVE.load(Ordering::Relaxed) == 0 { 0 } else { EVER_TAKEN.load(Ordering::Relaxed) };
    TABLE[..some.min(CLAIMS)].iter().filter_map(|claim| Some((claim, claim.scope(steps)?)))
}

/// What is covered by claims that have not ended.
pub(super) fn scopes() -> impl Iterator<Item = Scope> {
    claims(&[GUARDS, LEAVES]).map(|(_, scope)| scope)
}

/// A claim, for as long as this lives.
pub(super) struct Held(&'static Claim);

impl Held {
    /// `None` if the table is full.
    pub(super) fn new(scope: Scope) -> Option<Self> {
        let at = TABLE.iter().position(Claim::take)?;
        EVER_TAKEN.fetch_max(at + 1, Ordering::Relaxed);
        let claim = &TABLE[at];
        // Whoever finds the new fields finds that the state has changed.
        fence(Ordering::Release);
        let (seg, is_writable, thread) = match scope {
            Scope::Pages(seg, is_writable) => (seg, is_writable, 0),
            Scope::Thread(thread) => (Segment::default(), false, thread),
        };
        claim.start.store(seg.addr, Ordering::Relaxed);
        claim.len.store(seg.len, Ordering::Relaxed);
        claim.is_writable.store(is_writable, Ordering::Relaxed);
        claim.thread.store(thread, Ordering::Relaxed);
        for counter in [&claim.faults, &claim.run, &claim.growth] {
            counter.store(0, Ordering::Relaxed);
        }
        claim.last.iter().for_each(|end| end.store(0, Ordering::Relaxed));
        ACTIVE.fetch_add(1, Ordering::Relaxed);
        claim.step(GUARDS);
        Some(Self(claim))
    }

    /// From here on it puts nothing more under zeroes, once a turn that may have begun is over.
    pub(super) fn leave(&self) {
        self.0.step(LEAVES);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.step(FREE);
        ACTIVE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The claim that a fault of a thread is under: the widest.
pub(super) fn covering(address: usize, thread: usize) -> Option<(&'static Claim, Scope)> {
    let width = |scope: Scope| match scope {
        Scope::Pages(seg, _) => seg.overlaps(Segment::new(address, 1)).then_some(seg.len),
        Scope::Thread(guarded) => (guarded == thread).then_some(0),
    };
    let covering = claims(&[GUARDS]).filter_map(|(claim, scope)| Some((width(scope)?, claim, scope)));
    covering.max_by_key(|(width, ..)| *width).map(|(_, claim, scope)| (claim, scope))
}
