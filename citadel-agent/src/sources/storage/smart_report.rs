//! Parses smartctl's JSON output. Pure.
//!
//! It is read leaf by leaf: disks omit what they do not know, bridges and RAID controllers return odd values, and
//! smartctl gains fields with each release. A missing or null leaf is absent on the page; one of another type is
//! skipped and recorded.

use serde_json::Value as Json;

use crate::host::skipped::Skipped;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::storage::{
    SMART_CRITICAL_WARNING, SMART_HEALTHY, SMART_INFO, SMART_MEDIA_ERRORS, SMART_PENDING, SMART_POWER_CYCLES,
    SMART_POWER_ON, SMART_READ_BYTES, SMART_REALLOCATED, SMART_SPARE, SMART_SPARE_THRESHOLD, SMART_TEMPERATURE,
    SMART_UNSAFE_SHUTDOWNS, SMART_USED, SMART_WRITTEN_BYTES,
};
use crate::metrics::family::{Page, Value};

/// NVMe counts data in units of 1000 * 512 bytes.
const DATA_UNIT: f64 = 512_000.0;

/// A disk in the output of `smartctl --scan --json`, which opens no disks.
#[derive(Debug)]
pub(in crate::sources) struct Device {
    pub(super) name: String,
    /// The argument of `--device`.
    pub(super) kind: String,
}

/// All listed disks.
pub(in crate::sources) fn devices(output: &[u8], skipped: &mut Skipped) -> Result<Vec<Device>, String> {
    let json = parse(output)?;
    let listed = Leaf::of(&json, &mut *skipped).list(&["devices"]).unwrap_or_default();
    let devices = listed.iter().filter_map(|entry| {
        let text = |name: &str| entry.get(name)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let device = text("name").zip(text("type")).map(|(name, kind)| Device { name, kind });
        skipped.or_note(device, "smartctl devices", entry)
    });
    Ok(devices.collect())
}

fn parse(output: &[u8]) -> Result<Json, String> {
    serde_json::from_slice(output).map_err(|error| format!("cannot parse the JSON output of smartctl: {error}"))
}

/// The exported part of `smartctl --json --all` for a disk.
#[derive(Debug)]
pub(in crate::sources) struct Report {
    asleep: bool,
    protocol: String,
    model: String,
    serial: String,
    firmware: String,
    values: Vec<(&'static Desc, f64)>,
}

impl Report {
    /// The exit status requested from smartctl for a disk in standby. Bit 0 (invalid command line) ends it before any
    /// disk is queried, so together with bit 2 it cannot occur otherwise.
    pub(super) const ASLEEP: u64 = 0b101;

    /// Parses a report; an error means that the disk could not be opened: bits 0 and 1 of the exit status.
    pub(in crate::sources) fn parse(output: &[u8], skipped: &mut Skipped) -> Result<Self, String> {
        let json = parse(output)?;
        let mut leaf = Leaf::of(&json, skipped);
        let status = leaf.count(&["smartctl", "exit_status"]).unwrap_or_default() as u64;
        let asleep = status == Self::ASLEEP;
        if status & 0b11 != 0 && !asleep {
            let messages = leaf.list(&["smartctl", "messages"]).unwrap_or_default();
            let said: Vec<&str> = messages.iter().filter_map(|message| message.get("string")?.as_str()).collect();
            return Err(if said.is_empty() { "smartctl cannot open the device".to_owned() } else { said.join(", ") });
        }
        Ok(Self {
            asleep,
            protocol: leaf.text(&["device", "protocol"]).unwrap_or_default(),
            model: leaf.model(),
            serial: leaf.text(&["serial_number"]).unwrap_or_default(),
            firmware: leaf.first_text(&["firmware_version", "scsi_revision", "revision"]).unwrap_or_default(),
            values: leaf.values(),
        })
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep
    }

    pub(in crate::sources) fn add(&self, page: &mut Page, label: &str) {
        page.add(&SMART_INFO, [label, &self.protocol, &self.model, &self.serial, &self.firmware], Value::Integer(1));
        for &(desc, value) in &self.values {
            page.add(desc, [label], Value::Float(value));
        }
    }
}

/// Reads leaves by their path.
struct Leaf<'a, 's> {
    json: &'a Json,
    skipped: &'s mut Skipped,
}

impl<'a, 's> Leaf<'a, 's> {
    fn of(json: &'a Json, skipped: &'s mut Skipped) -> Self {
        Self { json, skipped }
    }

