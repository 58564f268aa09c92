//! Guards in children that were forked past the C library's handlers, while other threads met faults.
//!
//! From Python this cannot be asked: a child that was forked so may wait for ever for the interpreter's own lock.

use _core::abi::PAGE_SIZE;
use _core::fault::shelter::{Guard, Range};
use _core::memory::Segment;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const NPAGES: usize = 256;
/// Seconds after which a child counts as hanging.
const PATIENCE: u32 = 60;

/// A mapping of a file, which is cut to nothing.
struct Cut {
    file: File,
    seg: Segment,
}

impl Cut {
    fn new() -> Self {
        let len = NPAGES * PAGE_SIZE;
        // SAFETY: the name is terminated.
        let file = unsafe { libc::memfd_create(c"cut".as_ptr(), 0) };
        assert!(file >= 0);
        // SAFETY: just opened, owned by nobody else.
        let file = unsafe { File::from_raw_fd(file) };
        // SAFETY: the kernel takes addresses where nothing is mapped.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED);
        Self { file, seg: Segment::new(start.expose_provenance(), len) }
    }

    fn resize(&self, len: usize) {
        // SAFETY: the descriptor is open.
        assert_eq!(unsafe { libc::ftruncate(self.file.as_raw_fd(), len as libc::off_t) }, 0);
    }

    fn guarded(&self) -> Guard {
        let range = Range { seg: self.seg, is_writable: false, is_pinned: true };
        // SAFETY: the mapping is unmapped by nobody, and only `read` looks at it, by a raw pointer.
        unsafe { Guard::begin(Some(&[range])) }.unwrap()
    }

    fn read(&self, page: usize) -> u8 {
        let at = self.seg.skip(page * PAGE_SIZE).as_ptr();
        // SAFETY: the mapping is there as long as this value; a guard is over what its file lacks.
        unsafe { at.read_volatile() }
    }
}

/// Forks without any handlers: 0 in the child.
fn fork() -> i32 {
    let flags = libc::SIGCHLD;
    // SAFETY: the child calls nothing that another thread may have left locked.
    unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) as i32 }
}

#[test]
fn a_child_that_was_forked_behind_our_back_leaves_its_block() {
    let file = Cut::new();
    let end = Instant::now() + Duration::from_secs(3);
    let is_over = AtomicBool::new(false);
    let mut children = 0;
    std::thread::scope(|scope| {
        for first in 0..2 {
            let (file, is_over) = (&file, &is_over);
            scope.spawn(move || {
                let mut page = first;
                while !is_over.load(Ordering::Relaxed) {
                    let guard = file.guarded();
                    for _ in 0..40 {
                        page = (page * 5 + 7) % NPAGES;
                        assert_eq!(file.read(page), 0);
                    }
                    assert_eq!(guard.end().unwrap().left, 0);
                }
            });
        }
        while Instant::now() < end || children < 20 {
            let guard = file.guarded();
            assert_eq!(file.read(5), 0);
            let child = fork();
            if child == 0 {
                // SAFETY: has the child killed if it hangs.
                unsafe { libc::alarm(PATIENCE) };
                let code = i32::from(guard.end().is_none());
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(code) };
            }
            let mut status = 0;
            // SAFETY: waits for the child just made.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "after {children} children");
            assert!(guard.end().unwrap().lost >= PAGE_SIZE);
            children += 1;
        }
        is_over.store(true, Ordering::Relaxed);
    });
    file.resize(file.seg.len);
    assert!((0..NPAGES).all(|page| file.read(page) == 0));
    file.file.write_all_at(&[7], 9 * PAGE_SIZE as u64).unwrap();
    assert_eq!(file.read(9), 7, "it is the file again");
}
