//! Disk health from smartmontools, if installed (`smartctl(8)`, whose `--json` output is a stable interface).

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::command::{self, Run};
use super::smart_report::{Device, Report, devices};
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::storage::SMART_ASLEEP;
use crate::metrics::family::{Page, Value};
use crate::sources::{Outcome, Reading};

/// Time limit for a disk.
const PATIENCE: Duration = Duration::from_secs(20);

/// Maximum output of smartctl for a disk; typically about 20 kB.
const MAX_OUTPUT: usize = 1 << 20;

/// State kept between reads.
#[derive(Clone, Debug, Default)]
pub(in crate::sources) struct Disks(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// The last report of each disk: a disk in standby is not woken for a new one.
    last: HashMap<String, Report>,
    /// Disks whose smartctl did not exit.
    hung: HashMap<String, Child>,
}

pub(in crate::sources) fn read(program: &Path, disks: &Disks, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let scan = match command::run(Command::new(program).args(["--scan", "--json"]), PATIENCE, MAX_OUTPUT) {
        Ok(Run::Ended(output)) => devices(&output, skipped)?,
        Ok(Run::Hangs(_)) => return Err("smartctl --scan timed out".into()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome::Absent),
        Err(error) => return Err(format!("{} --scan --json: {error}", program.display()).into()),
    };
    let mut known = disks.0.lock().unwrap_or_else(PoisonError::into_inner);
    let devices = labelled(&scan);
    known.last.retain(|label, _| devices.iter().any(|(kept, _)| kept == label));
    let mut errors = Vec::new();
    for (label, device) in &devices {
        if let Some(child) = known.hung.get_mut(label) {
            if child.try_wait()?.is_none() {
                errors.push(format!("{label}: still no response"));
                continue;
            }
            known.hung.remove(label);
        }
        let nocheck = format!("--nocheck=standby,{}", Report::ASLEEP);
        let mut smartctl = Command::new(program);
        smartctl.args(["--json", "--all", &nocheck, "--device", &device.kind, "--", &device.name]);
        let result = command::run(&mut smartctl, PATIENCE, MAX_OUTPUT);
        let report = match result.map_err(|error| error.to_string()) {
            Ok(Run::Ended(output)) => Report::parse(&output, skipped),
            Ok(Run::Hangs(child)) => {
                known.hung.insert(label.clone(), child);
                Err("it does not answer".to_owned())
            }
            Err(error) => Err(error),
        };
        match report {
            Ok(report) => {
                let asleep = report.is_asleep();
                page.add(&SMART_ASLEEP, [label], Value::Integer(u64::from(asleep)));
                if !asleep {
                    known.last.insert(label.clone(), report);
                }
                if let Some(report) = known.last.get(label) {
                    report.add(page, label);
                }
            }
            Err(error) => errors.push(format!("{label}: {error}")),
        }
    }
    match (devices.is_empty(), errors.is_empty()) {
        (true, _) => Ok(Outcome::Absent),
        // One failing disk among eight must hide neither the others nor itself.
        (_, false) if errors.len() < devices.len() => Ok(Outcome::Partly(errors.join("; ").into())),
        (_, false) => Err(errors.join("; ").into()),
        (_, true) => Ok(Outcome::Read),
    }
}

/// The disks with their labels: names, with their types if several have the same name, as behind a RAID controller.
fn labelled(devices: &[Device]) -> Vec<(String, &Device)> {
    let (mut names, mut shared) = (HashSet::new(), HashSet::new());
    for device in devices {
        if !names.insert(&device.name) {
            shared.insert(&device.name);
        }
    }
    let label = |device: &Device| {
        let name = device.name.strip_prefix("/dev/").unwrap_or(&device.name);
        if shared.contains(&device.name) { format!("{name},{}", device.kind) } else { name.to_owned() }
    };
    devices.iter().map(|device| (label(device), device)).collect()
}
