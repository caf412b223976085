//! Hardware: sensors, frequencies, memory errors (`Documentation/hwmon/sysfs-interface.rst`,
//! `Documentation/driver-api/thermal/sysfs-api.rst`, `Documentation/admin-guide/pm/cpufreq.rst`,
//! `Documentation/driver-api/edac.rst`).
//!
//! Reading a sensor accesses hardware, which can take a long time, so none of these is read by the scrape directly.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path};

use super::{add_signed, numbered, outcome};
use crate::host::Roots;
use crate::host::files::read_value;
use crate::host::skipped::{Skipped, is_unknown};
use crate::metrics::catalogue::field;
use crate::metrics::catalogue::hwmon::{HWMON, HWMON_CHIP_NAMES, HWMON_ENERGY, HWMON_SENSOR_LABEL};
use crate::metrics::catalogue::system::{
    COOLING_CURRENT, COOLING_MAX, CPU_GOVERNOR, CPUFREQ, EDAC_CORRECTABLE, EDAC_CSROW_CORRECTABLE,
    EDAC_CSROW_UNCORRECTABLE, EDAC_UNCORRECTABLE, THERMAL_ZONE_TEMP,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

/// Kinds of sensors that are read.
const SENSORS: [&str; 14] = [
    "vrm",
    "beep_enable",
    "update_interval",
    "in",
    "cpu",
    "fan",
    "pwm",
    "temp",
    "curr",
    "power",
    "energy",
    "humidity",
    "intrusion",
    "freq",
];

pub(in crate::sources) fn read_hwmon(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let class = roots.sys.join("class/hwmon");
    let Some(names) = skipped.list("class/hwmon", &class) else { return outcome(false) };
    let mut chips = BTreeSet::new();
    for name in &names {
        let folder = class.join(name);
        let mut sensors = Sensors::new();
        collect(&folder, &mut sensors, skipped);
        let device = folder.join("device");
        if device.is_dir() {
            collect(&device, &mut sensors, skipped);
        }
        let mut chip = chip_name(&folder, name);
        // A device can have two monitors, which would be one chip with duplicate series.
        if !chips.insert(chip.clone()) {
            chip = format!("{chip}_{}", clean(name));
        }
        if let Some(human) = read_value(&folder.join("name")).map(|name| clean(&name)).filter(|name| !name.is_empty()) {
            page.add(&HWMON_CHIP_NAMES, [&chip, &human], Value::Integer(1));
        }
        for (sensor, properties) in &sensors {
            add_sensor(page, &chip, sensor, properties, skipped);
        }
    }
    outcome(!names.is_empty())
}

/// The properties of each sensor of a chip.
pub(in crate::sources) type Sensors = BTreeMap<String, Properties>;

pub(in crate::sources) type Properties = BTreeMap<String, String>;

fn collect(folder: &Path, sensors: &mut Sensors, skipped: &mut Skipped) {
    for file in skipped.list("hwmon", folder).unwrap_or_default() {
        let Some((sensor, property)) = sensor_of(&file) else { continue };
        if let Some(value) = read_value(&folder.join(&file)) {
            sensors.entry(sensor).or_default().insert(property.to_owned(), value);
        }
    }
}

/// The sensor of a file, and the property.
pub(in crate::sources) fn sensor_of(file: &str) -> Option<(String, &str)> {
    let (kind, number, property) = split_name(file)?;
    SENSORS.contains(&kind).then(|| (format!("{kind}{number}"), property))
}

/// `temp1_crit_alarm` is of kind `temp`, number 1, property `crit_alarm`. A file without a number has number 0.
fn split_name(file: &str) -> Option<(&str, u32, &str)> {
    let digits = file.find(|c: char| c.is_ascii_digit()).unwrap_or(file.len());
    let (kind, rest) = file.split_at(digits);
    if rest.is_empty() {
        // Words with an underscore, such as `update_interval` or `beep_enable`, are complete kinds.
        return (!kind.is_empty()).then_some((kind, 0, ""));
    }
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, property) = rest.split_at(end);
    let property = if property.is_empty() { "" } else { property.strip_prefix('_')? };
    (!kind.is_empty()).then_some((kind, number.parse().ok()?, property))
}

/// A name that is stable across reboots: from the device's bus and name, or else the chip's own name.
fn chip_name(folder: &Path, hwmon: &str) -> String {
    if let Ok(device) = folder.join("device").canonicalize() {
        let names: Vec<String> = (device.components())
            .filter_map(|component| match component {
                Component::Normal(name) => Some(clean(&name.to_string_lossy())),
                _ => None,
            })
            .collect();
        match &names[..] {
            [.., bus, device] if !bus.is_empty() && !device.is_empty() => return format!("{bus}_{device}"),
            [.., device] if !device.is_empty() => return device.clone(),
            _ => {}
        }
    }
    let own = read_value(&folder.join("name")).map(|name| clean(&name)).unwrap_or_default();
    if own.is_empty() { clean(hwmon) } else { own }
}

