//! The `syscalls` family in userspace: loads and attaches the programs in the form chosen by the plan, assigns
//! processes to models, reads the counters. Dropping [`Syscalls`] detaches them.

use std::collections::BTreeMap;
use std::ops::Add;
use std::os::fd::BorrowedFd;

use aya::Btf;
use aya::maps::{HashMap, MapData};
use citadel_agent_common::abi::Lost;
use citadel_agent_common::calls::{Call, CallIndex, CallIndices, Failure, NUMBERS, UNMEASURED, stride};
use citadel_agent_common::hist::Histogram;
use citadel_agent_common::shares::FAILURES;
use tracing::info;

use super::error::ProbeError;
use super::family::{Family, Form, Hook, Moment};
use super::handles::Handles;
use super::handover;
use super::mapped::Mapped;
use super::object;
use super::shares::{SharedMap, Shares};
use super::slots::Slots;
use super::stats::{self, RunStats};
use super::tasks::{self, Tasks};
use crate::host::kernel_types::Layout;

/// The eBPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/syscalls.o"));

/// Name of the map of histograms.
const CALL_TIMES: &str = "CALL_TIMES";

/// The map of errors, shared by the models.
const ERRORS: SharedMap = SharedMap { name: "CALL_ERRORS", held: "FAILURES_HELD", sharing: FAILURES };

/// The attached programs and their maps.
pub struct Syscalls {
    handles: Handles,
    form: Form,
    /// The measured calls, in the order of their places.
    calls: Vec<&'static Call>,
    tasks: Tasks,
    call_times: MapData,
    /// Slot -> its entries of `CALL_TIMES`, once processes are charged to it: mapped memory counts as the agent's.
    times: BTreeMap<u32, Mapped<Histogram>>,
    errors: HashMap<MapData, u64, u64>,
    error_shares: Shares,
}

