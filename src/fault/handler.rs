//! The signal handler: resumes a guarded access at its fixup, hands everything else on to whoever was there before.
//!
//! What it decides by: the instruction pointer and the signal's code. It allocates nothing, takes no lock, calls no Python
//! and jumps nowhere but back; it preserves errno. SIGBUS and SIGSEGV are each installed, saved and checked on their own.

use super::threads::{self, Delegation};
use crate::arch::guard::{self, Trap};
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The two signals a bad access raises.
pub const SIGNALS: [i32; 2] = [libc::SIGBUS, libc::SIGSEGV];

/// The code of a signal that a thread was sent by this process, `raise` among others.
const SI_TKILL: i32 = -6;

/// What was installed before us, per signal. Replaced, never freed: a handler may be reading it.
static PREVIOUS: [AtomicPtr<libc::sigaction>; 2] = [const { AtomicPtr::new(ptr::null_mut()) }; 2];

/// Faults recovered so far in this process.
static RECOVERED: AtomicU64 = AtomicU64::new(0);

/// Faults recovered so far in this process.
pub fn recovered() -> u64 {
    RECOVERED.load(Ordering::Relaxed)
}

/// Who handles a signal now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner {
    /// This library, with the flags it needs.
    Ours,
    /// Nobody: the default action.
    Default,
    /// It is ignored.
    Ignored,
    /// Somebody else.
    Foreign,
}

fn slot(signal: i32) -> Option<&'static AtomicPtr<libc::sigaction>> {
    SIGNALS.iter().position(|known| *known == signal).map(|index| &PREVIOUS[index])
}

fn our_address() -> libc::sighandler_t {
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_signal;
    handler as *const () as libc::sighandler_t
}

fn current(signal: i32) -> libc::sigaction {
    let mut action = empty_action();
    // SAFETY: a null new action only asks; `action` is ours to fill.
    unsafe { libc::sigaction(signal, ptr::null(), &raw mut action) };
    action
}

fn empty_action() -> libc::sigaction {
    // SAFETY: sigaction is a C struct of integers and an optional function pointer; all zeroes are valid.
    unsafe { std::mem::zeroed() }
}

/// Who handles the signal now.
pub fn owner(signal: i32) -> Owner {
    let action = current(signal);
    match action.sa_sigaction {
        libc::SIG_DFL => Owner::Default,
        libc::SIG_IGN => Owner::Ignored,
        address if address == our_address() && action.sa_flags & libc::SA_SIGINFO != 0 => Owner::Ours,
        _ => Owner::Foreign,
    }
}

/// Whether both signals are ours.
pub fn is_installed() -> bool {
    SIGNALS.iter().all(|signal| owner(*signal) == Owner::Ours)
}

/// Puts our handler on top for both signals and remembers what was there. `false` if it could not be had: somebody keeps
/// others from installing handlers (a sanitizer does).
pub fn install() -> bool {
    for signal in SIGNALS {
        if owner(signal) == Owner::Ours {
            continue;
        }
        let mut action = empty_action();
        action.sa_sigaction = our_address();
        // On the thread's alternate stack if it has one: a stack overflow passes through here on its way to a handler below.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        let mut before = empty_action();
        // SAFETY: the handler is async-signal-safe, as the module says; both structs are ours.
        if unsafe { libc::sigaction(signal, &raw const action, &raw mut before) } != 0 {
            return false;
        }
        if before.sa_sigaction != our_address()
            && let Some(slot) = slot(signal)
        {
            slot.store(Box::into_raw(Box::new(before)), Ordering::Release);
        }
    }
    threads::forget_delegations();
    is_installed()
}

/// Puts back what was there, for each signal that is still ours; one that somebody else took over is left alone.
pub fn uninstall() {
    for signal in SIGNALS {
        if owner(signal) == Owner::Ours
            && let Some(before) = previous(signal)
        {
            // SAFETY: the action is one that sigaction gave us.
            unsafe { libc::sigaction(signal, &raw const before, ptr::null_mut()) };
        }
    }
}

fn previous(signal: i32) -> Option<libc::sigaction> {
    let saved = slot(signal)?.load(Ordering::Acquire);
    // SAFETY: null, or leaked by `install` and never written again.
    unsafe { saved.as_ref() }.copied()
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: errno is the thread's own.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    let saved = unsafe { *errno };
    handle(signal, info, context);
    // SAFETY: as above.
    unsafe { *errno = saved };
}