/// Lower case, with underscores instead of characters that are not allowed in a metric name.
fn clean(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == ':' { c } else { '_' };
    name.to_lowercase().chars().map(allowed).collect::<String>().trim_matches('_').to_owned()
}

pub(in crate::sources) fn add_sensor(
    page: &mut Page,
    chip: &str,
    sensor: &str,
    properties: &Properties,
    skipped: &mut Skipped,
) {
    if let Some(label) = properties.get("label") {
        page.add(&HWMON_SENSOR_LABEL, [chip, sensor, label], Value::Integer(1));
    }
    let kind = sensor.trim_end_matches(|c: char| c.is_ascii_digit());
    for (property, text) in properties.iter().filter(|(property, _)| *property != "label") {
        let (name, factor) = name_and_factor(kind, property, properties.contains_key(""));
        // Other properties, some of which are text, are omitted: see the catalogue.
        let desc = if name == "energy_joule_total" { Some(&HWMON_ENERGY) } else { field(HWMON, &name) };
        let Some(desc) = desc else { continue };
        // A percentage, which node_exporter omits too.
        if is_unknown(text) || (kind, property.as_str()) == ("power", "accuracy") && text.ends_with('%') {
            continue;
        }
        let value = text.parse::<f64>().ok().map(|value| value * factor).filter(|value| value.is_finite());
        if let Some(value) = skipped.or_note(value, "hwmon", format_args!("{chip} {sensor} {property}: {text}")) {
            page.add(desc, [chip, sensor], Value::Float(value));
        }
    }
}

/// node_exporter's name of a property, and the factor that converts the kernel's number to its unit. Alarms of a sensor
/// with a unit are named and scaled like its values, except `alarm` itself.
fn name_and_factor(kind: &str, property: &str, has_plain: bool) -> (String, f64) {
    let name = match property {
        "" => kind.to_owned(),
        "input" if !has_plain => kind.to_owned(),
        property => format!("{kind}_{}", clean(property)),
    };
    let (suffix, factor) = match (kind, property) {
        ("beep_enable", _) => return ("beep_enabled".to_owned(), 1.0),
        ("vrm", _) => return ("voltage_regulator_version".to_owned(), 1.0),
        ("update_interval", _) => ("_seconds", 1e-3),
        (_, "fault" | "alarm") => ("", 1.0),
        (_, "beep") => ("_enabled", 1.0),
        ("in" | "cpu", _) => ("_volts", 1e-3),
        ("temp", property) if property != "type" => ("_celsius", 1e-3),
        ("curr", _) => ("_amps", 1e-3),
        ("energy", _) => ("_joule_total", 1e-6),
        ("power", "accuracy") => ("", 1e-6),
        ("power", "average_interval" | "average_interval_min" | "average_interval_max") => ("_seconds", 1e-3),
        ("power", _) => ("_watt", 1e-6),
        ("humidity", _) => ("", 1e-6),
        ("fan", "input" | "min" | "max" | "target") => ("_rpm", 1.0),
        _ => ("", 1.0),
    };
    (name + suffix, factor)
}

pub(in crate::sources) fn read_thermal(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let class = roots.sys.join("class/thermal");
    let Some(zones) = numbered(&class, "thermal_zone", skipped) else { return outcome(false) };
    for (number, path) in &zones {
        // Reading a zone whose sensor is disabled fails.
        if let (Some(kind), Some(millidegrees)) =
            (read_value(&path.join("type")), skipped.number::<i64>("temp", &path.join("temp")))
        {
            page.add(&THERMAL_ZONE_TEMP, [&number.to_string(), &kind], Value::Float(millidegrees as f64 / 1e3));
        }
    }
    let devices = numbered(&class, "cooling_device", skipped).unwrap_or_default();
    for (number, path) in &devices {
        let Some(kind) = read_value(&path.join("type")) else { continue };
        for (file, desc) in [("cur_state", &COOLING_CURRENT), ("max_state", &COOLING_MAX)] {
            if let Some(state) = skipped.number::<i64>(file, &path.join(file)) {
                add_signed(page, desc, [&number.to_string(), &kind], state);
            }
        }
    }
    outcome(!zones.is_empty() || !devices.is_empty())
}

