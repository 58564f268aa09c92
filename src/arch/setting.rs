//! The process-wide choices that a test may change: one test at a time, and only until it ends.

use super::{choose, primitives, threshold};
use std::sync::{Mutex, MutexGuard, PoisonError};

static CHANGING: Mutex<()> = Mutex::new(());

/// While it lives, no other test changes the instruction set or the length from which copies bypass the caches. Both
/// are what they were once it is dropped, also by a panic.
pub struct Setting {
    set: &'static str,
    copies_from: usize,
    _alone: MutexGuard<'static, ()>,
}

impl Setting {
    /// Waits for the test that changes them now, and keeps what they are.
    pub fn keep() -> Self {
        let alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        Self { set: primitives().name, copies_from: threshold::copies_from(), _alone: alone }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        choose(self.set);
        threshold::use_from(self.copies_from);
    }
}

#[test]
fn what_a_test_changed_is_put_back_even_if_it_panics() {
    let before = {
        let setting = Setting::keep();
        (setting.set, setting.copies_from)
    };
    let panicked = std::thread::spawn(|| {
        let _setting = Setting::keep();
        for set in super::available() {
            choose(set.name);
        }
        threshold::use_from(1);
        panic!("as a failing test does");
    })
    .join();
    assert!(panicked.is_err());
    let setting = Setting::keep();
    assert_eq!((setting.set, setting.copies_from), before);
}