impl Syscalls {
    /// Loads the programs for these calls with these slots, and attaches them.
    ///
    /// # Errors
    /// Any step fails; then nothing stays attached.
    pub(crate) fn attach(
        slots: &Slots,
        calls: &[&'static Call],
        form: Form,
        btf: &Btf,
        layout: &Layout,
    ) -> Result<Self, ProbeError> {
        object::lift_memlock_limit();
        let stride = stride(calls.len() as u32);
        let indices = indices(calls);
        let mut loader = object::loader();
        loader
            .override_global("TASK_PID", &layout.task_pid, true)
            .override_global("TASK_TGID", &layout.task_tgid, true)
            .override_global("CALL_INDICES", indices.as_slice(), true)
            .override_global("STRIDE", &stride, true)
            .map_max_entries(CALL_TIMES, slots.capacity() * stride);
        for map in [tasks::SHARED, tasks::THREADS, ERRORS] {
            map.size(&mut loader, slots);
        }
        let mut ebpf = loader.load(OBJECT)?;
        let mut handles = Handles::of(&ebpf)?;
        for map in [tasks::SHARED, tasks::THREADS, ERRORS] {
            map.fill(&handles, slots)?;
        }
        for program in Family::Syscalls.programs() {
            match (program.hook, form) {
                (Hook::Tracepoint(tracepoint), _) => {
                    object::trace(&mut ebpf, &mut handles, program.name, tracepoint, btf)?;
                }
                (Hook::SystemCall(moment), Form::RawTp) => {
                    object::trace(&mut ebpf, &mut handles, program.name, tracepoint(moment), btf)?;
                }
                (Hook::SystemCall(moment), Form::Fentry) => {
                    for call in calls {
                        let (name, function) = (at_function(moment, call), format!("__x64_sys_{}", call.name));
                        if !object::trace_function(&mut ebpf, &mut handles, &name, program.name, &function, btf)? {
                            info!(call = call.name, "this kernel does not have the system call; it is not measured");
                        }
                    }
                }
                _ => return Err(ProbeError::Missing(program.name)),
            }
        }
        Self::take_over(handles, slots, calls, form)
    }

    /// Uses what another process has attached with these slots, for these calls and in this form.
    ///
    /// # Errors
    /// A map is missing, or the kernel refuses to map it.
    pub(super) fn take_over(
        handles: Handles,
        slots: &Slots,
        calls: &[&'static Call],
        form: Form,
    ) -> Result<Self, ProbeError> {
        Ok(Self {
            form,
            calls: calls.to_vec(),
            tasks: Tasks::of(&handles, slots)?,
            call_times: object::data(&handles, CALL_TIMES)?,
            times: BTreeMap::new(),
            error_shares: ERRORS.open(&handles, slots)?,
            errors: object::hash(&handles, ERRORS.name)?,
            handles,
        })
    }

    /// What the programs depend on.
    pub(super) fn identity(calls: &[&Call], form: Form) -> u64 {
        let calls: Vec<_> = calls.iter().map(|call| call.name).collect();
        handover::identity(OBJECT, (calls, form.name()))
    }

    /// Identity of what is attached.
    pub(super) fn own_identity(&self) -> u64 {
        Self::identity(&self.calls, self.form)
    }

    /// What it has in the kernel.
    pub(super) const fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Charges processes to the slots of their models. Must be called once per discovery pass.
    ///
    /// # Errors
    /// A map cannot be read, written or mapped.
    pub fn follow(&mut self, processes: &BTreeMap<u32, u32>) -> Result<(), ProbeError> {
        for &slot in processes.values() {
            if !self.times.contains_key(&slot) {
                self.times.insert(slot, self.map_slot(slot)?);
            }
        }
        self.tasks.follow(processes)
    }

    /// Durations of the calls that a slot's model has made.
    pub fn times(&self, slot: u32) -> impl Iterator<Item = (&'static Call, Box<Histogram>)> {
        self.times.get(&slot).into_iter().flat_map(|times| {
            self.calls.iter().enumerate().filter_map(|(index, &call)| Some((call, times.entry(index)?.histogram()?)))
        })
    }

    /// Number of errors by slot, call and error number.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn errors(&self) -> Result<BTreeMap<(u32, &'static str, u16), u64>, ProbeError> {
        let mut errors = BTreeMap::new();
        for entry in self.errors.iter() {
            let (key, count) = entry.map_err(|error| ProbeError::Map { map: ERRORS.name, error })?;
            let Failure { slot, call, errno } = Failure::of_key(key);
            if let Some(call) = usize::from(call).checked_sub(1).and_then(|index| self.calls.get(index)) {
                errors.insert((slot, call.name, errno), count);
            }
        }
        Ok(errors)
    }

    /// System calls that were not timed ([`Lost::Recursion`]).
    #[must_use]
    pub fn missed(&self) -> u64 {
        let moments = [Moment::Begin, Moment::End].into_iter();
        moments.flat_map(|moment| self.at_functions(moment)).filter_map(stats::missed).sum()
    }

    /// What did not fit, by slot and reason.
    pub fn refused(&self) -> impl Iterator<Item = (u32, Lost, u64)> {
        let errors = self.error_shares.refused().into_iter().map(|(slot, count)| (slot, Lost::FailuresFull, count));
        self.tasks.refused().chain(errors)
    }

    /// Entries in use and capacity of the maps that can be full.
    #[must_use]
    pub fn fill(&self) -> [(&'static str, u64, u64); 3] {
        let [(processes, most_processes), (threads, most_threads)] = self.tasks.fill();
        let (errors, most_errors) = self.error_shares.fill();
        [
            ("syscalls_processes", processes, most_processes),
            ("syscalls_threads", threads, most_threads),
            ("syscalls_errors", errors, most_errors),
        ]
    }

    /// What the verifier followed of each program; those at functions are summed, separately for start and end.
    pub fn verified(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.each_program(stats::verified)
    }

    /// Run time of each program, if the kernel records it; those at functions are summed, separately for start and end.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        self.each_program(stats::read)
    }

    fn each_program<T: Add<Output = T>>(
        &self,
        read: fn(BorrowedFd<'_>) -> Option<T>,
    ) -> impl Iterator<Item = (&'static str, T)> {
        let at_functions = Family::Syscalls.programs().iter().filter_map(move |program| match program.hook {
            Hook::SystemCall(moment) if self.form == Form::Fentry => {
                Some((program.name, self.at_functions(moment).filter_map(read).reduce(T::add)?))
            }
            _ => None,
        });
        stats::each(&self.handles, Family::Syscalls, read).chain(at_functions)
    }

    /// The loaded programs at the start or end of calls' functions.
    fn at_functions(&self, moment: Moment) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.calls.iter().filter_map(move |call| self.handles.program(&at_function(moment, call)))
    }

    fn map_slot(&self, slot: u32) -> Result<Mapped<Histogram>, ProbeError> {
        let stride = stride(self.calls.len() as u32) as usize;
        object::map_entries(&self.call_times, CALL_TIMES, slot as usize * stride, stride)
    }
}

/// Name of the program at a call's function.
fn at_function(moment: Moment, call: &Call) -> String {
    match moment {
        Moment::Begin => format!("enter_{}", call.name),
        Moment::End => format!("leave_{}", call.name),
    }
}

/// Tracepoint at the start or end of all system calls.
const fn tracepoint(moment: Moment) -> &'static str {
    match moment {
        Moment::Begin => "sys_enter",
        Moment::End => "sys_exit",
    }
}

