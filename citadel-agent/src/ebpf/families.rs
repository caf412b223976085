//! All families: attached as the plan says, each by itself, so that one that fails leaves the others measuring.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use aya::Btf;
use citadel_agent_common::abi::Lost;
use tracing::{info, warn};

use super::error::ProbeError;
use super::family::Family;
use super::net::Net;
use super::own::OwnConnections;
use super::plan::{Decision, decide};
use super::readers::RequestReaders;
use super::sched::Sched;
use super::slots::{Slots, TooManyPorts};
use super::stats::RunStats;
use super::status::{FamilyStatus, Verdict};
use super::support::Support;
use super::syscalls::Syscalls;
use super::tasks::slots_of_processes;
use crate::config::Config;
use crate::discovery::inventory::Inventory;
use crate::host::Roots;
use crate::host::kernel_types::{self, Layout};

/// What runs, and how it went for each family.
#[derive(Default)]
pub struct Families {
    /// Which port counts into which slot of all families' maps.
    pub slots: Slots,
    /// The `net` family, with `recvq` where that runs too.
    pub net: Option<Net>,
    /// The `sched` family.
    pub sched: Option<Sched>,
    /// The `syscalls` family.
    pub syscalls: Option<Syscalls>,
    /// One a family.
    pub statuses: Vec<FamilyStatus>,
}

/// What tracing programs are loaded with. It is dropped once they are: 8 MB.
struct Types {
    btf: Btf,
    layout: Layout,
}

impl Families {
    /// Attaches what this host can and says what it cannot.
    #[must_use]
    pub fn attach(config: &Config, roots: &Roots) -> Self {
        let plan = decide(&config.ebpf, &Support::gather(roots));
        let ports = config.models.measured_ports();
        let types = plan.iter().any(|(_, decision)| decision.is_traced()).then(|| Types::read(roots));
        let mut families = Self { slots: Slots::of(&ports), ..Self::default() };
        for (family, decision) in &plan {
            let result = match decision {
                Decision::Skip(reason) => {
                    families.statuses.push(FamilyStatus::skipped(*family, reason));
                    continue;
                }
                Decision::AttachTo { cgroup } => {
                    let layout = types.as_ref().and_then(|types| types.as_ref().ok()).map(|types| &types.layout);
                    families.attach_net(cgroup, &ports, layout)
                }
                Decision::Trace | Decision::TraceCalls(_) => match &types {
                    Some(Ok(types)) => families.trace(*family, decision, config, types),
                    Some(Err(error)) => Err(ProbeError::Types(error.clone())),
                    None => continue,
                },
            };
            families.statuses.push(match result {
                Ok(()) => FamilyStatus::ok(*family, decision),
                Err(error) => FamilyStatus::broken(*family, &error),
            });
        }
        drop(types);
        // SAFETY: it gives freed memory back to the system and touches nothing that is in use.
        #[cfg(target_env = "gnu")]
        unsafe {
            libc::malloc_trim(0);
        }
        families.statuses.iter().for_each(report);
        families
    }

    fn attach_net(&mut self, cgroup: &Path, ports: &BTreeSet<u16>, layout: Option<&Layout>) -> Result<(), ProbeError> {
        self.net = Some(Net::attach(cgroup, ports, &self.slots, layout)?);
        Ok(())
    }

    fn trace(&mut self, family: Family, decision: &Decision, config: &Config, types: &Types) -> Result<(), ProbeError> {
        let Types { btf, layout } = types;
        match (decision, family, &mut self.net) {
            (Decision::TraceCalls(variant), ..) => {
                self.syscalls = Some(Syscalls::attach(&self.slots, &config.ebpf.calls, variant.form, btf, layout)?);
            }
            (_, Family::Recvq, Some(net)) => net.attach_receive_queue(btf)?,
            (_, Family::Recvq, None) => return Err(ProbeError::Needs(Family::Net.name())),
            _ => self.sched = Some(Sched::attach(&self.slots, btf, layout)?),
        }
        Ok(())
    }

    /// Whether [`Self::measure`] would take these ports.
    ///
    /// # Errors
    /// There are more ports than slots.
    pub fn can_measure(&self, ports: &BTreeSet<u16>) -> Result<(), TooManyPorts> {
        self.slots.with(ports).map(drop)
    }

    /// Measures these ports from now on, and no others.
    ///
    /// # Errors
    /// When there are more ports than slots, or a map cannot be written.
    pub fn measure(&mut self, ports: &BTreeSet<u16>) -> Result<(), ProbeError> {
        // A port that has a slot keeps it, whatever comes of the rest.
        self.slots = self.slots.with(ports)?;
        self.net.as_mut().map_or(Ok(()), |net| net.measure(ports, &self.slots))
    }

    /// Lets the agent's own connections be announced to the programs, and discovery ask them who reads requests.
    pub fn introduce(&mut self, own: &OwnConnections, readers: &RequestReaders) {
        if let Some(net) = &mut self.net {
            net.leave_out(own);
            net.tell_readers(readers, &self.slots);
        }
    }

    /// Charges processes to models, as discovery found them. To be called once for each time that it looked.
    pub fn follow(&mut self, inventory: &Inventory) {
        let processes = slots_of_processes(inventory, &self.slots);
        let sched = self.sched.as_mut().map_or(Ok(()), |sched| sched.follow(&processes));
        let syscalls = self.syscalls.as_mut().map_or(Ok(()), |syscalls| syscalls.follow(&processes));
        if let Err(error) = sched.and(syscalls) {
            warn!(%error, "cannot tell the kernel programs which processes are the models'");
        }
    }

    /// Which of the families that are to run do not, if any: what a reload must not bring about.
    #[must_use]
    pub fn broken(&self) -> Option<&FamilyStatus> {
        self.statuses.iter().find(|family| family.status == Verdict::Broken)
    }

    /// How much could not be measured, by reason, all families together.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<&'static str, u64> {
        let net = self.net.iter().flat_map(Net::lost);
        let sched = self.sched.iter().flat_map(Sched::lost);
        let syscalls = self.syscalls.iter().flat_map(Syscalls::lost);
        let mut lost = BTreeMap::new();
        for (why, count) in net.chain(sched).chain(syscalls) {
            *lost.entry(Lost::label(why)).or_default() += count;
        }
        lost
    }

    /// What each program has cost, while the kernel keeps count.
    pub fn run_stats(&self) -> impl Iterator<Item = (&'static str, RunStats)> {
        let sched = self.sched.iter().flat_map(Sched::run_stats);
        let syscalls = self.syscalls.iter().flat_map(Syscalls::run_stats);
        self.net.iter().flat_map(Net::run_stats).chain(sched).chain(syscalls)
    }

    /// Entries in use and capacity of the maps that can be full.
    pub fn fill(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let slots = || ("model_stats", self.slots.ports().count() as u64, u64::from(self.slots.capacity()));
        let net = self.net.iter().flat_map(move |net| [slots(), net.fill()]);
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

/// Says how it went.
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
