//! How one chunk is moved: by the CPU where the memory is held, by the kernel where an address may be anything.

use crate::arch::{self, Primitives};
use crate::fault::Fault;
use crate::iter::IovIter;
use crate::segment::Trust;
use crate::sys::memory;

/// Moves chunks and remembers what stopped it.
pub(super) enum Mover {
    /// Every range is held.
    Direct(&'static Primitives),
    /// Some range is not. What stopped it: the addresses of the first byte that could not be copied.
    Careful(Option<(usize, usize)>),
}

/// What wild memory is zeroed from.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

impl Mover {
    /// One that can be trusted with all of these.
    pub(super) fn new(flats: &[Trust], iters: &[&IovIter]) -> Self {
        if flats.contains(&Trust::Wild) || iters.iter().any(|i| i.is_wild()) {
            Self::Careful(None)
        } else {
            Self::Direct(arch::primitives())
        }
    }

    /// Copies; returns the bytes **not** copied. Ranges overlap only if `dst` is below `src`.
    #[inline]
    pub(super) fn copy(&mut self, dst: usize, src: usize, len: usize) -> usize {
        match self {
            // SAFETY: a direct mover is only made when every range it will see was promised to be held: readable where it
            // is a source, writable where it is a destination, for at least this call.
            Self::Direct(set) => unsafe {
                (set.copy)(std::ptr::with_exposed_provenance_mut(dst), std::ptr::with_exposed_provenance(src), len)
            },
            Self::Careful(stop) => {
                let done = memory::copy(dst, src, len);
                if done < len {
                    stop.get_or_insert((dst.wrapping_add(done), src.wrapping_add(done)));
                }
                len - done
            }
        }
    }

    /// Zeroes; returns the bytes **not** zeroed.
    pub(super) fn zero(&mut self, dst: usize, len: usize) -> usize {
        if let Self::Direct(set) = self {
            // SAFETY: as in `copy`.
            return unsafe { (set.zero)(std::ptr::with_exposed_provenance_mut(dst), len) };
        }
        let zeroes = ZEROES.as_ptr().expose_provenance();
        let mut done = 0;
        while done < len {
            let part = ZEROES.len().min(len - done);
            let left = self.copy(dst + done, zeroes, part);
            done += part - left;
            if left != 0 {
                break;
            }
        }
        len - done
    }

    /// Why it stopped, in a copy that came to `copied` bytes.
    pub(super) fn into_fault(self, copied: usize) -> Option<Box<Fault>> {
        match self {
            Self::Careful(Some((dst, src))) => Some(Box::new(Fault { offset: copied, ..Fault::diagnose(dst, src) })),
            _ => None,
        }
    }
}
