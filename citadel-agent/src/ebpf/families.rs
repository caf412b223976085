//! All families: attached according to the plan, each separately, so that a failure of one leaves the others running.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{SystemTime, UNIX_EPOCH};

use aya::Btf;
use citadel_agent_common::abi::Lost;
use tracing::{info, warn};

use super::error::ProbeError;
use super::family::Family;
use super::handover::Handover;
use super::limit;
use super::net::Net;
use super::object;
use super::own::OwnConnections;
use super::plan::{Decision, decide};
use super::readers::RequestReaders;
use super::records::RequestRecords;
use super::sched::Sched;
use super::slots::Slots;
use super::stats::RunStats;
use super::status::{FamilyStatus, Incomplete, Verdict};
use super::support::Support;
use super::syscalls::Syscalls;
use super::tasks::slots_of_processes;
use crate::config::Config;
use crate::discovery::inventory::Inventory;
use crate::host::kernel_types::{self, Layout};
use crate::host::{Roots, cgroup};

/// What is running, and the status of each family.
#[derive(Default)]
pub struct Families {
    /// Slots of the ports in the maps of all families.
    pub slots: Slots,
    /// The `net` family, with `recvq` if that is running.
    pub net: Option<Net>,
    /// The `sched` family.
    pub sched: Option<Sched>,
    /// The `syscalls` family.
    pub syscalls: Option<Syscalls>,
    /// One per family.
    pub statuses: Vec<FamilyStatus>,
    /// When families started to count that were replaced by a reload or taken over, in seconds since 1970.
    pub(super) began: BTreeMap<&'static str, f64>,
    /// Keeps them for the next process.
    pub(super) handover: Handover,
    /// Entries of [`Self::refused`] that have been logged.
    logged: BTreeSet<(&'static str, u16, &'static str)>,
    /// Whether it was logged that some connections are not followed.
    logged_connections: bool,
}

/// What tracing programs need when they are loaded. Dropped afterwards: 6 MB.
struct Types {
    btf: Btf,
    layout: Layout,
}

/// The effect of a reload on the families: those with changed keys and those that were broken are replaced; the others
/// continue and keep their counts.
pub struct Update {
    /// Families that continue.
    kept: Vec<Family>,
    /// New families only.
    fresh: Families,
    /// The change of `recvq` if `net`, which has its object, continues.
    receive_queue: Option<(Decision, Option<Result<Types, String>>)>,
    ports: BTreeSet<u16>,
    max_connections: u64,
}

impl Families {
    /// Takes over what the process before has left, attaches the rest of what this host supports, and reports what it does not.
    #[must_use]
    pub fn attach(config: &Config, roots: &Roots, handover: Handover) -> Self {
        let mut plan = decide(&config.ebpf, &Support::gather(roots));
        let mut families = Self::take_over(config, &mut plan, roots, handover);
        let fresh = Self::attach_some(config, &plan, roots, families.slots.clone());
        let Self { net, sched, syscalls, statuses, .. } = fresh;
        families.net = families.net.or(net);
        families.sched = families.sched.or(sched);
        families.syscalls = families.syscalls.or(syscalls);
        families.statuses.extend(statuses);
        families.statuses.sort_by_key(|status| Family::ALL.iter().position(|family| family.name() == status.family));
        families.hand_over(roots);
        families
    }

    /// None yet.
    pub(super) fn with(slots: Slots) -> Self {
        Self { slots, ..Self::default() }
    }

    /// Attaches these families.
    fn attach_some(config: &Config, plan: &[(Family, Decision)], roots: &Roots, slots: Slots) -> Self {
        let _undisturbed = object::Undisturbed::new();
        let ports = config.models.measured_ports();
        let types = plan.iter().any(|(_, decision)| decision.is_traced()).then(|| Types::read(roots));
        let mut families = Self::with(slots);
        for (family, decision) in plan {
            let result = match decision {
                Decision::Skip(reason) => {
                    families.statuses.push(FamilyStatus::skipped(*family, reason));
                    continue;
                }
                Decision::AttachTo { cgroup } => {
                    let layout = types.as_ref().and_then(|types| types.as_ref().ok()).map(|types| &types.layout);
                    let max_connections = max_connections(config, roots);
                    Net::attach(cgroup, &ports, &families.slots, max_connections, layout)
                        .map(|net| families.net = Some(net))
                }
                Decision::Trace | Decision::TraceCalls(_) => match &types {
                    Some(Ok(types)) => families.trace(*family, decision, config, types),
                    Some(Err(error)) => Err(ProbeError::Types(error.clone())),
                    None => continue,
                },
            };
            families.statuses.push(match result {
                Ok(()) => families.running(*family, decision),
                Err(error) => FamilyStatus::broken(*family, &error),
            });
        }
        drop(types);
        give_memory_back();
        families.note_verified();
        families.statuses.iter().for_each(report);
        families
    }

