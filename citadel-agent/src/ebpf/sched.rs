//! The `sched` family in userspace: loads and attaches the programs, assigns processes to models, reads the counters.
//! Dropping [`Sched`] detaches them.

use std::collections::BTreeMap;

use aya::Btf;
use citadel_agent_common::abi::Lost;
use citadel_agent_common::hist::Histogram;

use super::error::ProbeError;
use super::family::{Family, Hook};
use super::handles::Handles;
use super::handover;
use super::mapped::Mapped;
use super::object;
use super::slots::Slots;
use super::stats::{self, RunStats};
use super::tasks::{self, Tasks};
use crate::host::kernel_types::Layout;

/// The eBPF object, built by `build.rs`.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sched.o"));

/// The attached programs and their maps.
pub struct Sched {
    handles: Handles,
    tasks: Tasks,
    run_queue: Mapped<Histogram>,
    on_cpu: Mapped<u64>,
}

impl Sched {
    /// Loads the programs with these slots, and attaches them.
    ///
    /// # Errors
    /// Any step fails; then nothing stays attached.
    pub(crate) fn attach(slots: &Slots, btf: &Btf, layout: &Layout) -> Result<Self, ProbeError> {
        object::lift_memlock_limit();
        let entries = slots.capacity();
        let mut loader = object::loader();
        loader
            .override_global("TASK_PID", &layout.task_pid, true)
            .override_global("TASK_TGID", &layout.task_tgid, true)
            .override_global("TASK_STATE", &layout.task_state, true)
            .override_global("TASK_ON_CPU", &layout.task_on_cpu, true)
            .map_max_entries("RUN_QUEUE", entries)
            .map_max_entries("ON_CPU", entries);
        for map in [tasks::SHARED, tasks::THREADS] {
            map.size(&mut loader, slots);
        }
        let mut ebpf = loader.load(OBJECT)?;
        let mut handles = Handles::of(&ebpf)?;
        for map in [tasks::SHARED, tasks::THREADS] {
            map.fill(&handles, slots)?;
        }
        for program in Family::Sched.programs() {
            if let Hook::Tracepoint(tracepoint) = program.hook {
                object::trace(&mut ebpf, &mut handles, program.name, tracepoint, btf)?;
            }
        }
        Self::take_over(handles, slots)
    }

    /// Uses what another process has attached with these slots.
    ///
    /// # Errors
    /// A map is missing, or the kernel refuses to map it.
    pub(super) fn take_over(handles: Handles, slots: &Slots) -> Result<Self, ProbeError> {
        let entries = slots.capacity() as usize;
        Ok(Self {
            tasks: Tasks::of(&handles, slots)?,
            run_queue: object::map_into_memory(&handles, "RUN_QUEUE", entries)?,
            on_cpu: object::map_into_memory(&handles, "ON_CPU", entries)?,
            handles,
        })
    }

    /// What the programs depend on.
    pub(super) fn identity() -> u64 {
        handover::identity(OBJECT, ())
    }

    /// What it has in the kernel.
    pub(super) const fn handles(&self) -> &Handles {
        &self.handles
    }

    /// Charges processes to the slots of their models. Must be called once per discovery pass.
    ///
    /// # Errors
    /// The map cannot be read or written.
    pub fn follow(&mut self, processes: &BTreeMap<u32, u32>) -> Result<(), ProbeError> {
        self.tasks.follow(processes)
    }

    /// How long the threads of a slot's model waited for a CPU; `None` if none did.
    #[must_use]
    pub fn run_queue(&self, slot: u32) -> Option<Box<Histogram>> {
        self.run_queue.entry(slot as usize)?.histogram()
    }

    /// On-CPU time of the threads of a slot's model, in nanoseconds.
    #[must_use]
    pub fn on_cpu_ns(&self, slot: u32) -> Option<u64> {
        Some(self.on_cpu.entry(slot as usize)?.word(0))
    }

    /// What did not fit, by slot and reason.
    pub fn refused(&self) -> impl Iterator<Item = (u32, Lost, u64)> {
        self.tasks.refused()
    }

    /// Entries in use and capacity of the maps that can be full.
    #[must_use]
    pub fn fill(&self) -> [(&'static str, u64, u64); 2] {
        let [(processes, most_processes), (threads, most_threads)] = self.tasks.fill();
        [("sched_processes", processes, most_processes), ("sched_threads", threads, most_threads)]
    }

    /// What the verifier followed of each program.
    pub fn verified(&self) -> impl Iterator<Item = (&'static str, u32)> {
        stats::each(&self.handles, Family::Sched, stats::verified)
    }

    /// Run time of each program, if the kernel records it.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        stats::each(&self.handles, Family::Sched, stats::read)
    }
}
