//! One call over the kinds that need nobody's memory, against a pipe of the kernel's. The other kinds are tested from
//! Python.

use super::over::SINK;
use super::{Failure, read, vmsplice, write};
use crate::abi::{Direction, PAGE_SIZE};
use crate::iter::IovIter;
use crate::structure::PipeRing;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::sync::Arc;

#[test]
fn discard_reads_and_drops() {
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(&[7; 1000]).unwrap();
    let mut i = IovIter::discard(Direction::Dest, 5 * size_of_val(&SINK)).unwrap();
    assert_eq!(read(&mut i, from.as_raw_fd(), None, 0, 300).unwrap(), 300);
    assert_eq!(read(&mut i, from.as_raw_fd(), None, 0, usize::MAX).unwrap(), 700);
    assert_eq!(i.count(), 5 * size_of_val(&SINK) - 1000);
}

#[test]
fn a_ring_is_filled_and_says_when_it_is_full() {
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(&[7; 3 * PAGE_SIZE]).unwrap();
    let ring = Arc::new(PipeRing::new(2, None).unwrap());
    let mut i = IovIter::pipe(Direction::Dest, Arc::clone(&ring), 4 * PAGE_SIZE).unwrap();
    assert_eq!(read(&mut i, from.as_raw_fd(), None, 0, usize::MAX).unwrap(), 2 * PAGE_SIZE);
    assert_eq!(i.count(), 2 * PAGE_SIZE);
    let full = read(&mut i, from.as_raw_fd(), None, 0, usize::MAX);
    assert!(matches!(full, Err(Failure::Refused(_))), "{full:?}");
    assert_eq!((i.count(), ring.lock().used()), (2 * PAGE_SIZE, 2));
}

#[test]
fn the_wrong_direction_and_the_wrong_end_are_refused() {
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(&[7; 10]).unwrap();
    let mut i = IovIter::discard(Direction::Dest, 10).unwrap();
    assert!(matches!(write(&mut i, to.as_raw_fd(), None, 0, usize::MAX), Err(Failure::Refused(_))));
    let wrong_end = vmsplice(&mut i, to.as_raw_fd(), 0);
    assert!(matches!(wrong_end, Err(Failure::Errno(libc::EBADF))), "{wrong_end:?}");
    assert_eq!(i.count(), 10);
    assert_eq!(vmsplice(&mut i, from.as_raw_fd(), 0).unwrap(), 10);
    assert_eq!(i.count(), 0);
}
