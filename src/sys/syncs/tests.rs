//! Syncs that fail and overlap, without a file.

use super::{Caller, Ordering, Syncs, tell};
use std::sync::Barrier;

const BAD: Result<(), i32> = Err(libc::ENOSPC);

#[test]
fn a_failure_is_everybodys_whose_stores_were_there() {
    let syncs = Syncs::new().unwrap();
    let before = syncs.failures();
    assert_eq!(syncs.together(|| BAD).since(before), BAD);
    assert_eq!(syncs.together(|| Ok(())).since(before), BAD);
    assert_eq!(syncs.together(|| Ok(())).since(syncs.failures()), Ok(()));
}

#[test]
fn a_sync_waits_for_those_that_may_have_been_told_in_its_place() {
    let syncs = Syncs::new().unwrap();
    let (before, began, returned) = (syncs.failures(), Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            syncs.together(|| {
                began.wait();
                returned.wait();
                std::thread::sleep(std::time::Duration::from_millis(50));
                BAD
            })
        });
        began.wait();
        let synced = syncs.together(|| {
            returned.wait();
            Ok(())
        });
        assert_eq!(synced.since(before), BAD);
    });
}

#[test]
fn what_stores_alone_is_told_of_its_own_failures_only() {
    let syncs = Syncs::new().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..1000).for_each(|_| assert_eq!(syncs.together(|| BAD).since(0), BAD)));
        }
        scope.spawn(|| {
            for turn in 0..1000 {
                let (before, own) = syncs.alone(|| syncs.failures(), |_| Ok(()));
                assert_eq!((turn, own), (turn, Ok(())));
                assert!(before <= syncs.failures());
            }
        });
    });
    assert_eq!(syncs.failures(), 3000);
    let counts = syncs.shared.get();
    assert_eq!(counts.next.load(Ordering::SeqCst), counts.oldest.load(Ordering::SeqCst));
}

#[test]
fn a_sync_that_panics_has_failed_and_lets_others_go_on() {
    let syncs = Syncs::new().unwrap();
    std::thread::scope(|scope| {
        assert!(scope.spawn(|| syncs.alone(|| panic!("while storing"), |(): &()| Ok(()))).join().is_err());
    });
    assert_eq!(syncs.together(|| Ok(())).since(1), Ok(()));
}

#[test]
fn each_function_of_each_thread_is_told_once() {
    let syncs = Syncs::new().unwrap();
    let persist = |caller| tell(u64::MAX, caller, syncs.together(|| Ok(())));
    assert_eq!(persist(Caller::Persist), Ok(()));
    assert_eq!(syncs.together(|| BAD).since(0), BAD);
    for _ in 0..2 {
        for caller in [Caller::Persist, Caller::DeepFlush, Caller::PmemPersist, Caller::Lines] {
            assert_eq!((persist(caller), persist(caller)), (BAD, Ok(())));
        }
        std::thread::scope(|scope| drop(scope.spawn(|| assert_eq!(persist(Caller::Persist), BAD))));
        assert_eq!(syncs.together(|| BAD).since(0), BAD);
    }
}

#[test]
fn a_child_knows_what_its_parent_was_told_since() {
    let parent = Syncs::new().unwrap();
    assert_eq!(parent.inherit().unwrap().failures(), 0);
    parent.together(|| BAD).since(1).unwrap_err();
    assert_eq!(parent.inherit().unwrap().failures(), 1);
    parent.together(|| {
        assert_eq!(parent.inherit().unwrap().failures(), 2);
        Ok(())
    });
    let (began, done) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            parent.together(|| {
                began.wait();
                done.wait();
                Ok(())
            })
        });
        began.wait();
        let child = scope.spawn(|| parent.inherit().unwrap().failures());
        done.wait();
        assert_eq!((child.join().unwrap(), running.join().unwrap().since(1)), (1, Ok(())));
    });
    // As if the parent went on: the child's own count stays.
    parent.shared.get().failed.fetch_add(1, Ordering::SeqCst);
    let child = parent.inherit().unwrap();
    assert_eq!((child.failures(), child.inherit().unwrap().failures()), (2, 2));
}