    /// Does everything that can fail of a reload, without changing what is running.
    ///
    /// # Errors
    /// There are more ports than slots, or a family that is running or was disabled would be broken.
    pub fn prepare(&self, old: &Config, new: &Config, roots: &Roots) -> Result<Update, ProbeError> {
        let (ports, max_connections) = (new.models.measured_ports(), max_connections(new, roots));
        let mut kept: Vec<_> = Family::ALL
            .into_iter()
            .filter(|&family| !self.is_broken(family) && family.is_configured_alike(&old.ebpf, &new.ebpf))
            .collect();
        let lacks_types = self.net.as_ref().is_some_and(|net| !net.can_attach_receive_queue());
        if !kept.contains(&Family::Recvq) && lacks_types {
            kept.retain(|family| *family != Family::Net);
        }
        let net_is_kept = kept.contains(&Family::Net) && self.net.is_some();
        if !net_is_kept {
            // They are in the same object.
            kept.retain(|family| !matches!(family, Family::Recvq | Family::InFlight));
        }
        let slots = if kept.is_empty() { Slots::of(&ports) } else { self.slots.with(&ports)? };
        if kept.len() == Family::ALL.len() {
            return Ok(Update {
                kept,
                fresh: Self { slots, ..Self::default() },
                receive_queue: None,
                ports,
                max_connections,
            });
        }
        let mut plan = decide(&new.ebpf, &Support::gather(roots));
        plan.retain(|(family, _)| !kept.contains(family));
        let recvq = plan.iter().position(|(family, _)| *family == Family::Recvq).filter(|_| net_is_kept);
        let receive_queue = recvq.map(|at| {
            let (_, decision) = plan.remove(at);
            let types = decision.is_traced().then(|| Types::read(roots));
            (decision, types)
        });
        let fresh = Self::attach_some(new, &plan, roots, slots);
        let newly_broken = |status: &&FamilyStatus| {
            status.status == Verdict::Broken
                && !self.statuses.iter().any(|old| old.family == status.family && old.status == Verdict::Broken)
        };
        if let Some(broken) = fresh.statuses.iter().find(newly_broken) {
            return Err(ProbeError::Family { family: broken.family, reason: broken.reason.clone() });
        }
        Ok(Update { kept, fresh, receive_queue, ports, max_connections })
    }

    /// Completes the reload. Returns whether any family was replaced.
    ///
    /// # Errors
    /// `recvq` cannot be attached, or a map cannot be written; then `old` are the measured ports, as before.
    pub fn commit(&mut self, update: Update, old: &BTreeSet<u16>, roots: &Roots) -> Result<bool, ProbeError> {
        let Update { kept, mut fresh, receive_queue, ports, max_connections } = update;
        let keeps_net = kept.contains(&Family::Net);
        let recvq = match receive_queue {
            None => None,
            Some((decision, types)) => {
                let changed = self.change_receive_queue(&decision, types);
                self.hand_over(roots);
                Some(changed?)
            }
        };
        // A port that has a slot keeps it, whatever happens to the rest.
        self.slots = fresh.slots.clone();
        self.handover.note_slots(&self.slots);
        if keeps_net
            && let Some(net) = &mut self.net
            && let Err(error) = net.measure(&ports, &self.slots)
        {
            net.measure(old, &self.slots)?;
            return Err(error);
        }
        if let Some(net) = &self.net {
            net.allow(max_connections);
        }
        let replaced = Family::ALL.into_iter().filter(|family| !kept.contains(family)).map(Family::name);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
        self.began.extend(replaced.map(|family| (family, now)));
        let replaced = kept.len() < Family::ALL.len();
        if !keeps_net {
            self.net = fresh.net.take();
        }
        if !kept.contains(&Family::Sched) {
            self.sched = fresh.sched.take();
        }
        if !kept.contains(&Family::Syscalls) {
            self.syscalls = fresh.syscalls.take();
        }
        for status in fresh.statuses.drain(..).chain(recvq) {
            match self.statuses.iter_mut().find(|old| old.family == status.family) {
                Some(old) => *old = status,
                None => self.statuses.push(status),
            }
        }
        if replaced {
            self.hand_over(roots);
        }
        self.note_verified();
        Ok(replaced)
    }

