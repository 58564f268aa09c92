//! The Python binding: it converts arguments and results, raises exceptions, and keeps buffers exported during a call.
//! Everything else is in the core.

mod array;
mod backing;
mod buffer;
mod checksum;
mod closable;
mod collect;
mod copy;
mod cpu;
mod crc32c;
mod data;
mod descriptor;
mod detach;
mod drive;
mod durable;
mod errors;
mod exception;
mod fastcall;
mod fault;
mod fault_map;
mod guard;
mod import;
mod in_use;
mod io;
mod iter;
mod iter_arg;
mod iterate;
mod kept;
mod log;
mod mcsafe;
mod message;
mod names;
mod pmem;
mod ranges;
mod region_file;
mod results;
mod returned;
mod run;
mod safe_map;
mod slot;
mod structures;
mod values;
mod view;

use pyo3::prelude::*;

/// The compiled core of `iovec_rs`.
#[pymodule]
mod _core {
    #[pymodule_export]
    use super::array::IovecArray;
    #[pymodule_export]
    use super::cpu::{
        LeastCopy, LeastSlot, LeastSum, cpu_features, flush_instruction, flush_instructions, isa, isas, least_copy,
        least_slot, least_sum, machine_limits, tuning, use_flush_instruction, use_isa, use_tuning,
    };
    use super::exception::exception;
    #[pymodule_export]
    use super::fault::{
        fault_handler_install, fault_handler_mode, fault_handler_set_mode, fault_handler_status,
        fault_handler_uninstall,
    };
    #[pymodule_export]
    use super::fault_map::{FaultMap, fault_map_moved};
    #[pymodule_export]
    use super::guard::{Guard, guard};
    #[pymodule_export]
    use super::import::{import_iovec, import_single_range, import_ubuf, iovec_from_user};
    #[pymodule_export]
    use super::io::{
        keeps_messages, preadv, preadv_all, process_vm_readv, process_vm_writev, pwritev, pwritev_all, readv,
        readv_all, readv_part, vmsplice, writev, writev_all, writev_part,
    };
    #[pymodule_export]
    use super::iter::{IovIter, IterState};
    #[pymodule_export]
    use super::log::{LogRecords, MappedLog};
    #[pymodule_export]
    use super::message::{close_received, recvmsg_all, recvmsg_part, recvmsg_raw, sendmsg_all_raw, sendmsg_raw};
    #[pymodule_export]
    use super::pmem::MappedRegion;
    #[pymodule_export]
    use super::ranges::{RangeResults, copy_ranges};
    #[pymodule_export]
    use super::region_file::RegionFile;
    #[pymodule_export]
    use super::safe_map::MappedFile;
    #[pymodule_export]
    use super::slot::Slot;
    #[pymodule_export]
    use super::structures::{FolioQueue, PipeRing, XArray};
    use pyo3::exceptions::PyImportError;
    use pyo3::prelude::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Whether the core is loaded, or being loaded. It is loaded once in a process: its results are made of the classes
    /// of the interpreter that loaded it, so that a second `iovec_rs` would not know its own exceptions.
    static IS_LOADED: AtomicBool = AtomicBool::new(false);

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        if IS_LOADED.swap(true, Ordering::Relaxed) {
            let message = "iovec_rs is loaded already, by another interpreter of this process, or by this one, from \
                           whose sys.modules it was removed: it can be loaded once in a process";
            return Err(exception::<PyImportError>(message));
        }
        let filled = fill(module);
        IS_LOADED.store(filled.is_ok(), Ordering::Relaxed);
        filled
    }

    fn fill(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // SAFETY: sysconf has no preconditions.
        let page_size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        if usize::try_from(page_size) != Ok(crate::abi::PAGE_SIZE) {
            let message = format!("iovec_rs works with 4096-byte pages; this kernel's have {page_size} bytes");
            return Err(exception::<PyImportError>(message));
        }
        if let Some((name, false)) = crate::arch::requested() {
            let known: Vec<_> = crate::arch::available().map(|set| set.name).collect();
            let message = format!("{} is {name:?}: this CPU has {}", crate::arch::ISA_VARIABLE, known.join(", "));
            return Err(exception::<PyImportError>(message));
        }
        if let Some(why) = crate::arch::tuning::refusal() {
            return Err(exception::<PyImportError>(why));
        }
        crate::fault::prepare();
        crate::sys::lock::watch();
        crate::pmem::watch_forks();
        crate::copy::prepare();
        super::names::init(module.py())?;
        super::detach::init();
        super::backing::init(module.py())?;
        super::fault_map::init(module.py());
        super::view::init(module.py());
        super::kept::init(module.py());
        for add in [super::copy::add, super::checksum::add, super::crc32c::add, super::durable::add, super::mcsafe::add]
        {
            add(module)?;
        }
        // PyO3 makes the objects that it refuses arguments with at its first refusal. This refusal makes them now; see
        // `names.rs` for why.
        drop(module.getattr("copy_to_iter")?.call1((module.py().None(), module.py().None())));
        module.add("IterKind", super::names::names(module.py()).iter_kind())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("PAGE_SIZE", crate::abi::PAGE_SIZE)?;
        module.add("CACHE_LINE_SIZE", crate::arch::cache_line_size())?;
        module.add("MAX_RW_COUNT", crate::abi::MAX_RW_COUNT)?;
        module.add("UIO_MAXIOV", crate::abi::UIO_MAXIOV)?;
        module.add("UIO_FASTIOV", crate::abi::UIO_FASTIOV)
    }
}
