//! What disks say of their health, through smartmontools where it is installed (`smartctl(8)`, whose `--json` is the
//! interface that its authors keep stable).

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::command::{self, Run};
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::storage::{
    SMART_ASLEEP, SMART_CRITICAL_WARNING, SMART_HEALTHY, SMART_INFO, SMART_MEDIA_ERRORS, SMART_PENDING,
    SMART_POWER_CYCLES, SMART_POWER_ON, SMART_READ_BYTES, SMART_REALLOCATED, SMART_SPARE, SMART_SPARE_THRESHOLD,
    SMART_TEMPERATURE, SMART_UNSAFE_SHUTDOWNS, SMART_USED, SMART_WRITTEN_BYTES,
};
use crate::metrics::family::{Page, Value};
use crate::sources::apart::Context;
use crate::sources::{Outcome, Reading};

/// How long a disk may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// What smartctl may say of one disk; it says some 20 kB.
const MAX_OUTPUT: usize = 1 << 20;

/// The exit status that we ask of smartctl when a disk sleeps. Bit 0 (its command line is wrong) ends it before a disk is asked
/// anything, so that together with bit 2 it says nothing else.
const ASLEEP: u64 = 0b101;

/// What is kept from one time to the next.
#[derive(Clone, Debug, Default)]
pub(in crate::sources) struct Disks(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// What each disk said last: a disk that sleeps is not woken to say it again.
    last: HashMap<String, Report>,
    /// Disks whose smartctl did not end.
    hung: HashMap<String, Child>,
}

pub(in crate::sources) fn read(context: &Context, page: &mut Page) -> Reading {
    let program = &context.config.storage.smartctl;
    let scan = match command::run(Command::new(program).args(["--scan", "--json"]), PATIENCE, MAX_OUTPUT) {
        Ok(Run::Ended(output)) => parse::<Scan>(&output)?,
        Ok(Run::Hangs(_)) => return Err("smartctl --scan does not end".into()),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcome::Absent),
        Err(error) => return Err(format!("{} --scan --json: {error}", program.display()).into()),
    };
    let mut known = context.disks.0.lock().unwrap_or_else(PoisonError::into_inner);
    let devices = scan.labelled();
    known.last.retain(|label, _| devices.iter().any(|(kept, _)| kept == label));
    let mut errors = Vec::new();
    for (label, device) in &devices {
        if let Some(child) = known.hung.get_mut(label) {
            if child.try_wait()?.is_none() {
                errors.push(format!("{label}: it still does not answer"));
                continue;
            }
            known.hung.remove(label);
        }
        let nocheck = format!("--nocheck=standby,{ASLEEP}");
        let mut smartctl = Command::new(program);
        smartctl.args(["--json", "--all", &nocheck, "--device", &device.kind, "--", &device.name]);
        let result = command::run(&mut smartctl, PATIENCE, MAX_OUTPUT);
        let report = match result.map_err(|error| error.to_string()) {
            Ok(Run::Ended(output)) => parse::<Report>(&output).and_then(Report::checked),
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
        // One broken disk among eight must not hide the others, nor itself.
        (_, false) if errors.len() < devices.len() => Ok(Outcome::Partly(errors.join("; ").into())),
        (_, false) => Err(errors.join("; ").into()),
        (_, true) => Ok(Outcome::Read),
    }
}

fn parse<T: DeserializeOwned>(output: &[u8]) -> Result<T, String> {
    serde_json::from_slice(output).map_err(|error| format!("smartctl says something else than its JSON: {error}"))
}

/// `smartctl --scan --json`, which opens no disk.
#[derive(Deserialize, Debug)]
pub(super) struct Scan {
    #[serde(default)]
    devices: Vec<Device>,
}

