//! The `sched` family: how long the models' threads wait for a CPU, and how long they run.
//!
//! A thread waits from the moment it becomes runnable (it is woken, or preempted) to the moment it is switched to.
//!
//! On-CPU time is the kernel's own accounting, which excludes time stolen by a hypervisor, and interrupts where the
//! kernel can measure them (`update_rq_clock_task` in kernel/sched/core.c). It is updated before a switch is traced,
//! and read when a thread leaves the CPU: so nothing is lost if the kernel does not trace the switch to it (observed on
//! 6.18, from idle).
//!
//! All tasks of the host pass these tracepoints; those that belong to no model cost two array look-ups per switch.
#![no_std]
#![no_main]

mod maps;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use citadel_agent_common::threads::SchedThread;
use citadel_agent_ebpf::count::{add, observe};
use citadel_agent_ebpf::task::Task;

use maps::{MODELS, ON_CPU, RUN_QUEUE, THREADS};

/// Offset of `pid` (the TID) in `struct task_struct`. Userspace sets this and the next three from the running kernel's
/// BTF.
#[unsafe(no_mangle)]
static TASK_PID: u32 = 0;
/// Offset of `tgid`, the PID.
#[unsafe(no_mangle)]
static TASK_TGID: u32 = 0;
/// Offset of `__state` (`state` before 5.14).
#[unsafe(no_mangle)]
static TASK_STATE: u32 = 0;
/// Offset of `se.sum_exec_runtime`, the on-CPU time in nanoseconds.
#[unsafe(no_mangle)]
static TASK_ON_CPU: u32 = 0;

/// `TASK_RUNNING` from `<linux/sched.h>`.
const RUNNING: u32 = 0;
/// `TASK_DEAD`: the task will never run again.
const DEAD: u32 = 0x80;

/// `sched_wakeup(p)`: in `ttwu_do_wakeup`, once the task is runnable.
#[btf_tracepoint(function = "sched_wakeup")]
pub fn sched_wakeup(ctx: BtfTracePointContext) -> i32 {
    wake(Task(ctx.arg(0)));
    0
}

/// `sched_wakeup_new(p)`: the first wake-up of a new task.
#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    wake(Task(ctx.arg(0)));
    0
}

/// `sched_switch(preempt, prev, next)`: in `__schedule`, on the CPU that switches.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let preempted: u64 = ctx.arg(0);
    let (prev, next) = (Task(ctx.arg(1)), Task(ctx.arg(2)));
    let (from, to) = (thread(prev), thread(next));
    if let Some(thread) = from {
        leaves(thread, prev, preempted as u8 != 0);
    }
    if let Some(thread) = to {
        enters(thread);
    }
    0
}

/// `sched_process_fork(parent, child)`: see [`Models::fork`](citadel_agent_ebpf::task::Models::fork).
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let (parent, child) = (Task(ctx.arg(0)), Task(ctx.arg(1)));
    // SAFETY: arguments of the tracepoint; the offsets are those of these fields.
    unsafe { MODELS.fork(parent, child, &TASK_PID, &TASK_TGID) };
    0
}

/// `sched_process_free(task)`: see [`Models::free`](citadel_agent_ebpf::task::Models::free).
#[btf_tracepoint(function = "sched_process_free")]
pub fn sched_process_free(ctx: BtfTracePointContext) -> i32 {
    // SAFETY: an argument of the tracepoint; the offsets are those of these fields.
    unsafe { MODELS.free(Task(ctx.arg(0)), &TASK_PID, &TASK_TGID) };
    0
}

/// `sched_process_exec(task, old_pid, bprm)`: a thread that calls execve takes the ID of its process's first thread
/// (`de_thread` in fs/exec.c), so its old ID never exits. Its entry is moved to the new ID.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let old: u32 = ctx.arg(1);
    // SAFETY: an argument of the tracepoint; the offset is that of this field.
    let new = unsafe { Task(ctx.arg(0)).field(&TASK_PID) };
    if old != new
        && let Some(known) = THREADS.find(old)
    {
        let mut known = *known;
        known.tid = new;
        THREADS.remove(old);
        if let Some(there) = THREADS.find(new) {
            known.owner = there.owner;
            *there = known;
        } else {
            _ = THREADS.keep(known, known.owner.slot());
        }
    }
    0
}

#[inline(always)]
fn wake(task: Task) {
    let Some(thread) = thread(task) else { return };
    // A preempted thread is waiting already. For one that is woken while it is still running, this time is overwritten
    // when it is switched from.
    if thread.runnable_ns == 0 {
        thread.runnable_ns = now();
    }
}

/// A thread of a model leaves the CPU.
#[inline(always)]
fn leaves(thread: &mut SchedThread, task: Task, preempted: bool) {
    // SAFETY: an argument of the tracepoint; the offset is that of this field.
    let state: u32 = unsafe { task.field(&TASK_STATE) };
    let on_cpu_ns = on_cpu_ns(task);
    // A smaller value belongs to a new thread with the ID of one whose exit was not seen.
    if on_cpu_ns > thread.on_cpu_ns
        && let Some(on_cpu) = ON_CPU.get_ptr_mut(thread.owner.slot())
    {
        // SAFETY: a map value; other CPUs only add atomically.
        add(unsafe { &mut *on_cpu }, on_cpu_ns - thread.on_cpu_ns);
    }
    thread.on_cpu_ns = on_cpu_ns;
    // A preempted task stays on the run queue, whatever it was about to wait for.
    thread.runnable_ns = if preempted || state == RUNNING { now() } else { 0 };
    if !preempted && state & DEAD != 0 {
        THREADS.remove(thread.tid);
    }
}

/// A thread of a model gets the CPU.
#[inline(always)]
fn enters(thread: &mut SchedThread) {
    if thread.runnable_ns != 0
        && let Some(histogram) = RUN_QUEUE.get_ptr_mut(thread.owner.slot())
    {
        // SAFETY: a map value; other CPUs only add atomically.
        observe(unsafe { &mut *histogram }, now().wrapping_sub(thread.runnable_ns));
    }
    thread.runnable_ns = 0;
}

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// The on-CPU time of a task since it was created, in nanoseconds, as of the kernel's last update.
#[inline(always)]
fn on_cpu_ns(task: Task) -> u64 {
    // SAFETY: an argument of the tracepoint; the offset is that of this field.
    unsafe { task.field(&TASK_ON_CPU) }
}

/// The entry of a thread, if it belongs to a model; created if it is new. A thread is woken and switched under its run
/// queue's lock, so only one program at a time uses it.
#[inline(always)]
fn thread(task: Task) -> Option<&'static mut SchedThread> {
    // SAFETY: an argument of the tracepoint; the offset is that of this field.
    let process = unsafe { task.field(&TASK_TGID) };
    let mark = MODELS.mark(process)?;
    // SAFETY: as above.
    let tid = unsafe { task.field(&TASK_PID) };
    if let Some(thread) = THREADS.find(tid) {
        if thread.mark != mark {
            let Some(slot) = MODELS.slot(process) else {
                THREADS.remove(tid);
                return None;
            };
            if thread.owner.slot() != slot {
                if !THREADS.change_owner(thread, slot) {
                    return None;
                }
                let owner = thread.owner;
                *thread = SchedThread::new(mark, tid, on_cpu_ns(task));
                thread.owner = owner;
            }
            thread.mark = mark;
        }
        return Some(thread);
    }
    THREADS.keep(SchedThread::new(mark, tid, on_cpu_ns(task)), MODELS.slot(process)?)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}