    /// Attaches or detaches `recvq` while `net` continues; returns the new status.
    fn change_receive_queue(
        &mut self,
        decision: &Decision,
        types: Option<Result<Types, String>>,
    ) -> Result<FamilyStatus, ProbeError> {
        let Some(net) = &mut self.net else { return Err(ProbeError::Needs(Family::Net.name())) };
        net.detach_receive_queue();
        let status = match (decision, types) {
            (Decision::Skip(reason), _) => FamilyStatus::skipped(Family::Recvq, reason),
            (_, Some(Ok(types))) => {
                let _undisturbed = object::Undisturbed::new();
                net.attach_receive_queue(&types.btf)?;
                FamilyStatus::ok(Family::Recvq, decision)
            }
            (_, Some(Err(error))) => return Err(ProbeError::Types(error)),
            (_, None) => return Err(ProbeError::Types("the kernel's BTF was not read".to_owned())),
        };
        give_memory_back();
        report(&status);
        Ok(status)
    }

    /// When a family started to count, in seconds since 1970, if not at the agent's start: later after a reload, earlier if it was
    /// taken over.
    #[must_use]
    pub fn began(&self, family: Family) -> Option<f64> {
        self.began.get(family.name()).copied()
    }

    /// When the last family started to count.
    #[must_use]
    pub fn last_began(&self) -> Option<f64> {
        self.began.values().copied().reduce(f64::max)
    }

    /// When the first of the families that run started to count; `start` is the agent's start.
    #[must_use]
    pub fn first_began(&self, start: f64) -> Option<f64> {
        let running = self.statuses.iter().filter(|status| status.status == Verdict::Ok);
        running.map(|status| self.began.get(status.family).copied().unwrap_or(start)).reduce(f64::min)
    }

    /// The status of a family that runs, but for a program that it lacks.
    pub(super) fn running(&self, family: Family, decision: &Decision) -> FamilyStatus {
        let lacks = self.net.as_ref().filter(|_| family == Family::Net).and_then(Net::lacks);
        lacks.into_iter().fold(FamilyStatus::ok(family, decision), FamilyStatus::lacking)
    }

    /// Writes into the statuses what the verifier followed of each program.
    fn note_verified(&mut self) {
        let net = self.net.iter().flat_map(Net::verified);
        let sched = self.sched.iter().flat_map(Sched::verified);
        let syscalls = self.syscalls.iter().flat_map(Syscalls::verified);
        let verified: BTreeMap<_, _> = net.chain(sched).chain(syscalls).collect();
        for program in self.statuses.iter_mut().flat_map(|status| &mut status.programs) {
            program.verified_instructions = verified.get(program.name).copied();
        }
    }

    fn is_broken(&self, family: Family) -> bool {
        self.statuses.iter().any(|status| status.family == family.name() && status.status == Verdict::Broken)
    }

    fn trace(&mut self, family: Family, decision: &Decision, config: &Config, types: &Types) -> Result<(), ProbeError> {
        let Types { btf, layout } = types;
        match (decision, family, &mut self.net) {
            (Decision::TraceCalls(variant), ..) => {
                self.syscalls = Some(Syscalls::attach(&self.slots, &config.ebpf.calls, variant.form, btf, layout)?);
            }
            (_, Family::Recvq, Some(net)) => net.attach_receive_queue(btf)?,
            (_, Family::InFlight, Some(net)) => net.attach_in_flight(btf)?,
            (_, Family::Recvq | Family::InFlight, None) => return Err(ProbeError::Needs(Family::Net.name())),
            _ => self.sched = Some(Sched::attach(&self.slots, btf, layout)?),
        }
        Ok(())
    }

    /// Passes these programs' maps to the registry of the agent's own connections, to discovery, which reads who
    /// reads requests, and to the records of single requests.
    pub fn introduce(&mut self, own: &OwnConnections, readers: &RequestReaders, records: &RequestRecords) {
        if let Some(net) = &mut self.net {
            net.tell_records(records);
            net.leave_out(own);
            net.tell_readers(readers, &self.slots);
        }
    }

    /// Charges processes to models according to discovery. Must be called once per discovery pass.
    pub fn follow(&mut self, inventory: &Inventory) {
        let processes = slots_of_processes(inventory, &self.slots);
        let sched = self.sched.as_mut().map_or(Ok(()), |sched| sched.follow(&processes));
        let syscalls = self.syscalls.as_mut().map_or(Ok(()), |syscalls| syscalls.follow(&processes));
        if let Err(error) = sched.and(syscalls) {
            warn!(%error, "cannot write the models' processes to the kernel maps");
        }
        self.note_what_found_no_room();
    }

