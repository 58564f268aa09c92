//! What tells a signal that comes round again from a new one, in tables that a handler can use: no lock, no allocation.

use super::arrival::Arrival;
use super::threads;
use crate::sys::memory;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Signals that threads can be known to be inside of at once. One more takes the place of another, which is then not
/// recognised.
const RECORDS: usize = 128;

/// Thread, level and signal; never 0.
fn key(signal: i32, level: usize) -> u64 {
    u64::from(threads::current_tid().cast_unsigned()) << 16 | (level as u64) << 8 | u64::from(signal.cast_unsigned())
}

/// Where a key goes when all records are taken.
fn place(key: u64) -> usize {
    (key >> 16) as usize % RECORDS
}

/// A number on the stack for as long as a handler below is called from there. One that leaves by longjmp is never seen
/// to return, but what the thread does then writes over it.
#[derive(Default)]
pub(super) struct Witness(AtomicU64);

impl Witness {
    /// A number of its own, which hardly anything else that may come to lie there is.
    fn sign(&self) -> u64 {
        const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
        static SIGNED: AtomicU64 = AtomicU64::new(1);
        let number = SIGNED.fetch_add(1, Ordering::Relaxed).wrapping_mul(ODD);
        self.0.store(number, Ordering::Relaxed);
        number
    }

    fn addr(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

/// A handler below one level that runs for a thread.
struct Record {
    /// 0 is free.
    key: AtomicU64,
    frame: AtomicUsize,
    number: AtomicU64,
    context: AtomicUsize,
    is_fault: AtomicUsize,
}

/// One call of it.
#[derive(Clone, Copy)]
struct Call {
    /// Where on the stack it was made: its witness.
    frame: usize,
    /// What the witness says.
    number: u64,
    /// Where the interrupted context is.
    context: usize,
    /// Whether an instruction's fault was the reason; 0 or 1.
    is_fault: usize,
}

static RUNNING: [Record; RECORDS] = [const {
    Record {
        key: AtomicU64::new(0),
        frame: AtomicUsize::new(0),
        number: AtomicU64::new(0),
        context: AtomicUsize::new(0),
        is_fault: AtomicUsize::new(0),
    }
}; RECORDS];

impl Record {
    fn get(&self) -> Call {
        let [frame, context, is_fault] =
            [&self.frame, &self.context, &self.is_fault].map(|field| field.load(Ordering::Relaxed));
        Call { frame, number: self.number.load(Ordering::Relaxed), context, is_fault }
    }

    fn set(&self, call: Call) {
        self.frame.store(call.frame, Ordering::Relaxed);
        self.number.store(call.number, Ordering::Relaxed);
        self.context.store(call.context, Ordering::Relaxed);
        self.is_fault.store(call.is_fault, Ordering::Relaxed);
    }
}

impl Call {
    /// Whether a handler whose witness is at `frame` can have been called inside this one: further down on the stack,
    /// where this one's witness is still there. It may be there by chance after a longjmp, and never gone before.
    fn may_hold(&self, frame: usize) -> bool {
        let mut found = 0_u64;
        if frame >= self.frame {
            return false;
        }
        // The stack that it was on may be gone, so that the kernel looks.
        // SAFETY: the destination is the local variable.
        let read = unsafe { memory::copy((&raw mut found).expose_provenance(), self.frame, size_of::<u64>()) };
        read == size_of::<u64>() && found == self.number
    }
}

/// A signal handed on to the handler below one level, for as long as that runs.
pub(super) struct Delegation {
    record: &'static Record,
    key: u64,
    /// The call that this one is inside of.
    outer: Option<Call>,
}

impl Delegation {
    /// `None` if it is the same signal coming round again: chained to us by the handler below, or raised again by it.
    /// The witness stays where it is until the handler has returned.
    pub(super) fn begin(arrival: &Arrival, level: usize, witness: &Witness) -> Option<Self> {
        let (key, frame) = (key(arrival.signal, level), witness.addr());
        let own = RUNNING.iter().find(|record| record.key.load(Ordering::Relaxed) == key);
        let (context, is_fault) = (arrival.pointers().1.addr(), usize::from(arrival.is_fault()));
        let outer = own.map(Record::get).filter(|outer| outer.may_hold(frame));
        if let Some(outer) = outer {
            let is_chained = context == outer.context;
            let is_raised_again = outer.is_fault != 0 && arrival.is_raised();
            if is_chained || is_raised_again {
                return None;
            }
        }
        let claim =
            |record: &&Record| record.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let record = own.or_else(|| RUNNING.iter().find(claim)).unwrap_or(&RUNNING[place(key)]);
        record.key.store(key, Ordering::Relaxed);
        record.set(Call { frame, number: witness.sign(), context, is_fault });
        Some(Self { record, key, outer })
    }
}

impl Drop for Delegation {
    fn drop(&mut self) {
        match self.outer {
            Some(outer) => self.record.set(outer),
            None => {
                let _ = self.record.key.compare_exchange(self.key, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
        }
    }
}

/// A signal that a handler below returned from with nothing changed. The same thread's next one with the same registers
/// is the same fault, or the same signal raised again by that handler.
pub(super) struct Unmended {
    /// Thread and signal; 0 is free.
    key: AtomicU64,
    state: AtomicU64,
    /// The level to hand it on from next, counted from 1; 0 if there is none.
    next: AtomicUsize,
}

static UNMENDED: [Unmended; RECORDS] =
    [const { Unmended { key: AtomicU64::new(0), state: AtomicU64::new(0), next: AtomicUsize::new(0) } }; RECORDS];

impl Unmended {
    /// The level whose predecessor this thread's signal is for: the one that comes next if the signal is the one that
    /// was noted, `first` otherwise; `None` if none comes next. Forgets what was noted.
    pub(super) fn level(signal: i32, state: u64, first: usize) -> Option<usize> {
        let key = key(signal, 0);
        let Some(noted) = UNMENDED.iter().find(|noted| noted.key.load(Ordering::Relaxed) == key) else {
            return Some(first);
        };
        let (is_same, next) = (noted.state.load(Ordering::Relaxed) == state, noted.next.load(Ordering::Relaxed));
        noted.key.store(0, Ordering::Relaxed);
        if is_same { next.checked_sub(1) } else { Some(first) }
    }

    pub(super) fn put(signal: i32, state: u64, next: Option<usize>) {
        let key = key(signal, 0);
        let claim = |noted: &&Self| noted.key.compare_exchange(0, key, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        let noted = UNMENDED.iter().find(claim).unwrap_or(&UNMENDED[place(key)]);
        noted.key.store(key, Ordering::Relaxed);
        noted.state.store(state, Ordering::Relaxed);
        noted.next.store(next.map_or(0, |level| level + 1), Ordering::Relaxed);
    }
}