fn handle(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a filled siginfo to an SA_SIGINFO handler.
    let code = unsafe { (*info).si_code };
    // A background report of damage somewhere is no fault of the instruction it happens to interrupt.
    let is_report = signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO;
    if code > 0 && !is_report && resume(signal, code, info, context) {
        RECOVERED.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if code == SI_TKILL && threads::is_armed() {
        // Somebody above us took a copy's fault for a crash and raises it again for us: running the access again
        // brings the real one. (A signal that another process sent has another code and is handed on.)
        return;
    }
    delegate(signal, code, code > 0 && !is_report, info, context);
}

/// Resumes a guarded access at its fixup, the fault described in two registers. `false` if it is none.
#[cfg(target_arch = "x86_64")]
fn resume(signal: i32, code: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) -> bool {
    const DIRECTION_FLAG: i64 = 0x400;
    // SAFETY: the kernel passes the interrupted context to an SA_SIGINFO handler, to be changed if one likes.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let pointer = (registers[libc::REG_RIP as usize] as u64) as usize;
    let Some(entry) = guard::find(pointer) else { return false };
    // SAFETY: the kernel passes a filled siginfo.
    let info = unsafe { &*info };
    // SAFETY: SIGBUS and SIGSEGV fill the address.
    let address = unsafe { info.si_addr() };
    let lsb = if signal == libc::SIGBUS && code == libc::BUS_MCEERR_AR { extent(info) } else { 0 };
    registers[libc::REG_R8 as usize] = address.addr() as i64;
    registers[libc::REG_R9 as usize] = Trap::encode(signal, code, lsb, entry.meta).cast_signed();
    registers[libc::REG_RIP as usize] = entry.fixup as i64;
    registers[libc::REG_EFL as usize] &= !DIRECTION_FLAG;
    true
}

#[cfg(not(target_arch = "x86_64"))]
fn resume(_signal: i32, _code: i32, _info: *mut libc::siginfo_t, _context: *mut libc::c_void) -> bool {
    false
}

/// `si_addr_lsb`, which the C library's struct has and libc's does not name: the 16 bits behind the address.
fn extent(info: &libc::siginfo_t) -> u16 {
    const OFFSET: usize = 24;
    let field = ptr::from_ref(info).cast::<[u8; 2]>().wrapping_byte_add(OFFSET);
    // SAFETY: a siginfo has 128 bytes; for BUS_MCEERR_AR the kernel has filled these.
    u16::from_ne_bytes(unsafe { field.read() })
}

/// Not ours: does what would have happened without us. `synchronous`: returning runs the faulting instruction again.
fn delegate(signal: i32, code: i32, synchronous: bool, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let previous = previous(signal).unwrap_or_else(empty_action);
    match previous.sa_sigaction {
        libc::SIG_IGN if !synchronous => {}
        libc::SIG_DFL | libc::SIG_IGN => default_action(signal, synchronous),
        address => {
            // A handler below that raises the signal again, or chains back to us, would go round for ever.
            let Some(_delegation) = Delegation::begin(signal, code > 0) else {
                return default_action(signal, synchronous);
            };
            if previous.sa_flags & libc::SA_SIGINFO != 0 {
                // SAFETY: sigaction gave this address for an SA_SIGINFO handler, which has this type.
                let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
                    unsafe { std::mem::transmute(address) };
                handler(signal, info, context);
            } else {
                // SAFETY: sigaction gave this address for a plain handler, which has this type.
                let handler: extern "C" fn(i32) = unsafe { std::mem::transmute(address) };
                handler(signal);
            }
        }
    }
}

/// Dies of the signal: at the instruction itself where it will run again, so that the core shows where.
fn default_action(signal: i32, synchronous: bool) {
    let action = empty_action();
    // SAFETY: all zeroes is SIG_DFL with no flags.
    unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    if !synchronous {
        let tid = threads::current_tid();
        // SAFETY: sends a signal to this very thread.
        unsafe {
            libc::syscall(
                libc::SYS_tgkill,
                libc::c_long::from(std::process::id().cast_signed()),
                libc::c_long::from(tid),
                libc::c_long::from(signal),
            )
        };
    }
}