    /// Reports, once in the log and in the families' statuses, what did not fit into a shared map.
    fn note_what_found_no_room(&mut self) {
        let refused = self.refused();
        let not_followed = self.net.iter().flat_map(Net::lost).find(|(why, _)| *why == Lost::ConnectionsFull);
        let not_followed = not_followed.map_or(0, |(_, count)| count);
        if not_followed > 0 && !std::mem::replace(&mut self.logged_connections, true) {
            warn!(
                count = not_followed,
                "too many connections: the requests of some are not measured; see ebpf.max_connections"
            );
        }
        for ((family, port, why), count) in &refused {
            if self.logged.insert((family, *port, *why)) {
                warn!(
                    family,
                    port,
                    reason = why,
                    count,
                    "the model exceeds its share of a kernel map and is not measured completely"
                );
            }
        }
        for status in &mut self.statuses {
            let of_family = refused.iter().filter(|((family, ..), _)| *family == status.family);
            status.incomplete = of_family
                .map(|((_, port, why), &count)| Incomplete { port: Some(*port), reason: why, count })
                .collect();
            if status.family == Family::Net.name() && not_followed > 0 {
                let reason = Lost::ConnectionsFull.label();
                status.incomplete.push(Incomplete { port: None, reason, count: not_followed });
            }
        }
    }

    /// What did not fit into a shared map, by family, port and reason.
    #[must_use]
    pub fn refused(&self) -> BTreeMap<(&'static str, u16, &'static str), u64> {
        let ports: BTreeMap<_, _> = self.slots.ports().filter_map(|port| Some((self.slots.get(port)?, port))).collect();
        // Readers are recorded by the program of `recvq`.
        let net = self.net.iter().flat_map(Net::refused).map(|refused| (Family::Recvq, refused));
        let sched = self.sched.iter().flat_map(Sched::refused).map(|refused| (Family::Sched, refused));
        let syscalls = self.syscalls.iter().flat_map(Syscalls::refused).map(|refused| (Family::Syscalls, refused));
        let refused = |(family, (slot, why, count)): (Family, (u32, Lost, u64))| {
            Some(((family.name(), *ports.get(&slot)?, why.label()), count))
        };
        net.chain(sched).chain(syscalls).filter_map(refused).collect()
    }

    /// Number of events that could not be measured, by reason, over all families.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        let net = self.net.iter().flat_map(Net::lost);
        let missed = self.syscalls.iter().map(|syscalls| (Lost::Recursion, syscalls.missed()));
        let mut lost: BTreeMap<_, _> = Lost::ALL.into_iter().map(|why| (why.label(), 0)).collect();
        for (why, count) in net.chain(missed) {
            *lost.entry(why.label()).or_default() += count;
        }
        for ((.., why), count) in self.refused() {
            *lost.entry(why).or_default() += count;
        }
        lost
    }

    /// Run time of each program, if the kernel records it.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        let sched = self.sched.iter().flat_map(Sched::run_stats);
        let syscalls = self.syscalls.iter().flat_map(Syscalls::run_stats);
        self.net.iter().flat_map(Net::run_stats).chain(sched).chain(syscalls)
    }

    /// Entries in use and capacity of the maps that can be full.
    pub fn fill(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let slots = || ("model_stats", self.slots.ports().count() as u64, u64::from(self.slots.capacity()));
        let net = self.net.iter().flat_map(move |net| std::iter::once(slots()).chain(net.fill()));
        let sched = self.sched.iter().flat_map(Sched::fill);
        net.chain(sched).chain(self.syscalls.iter().flat_map(Syscalls::fill))
    }
}

impl Types {
    fn read(roots: &Roots) -> Result<Self, String> {
        let kernel_types::Types { layout, outline } = kernel_types::read(roots).map_err(|error| error.to_string())?;
        let btf = Btf::parse(&outline, aya::Endianness::default())
            .map_err(|error| format!("cannot parse {}: {error}", kernel_types::path(roots).display()))?;
        Ok(Self { btf, layout })
    }
}

/// The maximum number of followed connections.
pub(super) fn max_connections(config: &Config, roots: &Roots) -> u64 {
    limit::max_connections(config.ebpf.max_connections, cgroup::read_memory_limit(roots))
}

/// Returns the memory used for loading to the system.
fn give_memory_back() {
    // SAFETY: it touches nothing that is in use.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Logs the status of a family.
fn report(status: &FamilyStatus) {
    match status.status {
        Verdict::Ok => match &status.variant {
            None => info!(family = status.family, "attached"),
            Some(variant) => {
                info!(family = status.family, form = variant.form.name(), reason = variant.reason, "attached");
            }
        },
        Verdict::Disabled => info!(family = status.family, reason = status.reason, "not attached"),
        Verdict::Unsupported | Verdict::Broken => {
            warn!(family = status.family, reason = status.reason, remedy = status.remedy, "not attached");
        }
    }
}
