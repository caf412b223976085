//! What families do at their process's start and after each change so that they outlive it: see [`super::handover`].

use std::collections::BTreeMap;

use tracing::{info, warn};

use super::error::ProbeError;
use super::families::{Families, max_connections};
use super::family::Family;
use super::handover::{Handover, Part, State};
use super::net::Net;
use super::plan::Decision;
use super::sched::Sched;
use super::slots::Slots;
use super::status::FamilyStatus;
use super::syscalls::Syscalls;
use crate::config::Config;
use crate::host::{Roots, process};

/// The families in each object, the one that it is named after first.
const OBJECTS: [&[Family]; 3] =
    [&[Family::Net, Family::Recvq, Family::InFlight], &[Family::Sched], &[Family::Syscalls]];

type Plan = Vec<(Family, Decision)>;

impl Families {
    /// Takes over what the process before has left and the plan would load again, and removes it from the plan.
    pub(super) fn take_over(config: &Config, plan: &mut Plan, roots: &Roots, mut handover: Handover) -> Self {
        let ports = config.models.measured_ports();
        let fresh = Slots::of(&ports);
        let slots = handover.state().slots.with(&ports).unwrap_or_else(|_| fresh.clone());
        let fits = !handover.state().objects.is_empty() && slots.capacity() == handover.state().slots.capacity();
        let mut families = Self::with(slots);
        if fits {
            for object in OBJECTS {
                if let Err(reason) = families.take_over_one(object, config, plan, roots, &mut handover) {
                    info!(object = object[0].name(), reason, "counting from 0: the programs are loaded again");
                }
            }
        }
        if families.statuses.is_empty() {
            families.slots = fresh;
        }
        families.handover = handover;
        families
    }

    fn take_over_one(
        &mut self,
        object: &[Family],
        config: &Config,
        plan: &mut Plan,
        roots: &Roots,
        handover: &mut Handover,
    ) -> Result<(), String> {
        let name = object[0].name();
        let decision = |family: Family| {
            plan.iter().find(|(decided, _)| *decided == family).map_or(&UNDECIDED, |(_, decision)| decision)
        };
        let wanted = match decision(object[0]) {
            Decision::AttachTo { cgroup } => Net::identity(cgroup),
            Decision::Trace => Some(Sched::identity()),
            Decision::TraceCalls(variant) => Some(Syscalls::identity(&config.ebpf.calls, variant.form)),
            Decision::Skip(_) => None,
        };
        let (Some(part), Some(wanted)) = (handover.state().objects.get(name).cloned(), wanted) else { return Ok(()) };
        if part.identity != wanted {
            return Err("they have changed".to_owned());
        }
        let handles = handover.take(name).ok_or("not everything was kept")?;
        let missing = |family: &&Family| {
            let programs = family.programs().iter();
            !matches!(decision(**family), Decision::Skip(_))
                && programs.clone().any(|program| handles.link(program.name).is_none())
        };
        if let Some(family) = object[1..].iter().find(missing) {
            handover.give_back(name, handles);
            return Err(format!("{} was not attached", family.name()));
        }
        let result = self.adopt(object, &part, handles, config, roots, &decision);
        result.map_err(|error| error.to_string())?;
        let then = handover.state().boot;
        let shift = process::read_boot_time(roots).unwrap_or(then) as f64 - then as f64;
        // The kernel's boot time varies by a second with the clock's slewing; more is a clock that was set.
        let began = if shift.abs() > 2.0 { part.began + shift } else { part.began };
        for &family in object {
            self.statuses.push(match decision(family) {
                Decision::Skip(reason) => FamilyStatus::skipped(family, reason),
                decision => self.running(family, decision),
            });
            self.began.insert(family.name(), began);
        }
        info!(object = name, "the programs of the process before were taken over; counters continue");
        plan.retain(|(family, _)| !object.contains(family));
        Ok(())
    }

    fn adopt<'a>(
        &mut self,
        object: &[Family],
        part: &Part,
        mut handles: super::handles::Handles,
        config: &Config,
        roots: &Roots,
        decision: &impl Fn(Family) -> &'a Decision,
    ) -> Result<(), ProbeError> {
        // What is disabled now.
        for family in object[1..].iter().filter(|family| matches!(decision(**family), Decision::Skip(_))) {
            family.programs().iter().for_each(|program| handles.detach(program.name));
        }
        let ports = config.models.measured_ports();
        match (object[0], decision(object[0])) {
            (Family::Net, _) => {
                let most = max_connections(config, roots);
                let older = part.older.clone();
                self.net = Some(Net::take_over(handles, part.identity, &ports, &self.slots, most, older)?);
            }
            (_, Decision::TraceCalls(variant)) => {
                self.syscalls = Some(Syscalls::take_over(handles, &self.slots, &config.ebpf.calls, variant.form)?);
            }
            _ => self.sched = Some(Sched::take_over(handles, &self.slots)?),
        }
        Ok(())
    }

    /// Keeps what is attached now for the next process.
    pub(super) fn hand_over(&mut self, roots: &Roots) {
        let mut handover = std::mem::take(&mut self.handover);
        if handover.is_open() {
            let net = self.net.as_ref().map(|net| (net.handles(), net.own_identity(), net.older()));
            let sched = self.sched.as_ref().map(|sched| (sched.handles(), Sched::identity(), &[][..]));
            let syscalls = self.syscalls.as_ref().map(|calls| (calls.handles(), calls.own_identity(), &[][..]));
            let own_start = process::read_start(roots);
            let mut state = State { slots: self.slots.clone(), ..State::default() };
            let mut objects = BTreeMap::new();
            match (process::read_boot_time(roots), own_start) {
                (Ok(boot), Ok(start)) => {
                    state.boot = boot;
                    for (families, attached) in OBJECTS.iter().zip([net, sched, syscalls]) {
                        let Some((handles, identity, older)) = attached else { continue };
                        let name = families[0].name();
                        let began = self.began(families[0]).unwrap_or(start);
                        state.objects.insert(name.to_owned(), Part::new(identity, began, older.to_vec()));
                        objects.insert(name, handles);
                    }
                }
                (Err(error), _) | (_, Err(error)) => {
                    warn!(%error, "cannot keep the kernel programs for the next process; a restart loses counts");
                }
            }
            handover.update(state, &objects);
        }
        self.handover = handover;
    }
}

/// No plan lacks a family.
static UNDECIDED: Decision = Decision::Skip(super::plan::Reason::Disabled("ebpf"));
