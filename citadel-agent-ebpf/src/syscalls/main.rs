//! The `syscalls` family: duration and errors of the models' system calls.
//!
//! A call is observed either at its own function (`functions.rs`: fentry and fexit) or where all system calls of the
//! host start and end (`tracepoints.rs`); userspace loads one or the other. Both call [`enter`] and [`leave`]. The
//! observed result is that of the kernel's function: a call interrupted by a signal returns -ERESTARTSYS or similar,
//! before the kernel converts it to EINTR or restarts the call, and a restarted call counts as a new one.
//!
//! Processes that belong to no model cost an array look-up at the start of a measured call, and one at its end.
#![no_std]
#![no_main]

mod functions;
mod maps;
mod tracepoints;

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use citadel_agent_common::calls::{CallIndex, CallIndices, Failure, MAX_ERRNO, NUMBERS, UNMEASURED};
use citadel_agent_common::shares::Owner;
use citadel_agent_common::threads::SyscallThread;
use citadel_agent_ebpf::count::{add, bounded, observe};
use citadel_agent_ebpf::task::Task;

use maps::{CALL_ERRORS, CALL_TIMES, KINDS_OF_FAILURES, MODELS, THREADS};

/// Offset of `pid` (the TID) in `struct task_struct`. Userspace sets this and the next one from the running kernel's
/// BTF.
#[unsafe(no_mangle)]
static TASK_PID: u32 = 0;
/// Offset of `tgid`, the PID.
#[unsafe(no_mangle)]
static TASK_TGID: u32 = 0;
/// The measured calls. Userspace sets this and the next one.
#[unsafe(no_mangle)]
static CALL_INDICES: CallIndices = [UNMEASURED; NUMBERS];
/// Entries of `CALL_TIMES` per slot.
#[unsafe(no_mangle)]
static STRIDE: u32 = 1;

/// `sched_process_fork(parent, child)`: see [`Models::fork`](citadel_agent_ebpf::task::Models::fork).
#[btf_tracepoint(function = "sched_process_fork")]
pub fn syscalls_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child) = (Task(ctx.arg(0)), Task(ctx.arg(1)));
    // SAFETY: arguments of the tracepoint; the offsets are those of these fields.
    unsafe { MODELS.fork(parent, child, &TASK_PID, &TASK_TGID) };
    0
}

/// `sched_process_free(task)`: see [`Models::free`](citadel_agent_ebpf::task::Models::free).
#[btf_tracepoint(function = "sched_process_free")]
pub fn syscalls_free(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: an argument of the tracepoint; the offsets are those of these fields.
    unsafe { MODELS.free(Task(ctx.arg(0)), &TASK_PID, &TASK_TGID) };
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: a thread that calls execve takes the ID of its process's first thread,
/// which has exited; its old ID never exits.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn syscalls_exec(ctx: BtfTracePointContext) -> i32 {
    let old: u32 = ctx.arg(1);
    if old != current().1 {
        THREADS.remove(old);
    }
    0
}

/// `sched_process_exit(task, ...)`: for the current thread, whether it is in a call or not.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn syscalls_exit(_ctx: BtfTracePointContext) -> i32 {
    THREADS.remove(current().1);
    0
}

/// The index of the call with this number.
#[inline(always)]
fn index(number: u64) -> CallIndex {
    if number >= NUMBERS as u64 {
        return UNMEASURED;
    }
    let number = bounded(number, NUMBERS as u64 - 1) as usize;
    // SAFETY: read-only data, within bounds. Volatile: set by userspace.
    unsafe { (&raw const CALL_INDICES).cast::<CallIndex>().add(number).read_volatile() }
}

/// PID and TID of the current thread.
#[inline(always)]
fn current() -> (u32, u32) {
    // SAFETY: no arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    ((both >> 32) as u32, both as u32)
}

/// The current thread, if it can belong to a model.
#[derive(Clone, Copy)]
struct Running {
    process: u32,
    tid: u32,
    /// [`Models::mark`](citadel_agent_ebpf::task::Models::mark) of its process.
    mark: u32,
}

impl Running {
    #[inline(always)]
    fn get() -> Option<Self> {
        let (process, tid) = current();
        Some(Self { process, tid, mark: MODELS.mark(process)? })
    }
}

/// The current thread starts a call.
#[inline(always)]
fn enter(Running { process, tid, mark }: Running, call: CallIndex) {
    if let Some(thread) = THREADS.find(tid) {
        if thread.mark != mark {
            let Some(slot) = MODELS.slot(process) else { return THREADS.remove(tid) };
            if thread.owner.slot() != slot && !THREADS.change_owner(thread, slot) {
                return;
            }
            thread.mark = mark;
        }
        thread.call = u32::from(call);
        // SAFETY: no arguments.
        thread.since_ns = unsafe { bpf_ktime_get_ns() };
        return;
    }
    let Some(slot) = MODELS.slot(process) else { return };
    // SAFETY: no arguments.
    let since_ns = unsafe { bpf_ktime_get_ns() };
    _ = THREADS.keep(SyscallThread { since_ns, owner: Owner(0), mark, call: u32::from(call), tid }, slot);
}

/// The current thread, of whatever process, finishes a call. A call that started before the programs were attached, or
/// before its process was attributed to a model, has no start and does not count.
#[inline(always)]
fn leave(call: CallIndex, result: i64) {
    let Some(Running { tid, .. }) = Running::get() else { return };
    let Some(thread) = THREADS.find(tid) else { return };
    let SyscallThread { since_ns, owner, call: begun, .. } = *thread;
    let slot = owner.slot();
    if since_ns == 0 || begun != u32::from(call) {
        return;
    }
    thread.since_ns = 0;
    // SAFETY: no arguments; and read-only data, volatile because userspace sets it.
    let (now, stride) = unsafe { (bpf_ktime_get_ns(), (&raw const STRIDE).read_volatile()) };
    if let Some(times) = CALL_TIMES.get_ptr_mut(slot.wrapping_mul(stride).wrapping_add(begun - 1)) {
        // SAFETY: a map value; other CPUs only add atomically.
        observe(unsafe { &mut *times }, now.wrapping_sub(since_ns));
    }
    let errno = result.wrapping_neg() as u64;
    if errno.wrapping_sub(1) < MAX_ERRNO {
        failed(Failure { slot, call, errno: errno as u16 });
    }
}

/// Counts an error.
#[inline(always)]
fn failed(failure: Failure) {
    let key = failure.key();
    let cell = CALL_ERRORS.get_ptr_mut(key).or_else(|| {
        let owner = KINDS_OF_FAILURES.take(failure.slot)?;
        if CALL_ERRORS.insert(key, 0, u64::from(BPF_NOEXIST)).is_err() {
            // Another CPU did the same: its entry is used.
            KINDS_OF_FAILURES.give(owner);
        }
        CALL_ERRORS.get_ptr_mut(key)
    });
    if let Some(cell) = cell {
        // SAFETY: a map value; other CPUs only add atomically.
        add(unsafe { &mut *cell }, 1);
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