#[derive(Deserialize, Debug)]
struct Device {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

impl Scan {
    /// The disks with the labels that they get: their names, and with their types where several are behind one name, as with a
    /// RAID controller.
    fn labelled(&self) -> Vec<(String, &Device)> {
        let (mut names, mut shared) = (HashSet::new(), HashSet::new());
        for device in &self.devices {
            if !names.insert(&device.name) {
                shared.insert(&device.name);
            }
        }
        let label = |device: &Device| {
            let name = device.name.strip_prefix("/dev/").unwrap_or(&device.name);
            if shared.contains(&device.name) { format!("{name},{}", device.kind) } else { name.to_owned() }
        };
        self.devices.iter().map(|device| (label(device), device)).collect()
    }
}

/// `smartctl --json --all`, as far as it is exported. What a disk does not say is absent.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub(super) struct Report {
    smartctl: Smartctl,
    device: ReportDevice,
    model_name: String,
    serial_number: String,
    firmware_version: String,
    smart_status: Option<SmartStatus>,
    temperature: Option<Temperature>,
    power_on_time: Option<PowerOnTime>,
    power_cycle_count: Option<u64>,
    nvme_smart_health_information_log: Option<Nvme>,
    ata_smart_attributes: AtaAttributes,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Smartctl {
    exit_status: u64,
    messages: Vec<Message>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Message {
    string: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct ReportDevice {
    protocol: String,
}

#[derive(Deserialize, Debug)]
struct SmartStatus {
    passed: bool,
}

#[derive(Deserialize, Debug)]
struct Temperature {
    current: i64,
}

#[derive(Deserialize, Debug)]
struct PowerOnTime {
    hours: u64,
}

/// The log page of the NVMe specification; percentages, and data in units of 512,000 bytes.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Nvme {
    critical_warning: Option<u64>,
    available_spare: Option<u64>,
    available_spare_threshold: Option<u64>,
    percentage_used: Option<u64>,
    data_units_read: Option<u64>,
    data_units_written: Option<u64>,
    media_errors: Option<u64>,
    unsafe_shutdowns: Option<u64>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct AtaAttributes {
    table: Vec<AtaAttribute>,
}

#[derive(Deserialize, Debug)]
struct AtaAttribute {
    id: u64,
    raw: Raw,
}

#[derive(Deserialize, Debug)]
struct Raw {
    value: u64,
}

impl Report {
    fn is_asleep(&self) -> bool {
        self.smartctl.exit_status == ASLEEP
    }

    /// Refuses a report of a disk that could not be opened: bits 0 and 1 of the exit status.
    fn checked(self) -> Result<Self, String> {
        if self.smartctl.exit_status & 0b11 == 0 || self.is_asleep() {
            return Ok(self);
        }
        let said: Vec<&str> = self.smartctl.messages.iter().map(|message| message.string.as_str()).collect();
        Err(if said.is_empty() { "smartctl cannot open it".to_owned() } else { said.join(", ") })
    }

    /// An ATA attribute's raw value, for attributes that all vendors count alike.
    fn attribute(&self, id: u64) -> Option<u64> {
        self.ata_smart_attributes.table.iter().find(|attribute| attribute.id == id).map(|attribute| attribute.raw.value)
    }

    fn add(&self, page: &mut Page, label: &str) {
        let info = [label, &self.device.protocol, &self.model_name, &self.serial_number, &self.firmware_version];
        page.add(&SMART_INFO, info, Value::Integer(1));
        let none = Nvme::default();
        let nvme = self.nvme_smart_health_information_log.as_ref().unwrap_or(&none);
        let percent = |value: Option<u64>| value.map(|value| value as f64 / 100.0);
        let count = |value: Option<u64>| value.map(|value| value as f64);
        let data = |units: Option<u64>| units.map(|units| units as f64 * 512_000.0);
        let values: [(&'static Desc, Option<f64>); 14] = [
            (&SMART_HEALTHY, self.smart_status.as_ref().map(|status| f64::from(u8::from(status.passed)))),
            (&SMART_TEMPERATURE, self.temperature.as_ref().map(|temperature| temperature.current as f64)),
            (&SMART_POWER_ON, self.power_on_time.as_ref().map(|time| time.hours as f64 * 3600.0)),
            (&SMART_POWER_CYCLES, count(self.power_cycle_count)),
            (&SMART_USED, percent(nvme.percentage_used)),
            (&SMART_SPARE, percent(nvme.available_spare)),
            (&SMART_SPARE_THRESHOLD, percent(nvme.available_spare_threshold)),
            (&SMART_CRITICAL_WARNING, count(nvme.critical_warning)),
            (&SMART_MEDIA_ERRORS, count(nvme.media_errors.or_else(|| self.attribute(198)))),
            (&SMART_REALLOCATED, count(self.attribute(5))),
            (&SMART_PENDING, count(self.attribute(197))),
            (&SMART_UNSAFE_SHUTDOWNS, count(nvme.unsafe_shutdowns)),
            (&SMART_READ_BYTES, data(nvme.data_units_read)),
            (&SMART_WRITTEN_BYTES, data(nvme.data_units_written)),
        ];
        for (desc, value) in values {
            if let Some(value) = value {
                page.add(desc, [label], Value::Float(value));
            }
        }
    }
}
