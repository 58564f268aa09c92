//! The rivals: libpmem, loaded when the bench runs, and the C library.

use _core::arch::{self, guard};
use std::ffi::{CStr, c_void};

type Copy = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> *mut c_void;

/// The functions of libpmem that take part.
pub(crate) struct Libpmem {
    persist: Copy,
    nodrain: Copy,
    drain: unsafe extern "C" fn(),
}

impl Libpmem {
    /// `None` where it is not installed.
    pub(crate) fn load() -> Option<Self> {
        // SAFETY: the name is a terminated string; the library's constructors have no preconditions.
        let library = unsafe { libc::dlopen(c"libpmem.so.1".as_ptr(), libc::RTLD_NOW) };
        let symbol = |name: &CStr| {
            // SAFETY: `library` is a handle or null, which dlsym takes for the program itself.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!library.is_null() && !found.is_null()).then_some(found)
        };
        let (persist, nodrain) = (symbol(c"pmem_memcpy_persist")?, symbol(c"pmem_memcpy_nodrain")?);
        let drain = symbol(c"pmem_drain")?;
        Some(Self {
            // SAFETY: `pmem_memcpy_persist` has this type in libpmem.h.
            persist: unsafe { std::mem::transmute::<*mut c_void, Copy>(persist) },
            // SAFETY: `pmem_memcpy_nodrain` has this type in libpmem.h.
            nodrain: unsafe { std::mem::transmute::<*mut c_void, Copy>(nodrain) },
            // SAFETY: `pmem_drain` has this type in libpmem.h.
            drain: unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(drain) },
        })
    }

    /// `pmem_memcpy_persist`.
    pub(crate) fn persist(&self, dst: usize, src: usize, len: usize) {
        // SAFETY: the cases pass ranges of their arenas that do not overlap.
        unsafe {
            (self.persist)(std::ptr::with_exposed_provenance_mut(dst), std::ptr::with_exposed_provenance(src), len)
        };
    }

    /// `pmem_memcpy_nodrain`.
    pub(crate) fn nodrain(&self, dst: usize, src: usize, len: usize) {
        // SAFETY: ranges of the cases' arenas, which do not overlap.
        unsafe {
            (self.nodrain)(std::ptr::with_exposed_provenance_mut(dst), std::ptr::with_exposed_provenance(src), len)
        };
    }

    /// `pmem_drain`.
    pub(crate) fn drain(&self) {
        // SAFETY: no preconditions.
        unsafe { (self.drain)() };
    }
}

/// The C library's.
pub(crate) fn memcpy(dst: usize, src: usize, len: usize) {
    // SAFETY: the cases pass ranges of their arenas that do not overlap.
    unsafe { libc::memcpy(std::ptr::with_exposed_provenance_mut(dst), std::ptr::with_exposed_provenance(src), len) };
}

/// The least that makes so many bytes durable, with no question asked: stores past the caches, as wide as the
/// destination allows, and a fence. `dst`, `src` and `len` are multiples of 4, and `len` is not 0.
#[cfg(target_arch = "x86_64")]
pub(crate) fn store_past_caches(dst: usize, src: usize, len: usize) {
    use core::arch::x86_64::{_mm_loadu_si128, _mm_stream_si32, _mm_stream_si64, _mm_stream_si128};
    fn at<T>(addr: usize) -> *mut T {
        std::ptr::with_exposed_provenance_mut(addr)
    }
    let width = [16, 8, 4].into_iter().find(|width| (dst | len).is_multiple_of(*width)).expect("multiples of 4");
    for part in (0..len).step_by(width) {
        let (to, from) = (dst + part, src + part);
        match width {
            16 => {
                // SAFETY: 16 bytes of the source's arena.
                let value = unsafe { _mm_loadu_si128(at(from)) };
                // SAFETY: 16 bytes of the destination's arena, at a multiple of 16.
                unsafe { _mm_stream_si128(at(to), value) };
            }
            8 => {
                // SAFETY: 8 bytes of the source's arena.
                let value = unsafe { at::<i64>(from).read_unaligned() };
                // SAFETY: 8 bytes of the destination's arena, at a multiple of 8.
                unsafe { _mm_stream_si64(at(to), value) };
            }
            _ => {
                // SAFETY: 4 bytes of the source's arena.
                let value = unsafe { at::<i32>(from).read_unaligned() };
                // SAFETY: 4 bytes of the destination's arena, at a multiple of 4.
                unsafe { _mm_stream_si32(at(to), value) };
            }
        }
    }
    arch::store_fence();
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn store_past_caches(dst: usize, src: usize, len: usize) {
    memcpy_write_back(dst, src, len);
}

/// The C library's, then every line written back, then a fence.
pub(crate) fn memcpy_write_back(dst: usize, src: usize, len: usize) {
    memcpy(dst, src, len);
    write_back(dst, len);
    arch::store_fence();
}

/// The same page by page, whose lines are still in the first level when they are written back.
pub(crate) fn memcpy_write_back_pages(dst: usize, src: usize, len: usize) {
    const PAGE: usize = 4096;
    for at in (0..len).step_by(PAGE) {
        let part = PAGE.min(len - at);
        memcpy(dst + at, src + at, part);
        write_back(dst + at, part);
    }
    arch::store_fence();
}

fn write_back(addr: usize, len: usize) {
    if let Some(instruction) = arch::write_back() {
        // SAFETY: memory of an arena.
        unsafe { guard::write_back(instruction, addr, len) };
    }
}
