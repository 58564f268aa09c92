//! One call at a time moves an iterator on; the others may look at it meanwhile.
//!
//! Where the interpreter has a lock, that lock makes the calls take turns: only threads that hold it take an iterator
//! and let go of it. [`InUse`] proves that with a [`Python`] token, which can neither leave its thread nor be used
//! while the thread is detached. So an iterator is taken by a load and a store, without a locked instruction, which
//! would also wait for the stores of the copy before. On a free-threaded build it is taken by a compare-and-swap.
//!
//! What others may see of an iterator in use is written down when others can come to look: by [`Shared::lock`] at once,
//! by a call that took it with [`Shared::lock_unseen`] before it lets go of the interpreter or runs Python code.

use super::exception::exception;
use crate::abi::{Direction, Kind};
use crate::fault::Fault;
use crate::iter;
use crate::sys::lock::generation;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use std::cell::UnsafeCell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a call works on.
pub(super) struct Cursor {
    pub(super) core: iter::IovIter,
    /// The first segment that `zero` must not write to.
    pub(super) readonly: Option<usize>,
}

/// Stands for the thread of a call that never ends: the iterator was released.
const RELEASED: usize = usize::MAX;

/// Stands for the thread of a call that neither lets go of the interpreter nor runs Python code: no other can meet it.
const UNSEEN: usize = usize::MAX - 1;

/// Whether threads that are attached to the interpreter run one at a time. An extension is built for one sort of
/// interpreter or the other, which have different binary interfaces.
pub(super) const TAKES_TURNS: bool = cfg!(not(Py_GIL_DISABLED));

/// A cursor that one call at a time has for itself.
pub(super) struct Shared {
    /// The thread whose call has it; [`UNSEEN`] while nobody can ask which; 0 while none does.
    user: AtomicUsize,
    /// The process in which that call began.
    process: AtomicU32,
    cursor: UnsafeCell<Cursor>,
    kind: Kind,
    direction: Direction,
    /// What the iterator was when that call began, for whoever looks at it meanwhile.
    count: AtomicUsize,
    iov_offset: AtomicUsize,
    nr_segs: AtomicUsize,
    has_fault: AtomicBool,
    fault: Mutex<Option<Box<Fault>>>,
}

// SAFETY: the cursor is reached through `InUse` alone, of which there is one at a time: see `Shared::try_lock`.
unsafe impl Sync for Shared {}

/// A number that no other running thread has, and that is not 0.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

impl Shared {
    pub(super) fn new(core: iter::IovIter, readonly: Option<usize>) -> Self {
        Self {
            user: AtomicUsize::new(0),
            process: AtomicU32::new(0),
            kind: core.kind(),
            direction: core.direction(),
            count: AtomicUsize::new(0),
            iov_offset: AtomicUsize::new(0),
            nr_segs: AtomicUsize::new(0),
            has_fault: AtomicBool::new(false),
            fault: Mutex::new(None),
            cursor: UnsafeCell::new(Cursor { core, readonly }),
        }
    }