pub(in crate::sources) fn read_cpufreq(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let mut found = false;
    for (number, path) in numbered(&roots.sys.join("devices/system/cpu"), "cpu", skipped).unwrap_or_default() {
        let (cpu, path) = (number.to_string(), path.join("cpufreq"));
        for field in CPUFREQ {
            let hertz = |text: &str| text.parse::<u64>().ok()?.checked_mul(1000);
            if let Some(hertz) = skipped.value(field.key, &path.join(field.key), hertz) {
                found = true;
                page.add(&field.desc, [&cpu], Value::Integer(hertz));
            }
        }
        if let Some(governor) = read_value(&path.join("scaling_governor")) {
            let available = read_value(&path.join("scaling_available_governors")).unwrap_or_default();
            for name in available.split_ascii_whitespace() {
                page.add(&CPU_GOVERNOR, [&cpu, name], Value::Integer(u64::from(name == governor)));
            }
        }
    }
    outcome(found)
}

pub(in crate::sources) fn read_edac(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(controllers) = numbered(&roots.sys.join("devices/system/edac/mc"), "mc", skipped) else {
        return outcome(false);
    };
    for (number, path) in &controllers {
        let controller = number.to_string();
        for (file, desc) in [("ce_count", &EDAC_CORRECTABLE), ("ue_count", &EDAC_UNCORRECTABLE)] {
            if let Some(count) = skipped.number(file, &path.join(file)) {
                page.add(desc, [&controller], Value::Integer(count));
            }
        }
        let rows = numbered(path, "csrow", skipped).unwrap_or_default();
        let mut row = |folder: &Path, csrow: &str, files: [&'static str; 2]| {
            for (file, desc) in files.into_iter().zip([&EDAC_CSROW_CORRECTABLE, &EDAC_CSROW_UNCORRECTABLE]) {
                if let Some(count) = skipped.number(file, &folder.join(file)) {
                    page.add(desc, [&controller, csrow], Value::Integer(count));
                }
            }
        };
        // Errors whose row is unknown to the controller.
        row(path, "unknown", ["ce_noinfo_count", "ue_noinfo_count"]);
        for (csrow, folder) in rows {
            row(&folder, &csrow.to_string(), ["ce_count", "ue_count"]);
        }
    }
    outcome(!controllers.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_split_into_kind_number_and_property() {
        assert_eq!(split_name("temp1_crit_alarm"), Some(("temp", 1, "crit_alarm")));
        assert_eq!(split_name("pwm2"), Some(("pwm", 2, "")));
        assert_eq!(split_name("update_interval"), Some(("update_interval", 0, "")));
        for file in ["", "1", "temp99999999999_input", "temp1input"] {
            assert_eq!(split_name(file), None, "{file}");
        }
    }

    #[test]
    fn every_name_has_its_unit() {
        let name = |kind, property| name_and_factor(kind, property, false);
        assert_eq!(name("temp", "input"), ("temp_celsius".to_owned(), 1e-3));
        assert_eq!(name("temp", "crit_alarm"), ("temp_crit_alarm_celsius".to_owned(), 1e-3));
        assert_eq!(name("temp", "alarm"), ("temp_alarm".to_owned(), 1.0));
        assert_eq!(name("fan", "input"), ("fan_rpm".to_owned(), 1.0));
        assert_eq!(name("power", "average"), ("power_average_watt".to_owned(), 1e-6));
        assert_eq!(name("energy", "input"), ("energy_joule_total".to_owned(), 1e-6));
        assert_eq!(name_and_factor("pwm", "input", true).0, "pwm_input");
    }

    #[test]
    fn what_a_driver_does_not_know_is_no_fault_and_what_is_no_number_is() {
        let (mut page, mut skipped) = (Page::default(), Skipped::default());
        let properties =
            [("accuracy", "90.0%"), ("average_max", "unknown"), ("model_number", "X"), ("average", "5000000")];
        let properties = properties.map(|(property, value)| (property.to_owned(), value.to_owned()));
        add_sensor(&mut page, "c", "power1", &properties.into(), &mut skipped);
        assert!(skipped.is_empty() && page.families.len() == 1);
        add_sensor(&mut page, "c", "temp1", &[("input".to_owned(), "nan".to_owned())].into(), &mut skipped);
        assert_eq!((skipped.summary().as_str(), page.families.len()), ("hwmon: c temp1 input: nan", 1));
    }

    #[test]
    fn names_are_cleaned() {
        assert_eq!(clean("0000:01:00.0"), "0000:01:00_0");
        assert_eq!(clean("_Core Temp-"), "core_temp");
        assert_eq!(clean("__"), "");
    }
}