    /// `None`: it is missing, null, or rejected by `take`, which is recorded.
    fn at<T>(&mut self, path: &[&str], take: impl FnOnce(&'a Json) -> Option<T>) -> Option<T> {
        let mut json = self.json;
        for name in path {
            match json.get(name) {
                Some(Json::Null) => return None,
                Some(inner) => json = inner,
                // It exists, but is not an object with such a field.
                None if !json.is_object() => {
                    self.skipped.note("smartctl", format_args!("{}: {json}", path.join(".")));
                    return None;
                }
                None => return None,
            }
        }
        self.skipped.or_note(take(json), "smartctl", format_args!("{}: {json}", path.join(".")))
    }

    fn list(&mut self, path: &[&str]) -> Option<&'a [Json]> {
        self.at(path, |json| json.as_array().map(Vec::as_slice))
    }

    fn text(&mut self, path: &[&str]) -> Option<String> {
        self.at(path, |json| json.as_str().map(str::to_owned))
    }

    /// The first of these fields with a value.
    fn first_text(&mut self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.text(&[name]).filter(|text| !text.is_empty()))
    }

    /// SAS disks have vendor and product; smartctl before 7.4 uses other names, and joins them since 7.2.
    fn model(&mut self) -> String {
        if let Some(model) = self.first_text(&["model_name", "scsi_model_name"]) {
            return model;
        }
        let (vendor, product) =
            (self.first_text(&["scsi_vendor", "vendor"]), self.first_text(&["scsi_product", "product"]));
        let parts: Vec<String> = vendor.into_iter().chain(product).collect();
        parts.join(" ").trim().to_owned()
    }

    /// A number of any size and sign.
    fn number(&mut self, path: &[&str]) -> Option<f64> {
        self.at(path, |json| json.as_f64().filter(|number| number.is_finite()))
    }

    /// A count. NVMe's have 128 bits.
    fn count(&mut self, path: &[&str]) -> Option<f64> {
        self.at(path, |json| json.as_f64().filter(|number| number.is_finite() && *number >= 0.0))
    }