    /// The cursor, unless another call has it.
    #[inline]
    fn try_lock<'py>(&self, py: Python<'py>) -> Option<InUse<'_, 'py>> {
        let is_free = if TAKES_TURNS {
            // No other thread that could store here is attached, and this one stays so from the load to the store:
            // `py` says that it is, and nothing in between lets go of the interpreter.
            let is_free = self.user.load(Ordering::Relaxed) == 0;
            if is_free {
                self.user.store(UNSEEN, Ordering::Relaxed);
            }
            is_free
        } else {
            self.user.compare_exchange(0, UNSEEN, Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        // Lazily: to drop one is to unlock.
        if is_free { Some(InUse { shared: self, _attached: py }) } else { None }
    }

    /// The cursor, for a call that may move it on. `RuntimeError` while another call does.
    #[inline]
    pub(super) fn lock<'py>(&self, py: Python<'py>) -> PyResult<InUse<'_, 'py>> {
        let in_use = self.lock_unseen(py)?;
        in_use.show();
        Ok(in_use)
    }

    /// The same, for a call that shows the iterator ([`InUse::show`]) before it lets go of the interpreter or runs
    /// Python code: most do neither.
    #[inline]
    pub(super) fn lock_unseen<'py>(&self, py: Python<'py>) -> PyResult<InUse<'_, 'py>> {
        let in_use = self.try_lock(py).ok_or_else(|| self.refusal(py))?;
        if !TAKES_TURNS {
            in_use.show();
        }
        Ok(in_use)
    }

    #[cold]
    fn show_fault(&self, fault: Option<&Fault>) {
        let shown = fault.map(|fault| Box::new(fault.clone()));
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = shown;
        self.has_fault.store(fault.is_some(), Ordering::Relaxed);
    }

    #[cold]
    fn refusal(&self, py: Python<'_>) -> PyErr {
        if self.is_released() {
            return exception::<PyValueError>("the iterator was released: its memory has been given back");
        }
        let why = if self.user.load(Ordering::Relaxed) == this_thread() {
            "a call that this one is part of is copying through it"
        } else if self.process.load(Ordering::Relaxed) == generation() {
            "another thread is copying through it"
        } else {
            // Nobody knows how far it came, so that the child has to make one of its own.
            "it stopped in the middle of a copy when this process was forked, and another has to be made"
        };
        exception::<PyRuntimeError>(format!("{} is in use: {why}", self.state(py)))
    }

    /// Whether it was released.
    pub(super) fn is_released(&self) -> bool {
        self.user.load(Ordering::Acquire) == RELEASED
    }

    /// Refuses to say anything of an iterator that was released.
    pub(super) fn require_alive(&self, py: Python<'_>) -> PyResult<()> {
        if self.is_released() { Err(self.refusal(py)) } else { Ok(()) }
    }

    /// Has nobody use the cursor any more; it comes back, to be dropped when nothing is locked. `RuntimeError` while a
    /// call has it.
    pub(super) fn retire(&self, py: Python<'_>) -> PyResult<iter::IovIter> {
        let nothing = iter::IovIter::discard(Direction::Dest, 0)?;
        let mut in_use = self.lock(py)?;
        let core = std::mem::replace(&mut in_use.core, nothing);
        std::mem::forget(in_use);
        self.user.store(RELEASED, Ordering::Release);
        Ok(core)
    }

    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    /// What it is now or, while a call has it, was when that began.
    pub(super) fn state(&self, py: Python<'_>) -> State {
        let (count, iov_offset, nr_segs) = match self.try_lock(py) {
            Some(now) => (now.core.count(), now.core.iov_offset(), now.core.nr_segs()),
            None => (
                self.count.load(Ordering::Relaxed),
                self.iov_offset.load(Ordering::Relaxed),
                self.nr_segs.load(Ordering::Relaxed),
            ),
        };
        State { kind: self.kind, direction: self.direction, count, iov_offset, nr_segs }
    }

    /// Why the last copy came out short: of those that have ended.
    pub(super) fn fault(&self, py: Python<'_>) -> Option<Box<Fault>> {
        match self.try_lock(py) {
            Some(now) => now.core.fault.clone(),
            None => self.fault.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// What can be seen of an iterator.
pub(super) struct State {
    pub(super) kind: Kind,
    pub(super) direction: Direction,
    pub(super) count: usize,
    pub(super) iov_offset: usize,
    pub(super) nr_segs: usize,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, count, iov_offset, nr_segs, .. } = self;
        let direction = if self.direction == Direction::Dest { "READ" } else { "WRITE" };
        write!(f, "<IovIter {kind} {direction} count={count} iov_offset={iov_offset} nr_segs={nr_segs}>")
    }
}

/// An iterator's cursor while one call has it. It is made and dropped by a thread that is attached to the interpreter.
pub(super) struct InUse<'a, 'py> {
    shared: &'a Shared,
    _attached: Python<'py>,
}

impl InUse<'_, '_> {
    /// Says whose call has the cursor, and what the iterator is, to whoever looks at it until the call ends.
    pub(super) fn show(&self) {
        let Self { shared, .. } = self;
        let core = &self.core;
        shared.process.store(generation(), Ordering::Relaxed);
        shared.count.store(core.count(), Ordering::Relaxed);
        shared.iov_offset.store(core.iov_offset(), Ordering::Relaxed);
        shared.nr_segs.store(core.nr_segs(), Ordering::Relaxed);
        if core.fault.is_some() || shared.has_fault.load(Ordering::Relaxed) {
            shared.show_fault(core.fault.as_deref());
        }
        shared.user.store(this_thread(), Ordering::Release);
    }
}

impl Drop for InUse<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.shared.user.store(0, Ordering::Release);
    }
}

impl Deref for InUse<'_, '_> {
    type Target = Cursor;

    #[inline]
    fn deref(&self) -> &Cursor {
        // SAFETY: `try_lock` makes one such value at a time, and whoever had it before has released `user` since.
        unsafe { &*self.shared.cursor.get() }
    }
}

impl DerefMut for InUse<'_, '_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Cursor {
        // SAFETY: `try_lock` makes one such value at a time, and this one is borrowed mutably.
        unsafe { &mut *self.shared.cursor.get() }
    }
}