/// The calls' indices by number.
fn indices(calls: &[&Call]) -> CallIndices {
    let mut indices = [UNMEASURED; NUMBERS];
    for (index, call) in calls.iter().enumerate() {
        indices[call.number as usize] = index as CallIndex + 1;
    }
    indices
}

#[cfg(test)]
mod tests {
    use citadel_agent_common::calls::CALLS;

    use super::*;

    #[test]
    fn the_object_has_a_pair_of_programs_for_each_call() {
        for call in CALLS {
            for moment in [Moment::Begin, Moment::End] {
                // As in the table of symbols' names.
                let name = format!("\0{}\0", at_function(moment, call));
                assert!(OBJECT.windows(name.len()).any(|window| window == name.as_bytes()), "{name:?}");
            }
        }
    }

    #[test]
    fn indices_are_in_the_order_of_the_configuration() {
        let calls: Vec<&Call> = CALLS.iter().rev().collect();
        let indices = indices(&calls);
        for (index, call) in calls.iter().enumerate() {
            assert_eq!(usize::from(indices[call.number as usize]), index + 1, "{call}");
        }
        assert_eq!(indices.iter().filter(|&&index| index != UNMEASURED).count(), CALLS.len());
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn numbers_are_those_of_the_c_library() {
        let numbers = [
            libc::SYS_read,
            libc::SYS_write,
            libc::SYS_poll,
            libc::SYS_mmap,
            libc::SYS_munmap,
            libc::SYS_ioctl,
            libc::SYS_pread64,
            libc::SYS_pwrite64,
            libc::SYS_readv,
            libc::SYS_writev,
            libc::SYS_select,
            libc::SYS_madvise,
            libc::SYS_connect,
            libc::SYS_accept,
            libc::SYS_sendto,
            libc::SYS_recvfrom,
            libc::SYS_sendmsg,
            libc::SYS_recvmsg,
            libc::SYS_fsync,
            libc::SYS_fdatasync,
            libc::SYS_futex,
            libc::SYS_epoll_wait,
            libc::SYS_openat,
            libc::SYS_ppoll,
            libc::SYS_splice,
            libc::SYS_epoll_pwait,
            libc::SYS_accept4,
            libc::SYS_recvmmsg,
            libc::SYS_sendmmsg,
            libc::SYS_io_uring_enter,
            libc::SYS_epoll_pwait2,
        ];
        let table: Vec<_> = CALLS.iter().map(|call| i64::from(call.number)).collect();
        assert_eq!(table, numbers);
    }
}
