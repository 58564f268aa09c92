//! A guard for tests that change process-wide choices: one test at a time, and only until it ends.

use super::tuning::{self, Tuning};
use super::{choose, primitives};
use std::sync::{Mutex, MutexGuard, PoisonError};

static CHANGING: Mutex<()> = Mutex::new(());

/// While it lives, no other test changes the instruction set or the tuning. Dropping it restores both, also when the
/// test panics.
pub struct Setting {
    set: &'static str,
    tuning: Tuning,
    _alone: MutexGuard<'static, ()>,
}

impl Setting {
    /// Waits until no other test holds a `Setting`, then records the current choices.
    pub fn keep() -> Self {
        let alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        Self { set: primitives().name, tuning: tuning::current(), _alone: alone }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        choose(self.set);
        tuning::set(self.tuning);
    }
}

/// Sets the thresholds so low that every chunk may be copied with non-temporal stores, and long ones prefetch far
/// ahead.
pub fn stream_everything() {
    let everything = Tuning {
        nontemporal_from: 1,
        lines_from: 1,
        ragged_from: 1,
        string_chunks_from: 0,
        far_from: 0,
        ..tuning::current()
    };
    tuning::set(everything);
}

#[test]
fn what_a_test_changed_is_put_back_even_if_it_panics() {
    let before = {
        let setting = Setting::keep();
        (setting.set, setting.tuning)
    };
    let panicked = std::thread::spawn(|| {
        let _setting = Setting::keep();
        for set in super::available() {
            choose(set.name);
        }
        stream_everything();
        panic!("as a failing test does");
    })
    .join();
    assert!(panicked.is_err());
    let setting = Setting::keep();
    assert_eq!((setting.set, setting.tuning), before);
}