    fn values(&mut self) -> Vec<(&'static Desc, f64)> {
        // The log page of the NVMe specification; percentages, and data in units.
        let mut nvme =
            |name, factor: f64| self.count(&["nvme_smart_health_information_log", name]).map(|it| it * factor);
        let log = [
            (&SMART_USED, nvme("percentage_used", 0.01)),
            (&SMART_SPARE, nvme("available_spare", 0.01)),
            (&SMART_SPARE_THRESHOLD, nvme("available_spare_threshold", 0.01)),
            (&SMART_CRITICAL_WARNING, nvme("critical_warning", 1.0)),
            (&SMART_UNSAFE_SHUTDOWNS, nvme("unsafe_shutdowns", 1.0)),
            (&SMART_READ_BYTES, nvme("data_units_read", DATA_UNIT)),
            (&SMART_WRITTEN_BYTES, nvme("data_units_written", DATA_UNIT)),
        ];
        let media_errors = nvme("media_errors", 1.0);
        let attributes = self.list(&["ata_smart_attributes", "table"]).unwrap_or_default();
        // Attributes with the same meaning for all vendors.
        let mut attribute = |id: u64| {
            let found = attributes.iter().find(|attribute| attribute.get("id").and_then(Json::as_u64) == Some(id))?;
            Leaf::of(found, self.skipped).count(&["raw", "value"])
        };
        let ata = [
            (&SMART_REALLOCATED, attribute(5)),
            (&SMART_PENDING, attribute(197)),
            (&SMART_MEDIA_ERRORS, media_errors.or_else(|| attribute(198))),
        ];
        let passed = self.at(&["smart_status", "passed"], Json::as_bool);
        let both = [
            (&SMART_HEALTHY, passed.map(|passed| f64::from(u8::from(passed)))),
            (&SMART_TEMPERATURE, self.number(&["temperature", "current"])),
            (&SMART_POWER_ON, self.count(&["power_on_time", "hours"]).map(|hours| hours * 3600.0)),
            (&SMART_POWER_CYCLES, self.count(&["power_cycle_count"])),
        ];
        let all = log.into_iter().chain(ata).chain(both);
        all.filter_map(|(desc, value)| Some((desc, value.filter(|value| value.is_finite())?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> (Report, Skipped) {
        let mut skipped = Skipped::default();
        (Report::parse(json.as_bytes(), &mut skipped).unwrap(), skipped)
    }

    fn value(report: &Report, desc: &'static Desc) -> Option<f64> {
        report.values.iter().find(|(own, _)| std::ptr::eq(*own, desc)).map(|(_, value)| *value)
    }

    #[test]
    fn a_leaf_that_is_absent_or_null_is_absent_on_the_page() {
        for odd in [
            r#""temperature":{}"#,
            r#""temperature":null"#,
            r#""temperature":{"current":null}"#,
            r#""smart_status":{"nvme":{"value":0}}"#,
            r#""power_on_time":{"minutes":7}"#,
            r#""model_name":null,"serial_number":null,"firmware_version":null"#,
            r#""device":null"#,
            r#""ata_smart_attributes":{"table":[{"id":5,"raw":{}},{"id":null},7]}"#,
        ] {
            let (report, skipped) = read(&format!(r#"{{"power_cycle_count":31,{odd}}}"#));
            assert_eq!(report.values.len(), 1, "{odd}");
            assert_eq!(value(&report, &SMART_POWER_CYCLES), Some(31.0));
            assert!(skipped.is_empty(), "{odd}: {}", skipped.summary());
        }
    }

    #[test]
    fn a_leaf_of_another_type_is_noted_and_the_others_stay() {
        for odd in [
            r#""temperature":{"current":"33"}"#,
            r#""temperature":33"#,
            r#""smart_status":{"passed":1}"#,
            r#""power_on_time":{"hours":-1}"#,
            r#""serial_number":7"#,
            r#""nvme_smart_health_information_log":[]"#,
            r#""ata_smart_attributes":{"table":{}}"#,
            r#""ata_smart_attributes":{"table":[{"id":5,"raw":{"value":[]}}]}"#,
        ] {
            let (report, skipped) = read(&format!(r#"{{"power_cycle_count":31,{odd}}}"#));
            assert_eq!(report.values.len(), 1, "{odd}");
            assert!(!skipped.is_empty(), "{odd}");
        }
    }

    #[test]
    fn numbers_are_read_whatever_their_size() {
        let json = r#"{"temperature":{"current":-4.5},"power_on_time":{"hours":36893488147419103232},
            "nvme_smart_health_information_log":{"data_units_read":340282366920938463463374607431768211455,"media_errors":1.0}}"#;
        let (report, skipped) = read(json);
        assert_eq!(value(&report, &SMART_TEMPERATURE), Some(-4.5));
        assert_eq!(value(&report, &SMART_POWER_ON), Some(2f64.powi(65) * 3600.0));
        assert_eq!(value(&report, &SMART_READ_BYTES), Some(2f64.powi(128) * 512_000.0));
        assert_eq!(value(&report, &SMART_MEDIA_ERRORS), Some(1.0));
        assert!(skipped.is_empty(), "{}", skipped.summary());
    }

    #[test]
    fn sas_disks_have_a_model_and_a_firmware() {
        let model = |json: &str| {
            let (report, _) = read(json);
            (report.model, report.firmware)
        };
        let expected = ("SEAGATE ST600MM0006".to_owned(), "0003".to_owned());
        assert_eq!(model(r#"{"scsi_vendor":"SEAGATE","scsi_product":"ST600MM0006","scsi_revision":"0003"}"#), expected);
        assert_eq!(model(r#"{"vendor":"SEAGATE","product":"ST600MM0006","revision":"0003"}"#), expected);
        let newer = r#"{"scsi_vendor":"SEAGATE","scsi_product":"X","scsi_model_name":"SEAGATE ST600MM0006","scsi_revision":"0003"}"#;
        assert_eq!(model(newer), expected);
    }

    #[test]
    fn a_disk_that_cannot_be_opened_is_an_error_that_says_why() {
        let parse = |json: &str| Report::parse(json.as_bytes(), &mut Skipped::default()).map(|report| report.asleep);
        let error = r#"{"smartctl":{"exit_status":2,"messages":[{"string":"open failed"},7]}}"#;
        assert_eq!(parse(error), Err("open failed".to_owned()));
        assert_eq!(parse(r#"{"smartctl":{"exit_status":1}}"#), Err("smartctl cannot open the device".to_owned()));
        assert_eq!(parse(r#"{"smartctl":{"exit_status":5}}"#), Ok(true));
        assert_eq!(parse(r#"{"smartctl":{"exit_status":64}}"#), Ok(false));
        assert!(parse("[").is_err());
    }

    #[test]
    fn a_disk_without_a_name_is_noted_and_the_others_are_listed() {
        let mut skipped = Skipped::default();
        let json =
            br#"{"devices":[{"name":"/dev/sda","type":"sat"},{"name":null,"type":"sat"},{"name":"/dev/sdb"},7]}"#;
        let found = devices(json, &mut skipped).unwrap();
        assert_eq!(found.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["/dev/sda"]);
        assert_eq!(skipped.count(), 3);
        assert!(devices(b"{}", &mut skipped).unwrap().is_empty());
    }
}
