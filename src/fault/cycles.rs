//! Recognises a signal that comes to our handler again through a handler below, so that it is not passed on for ever.
//! The tables need neither locks nor allocation, so that a signal handler can use them.
//!
//! There are two ways to come again. The handler below may call us, or raise the signal, while it runs: a
//! [`Delegation`] records that it runs. Or it may return without mending the fault, and the instruction faults again:
//! [`Unmended`] records that.

use super::arrival::Arrival;
use super::threads;
use crate::sys::memory;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The number of records in each table. When all are used, a new one replaces another, whose signal is then not
/// recognised.
const RECORDS: usize = 128;

/// The key of a record, made of thread, level and signal. It is never 0.
fn key(signal: i32, level: usize) -> u64 {
    u64::from(threads::current_tid().cast_unsigned()) << 16 | (level as u64) << 8 | u64::from(signal.cast_unsigned())
}

/// The record that a key replaces when all are used.
fn place(key: u64) -> usize {
    (key >> 16) as usize % RECORDS
}

/// A number in the stack frame that calls a handler below. It shows whether that call is still running: a handler that
/// leaves by longjmp never returns to us, but the thread's later calls overwrite the number.
#[derive(Default)]
pub(super) struct Witness(AtomicU64);

impl Witness {
    /// Stores a number that is unique, and unlikely to appear on the stack by chance. Returns it.
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

/// A running call of the handler below one level, in one thread.
struct Record {
    /// The key; 0 if the record is free.
    key: AtomicU64,
    frame: AtomicUsize,
    number: AtomicU64,
    context: AtomicUsize,
    is_fault: AtomicUsize,
}

/// What a record says about the call.
#[derive(Clone, Copy)]
struct Call {
    /// The address of the call's witness on the stack.
    frame: usize,
    /// The number in the witness.
    number: u64,
    /// The address of the context of the interrupted code.
    context: usize,
    /// Whether the signal is a fault of an instruction; 0 or 1.
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
    /// Whether a call whose witness is at `frame` may have been made while this one runs: it is further down on the
    /// stack, and this one's witness still has its number. After a longjmp the number may still be there by chance;
    /// while the call runs it always is.
    fn may_hold(&self, frame: usize) -> bool {
        let mut found = 0_u64;
        if frame >= self.frame {
            return false;
        }
        // The stack of the call may have been unmapped, so the kernel reads it. SAFETY: the destination is the local
        // `found`, which is as long as the copy.
        let read = unsafe { memory::copy((&raw mut found).expose_provenance(), self.frame, size_of::<u64>()) };
        read == size_of::<u64>() && found == self.number
    }
}

/// Records that the handler below one level is running, until it is dropped.
pub(super) struct Delegation {
    record: &'static Record,
    key: u64,
    /// The call that this one was made in, which the record described before.
    outer: Option<Call>,
}

impl Delegation {
    /// Begins a call of the handler below `level`. `None` if this is the same signal again: the handler below, which is
    /// still running, called us with it or raised it. The caller keeps the witness in place until the handler has
    /// returned.
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

/// A signal from which a handler below returned without changing anything. If the next signal of the same thread has
/// the same registers, it is the same fault, or the same signal that the handler raised again.
pub(super) struct Unmended {
    /// The key of thread and signal; 0 if the record is free.
    key: AtomicU64,
    state: AtomicU64,
    /// The next level to pass the signal on from, plus 1; 0 if there is none.
    next: AtomicUsize,
}

static UNMENDED: [Unmended; RECORDS] =
    [const { Unmended { key: AtomicU64::new(0), state: AtomicU64::new(0), next: AtomicUsize::new(0) } }; RECORDS];

impl Unmended {
    /// The level whose predecessor is to get this thread's signal: `first`, or the recorded next level if it is the
    /// same signal again. `None` if there is no next level. Removes the record.
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
