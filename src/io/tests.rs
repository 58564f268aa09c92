//! Single calls on the kinds that have no memory of a caller's, against a kernel pipe. Python tests cover the other
//! kinds.

use super::over::SINK;
use super::{Failure, read, vmsplice, whole, write};
use crate::abi::{Direction, PAGE_SIZE};
use crate::iter::IovIter;
use crate::memory::{Backing, Memory};
use crate::structure::PipeRing;
use crate::sys::file_mapping::{FileMapping, Stores};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
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

/// A mapped file without a name.
fn mapped(npages: usize) -> (std::fs::File, FileMapping) {
    let path = std::env::temp_dir().join(format!("iovec_rs-io-{}", std::process::id()));
    let file = std::fs::File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len((npages * PAGE_SIZE) as u64).unwrap();
    let mapping = FileMapping::new(file.as_fd(), Stores::Refused, 0, None).unwrap();
    (file, mapping)
}

#[test]
fn memory_that_goes_bad_between_two_tries_is_a_fault() {
    let (file, mapping) = mapped(4);
    let (_from, to) = std::io::pipe().unwrap();
    let fd = to.as_raw_fd();
    // SAFETY: the mapping lives to the end of the test, and only the kernel reads it.
    let memory = unsafe { Memory::new(mapping.seg(), Backing::Mapping) };
    let mut i = IovIter::ubuf(Direction::Source, memory, None).unwrap();
    let mut calls = 0;
    let cut = |npages: usize| file.set_len((npages * PAGE_SIZE) as u64).unwrap();
    let written = whole(&mut i, fd, usize::MAX, |i, limit| {
        calls += 1;
        cut(0);
        let result = write(i, fd, None, 0, limit);
        if calls == 1 {
            // The two pages are good when `whole` looks for them, and gone again at its second call.
            cut(2);
        }
        result
    });
    assert!(matches!(written, Err(Failure::Fault(_))), "{written:?}");
    assert_eq!((i.count(), calls), (4 * PAGE_SIZE, 2));
}
