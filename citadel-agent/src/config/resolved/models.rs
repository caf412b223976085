//! `model_monitoring`: models and their probes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::probing::{HEALTH_ENDPOINTS, HealthEndpoints, Own};
use crate::config::kind::{BOOLEAN, Describe, INTERVAL, Kind, Mapping, PORT, Scalar, Written, string_like};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Keys, keys_of, section};
use crate::config::tree::Node;
use crate::config::value::{self, expected, is_int, number_to_port};
use crate::config::yaml::Yaml;

section! {
    /// Models and their probes.
    pub struct Models {
        /// Configured models. Setting this key replaces the whole default; `{}` means none.
        ports: BTreeMap<u16, String> = default_ports(), PORTS;
        /// Ports on which any listener is discovered and measured as a model.
        discover: Option<RangeInclusive<u16>> = Some(11400..=11500), DISCOVER;
        /// Paths that the health probes request from each model. `auto` requests only paths known to cost the server no work; a list is
        /// requested as given; `[]` disables probing.
        health_endpoints: HealthEndpoints = HealthEndpoints::Auto, HEALTH_ENDPOINTS;
        /// Interval between probes.
        health_interval: Duration = Duration::from_secs(15), INTERVAL;
        /// Timeout of a probe.
        health_timeout: Duration = Duration::from_secs(5), INTERVAL;
        /// Whether to export `citadel_engine_*` from the engines' metrics pages, if these are among the probed paths.
        engine_metrics: bool = true, BOOLEAN;
        /// Whether to relay all metrics of the models' own `/metrics`, with the labels `model` and `port` added. The pages of all models
        /// are limited to 16 MiB of memory together (about 20 vLLM models); beyond that the largest are omitted, with
        /// `citadel_model_relay_success` 0.
        relay: bool = false, BOOLEAN;
        /// Whether to ask a discovered server for its model name at `/v1/models` if neither its unit nor its command line has one.
        ask_for_names: bool = true, BOOLEAN;
        /// Probe settings of individual models.
        #[key = "models"]
        own: BTreeMap<String, Own> = BTreeMap::new(), OWN;
    }
}

impl Models {
    /// Whether a port is measured: a configured one, or one in `discover`.
    #[must_use]
    pub fn measures(&self, port: u16) -> bool {
        self.ports.contains_key(&port) || self.discover.as_ref().is_some_and(|range| range.contains(&port))
    }

    /// All measured ports: the configured ones and those in `discover`.
    #[must_use]
    pub fn measured_ports(&self) -> BTreeSet<u16> {
        self.ports.keys().copied().chain(self.discover.clone().into_iter().flatten()).collect()
    }
}

/// The seven models of the operator's file.
fn default_ports() -> BTreeMap<u16, String> {
    let ports = [
        (11400, "mixtral"),
        (11401, "hermes"),
        (11402, "openchat"),
        (11403, "phi3"),
        (11404, "yi34b"),
        (11405, "coder"),
        (11500, "vision"),
    ];
    ports.map(|(port, name)| (port, name.to_owned())).into()
}

/// Model names and their ports; ports are unique.
struct Ports;

const PORTS: Ports = Ports;

impl Describe for Ports {
    fn text(&self) -> String {
        "mapping of model name to TCP port".to_owned()
    }

    fn schema(&self) -> Json {
        json!({"type": "object", "additionalProperties": PORT.schema()})
    }
}

impl Kind for Ports {
    type Value = BTreeMap<u16, String>;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let mut ports: BTreeMap<u16, (String, usize)> = BTreeMap::new();
        for entry in written.entries("a mapping of model names to ports, or {} for none", mistakes)? {
            let item = Written::of(&written.path, entry);
            if let Err(message) = model_name(&entry.key) {
                mistakes.push(entry.key_pos, &item.path, message);
            }
            let Some(port) = PORT.read(&item, mistakes) else { continue };
            if let Some((other, line)) = ports.get(&port) {
                item.mistake(format!("port {port} is already used by {other} (line {line})"), mistakes);
            } else {
                ports.insert(port, (entry.key.clone(), entry.key_pos.line));
            }
        }
        Some(ports.into_iter().map(|(port, (name, _))| (port, name)).collect())
    }

    fn write(&self, ports: &Self::Value) -> Yaml {
        Yaml::Map(ports.iter().map(|(port, name)| (name.clone(), PORT.write(port))).collect())
    }
}

const OWN: Mapping<Keys<Own>> = Mapping {
    text: "mapping of model names or port numbers to their settings",
    expected: "a mapping of names to their settings",
    most: usize::MAX,
    name: model_name,
    value: keys_of::<Own>(),
};

/// Maximum length of a model name: it becomes a label value and part of a unit name.
const MAX_NAME_LEN: usize = 128;

/// Validates a model name: it becomes a label value and part of a unit name, and people type it.
fn model_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("the model name is empty".to_owned());
    }
    if name.len() > MAX_NAME_LEN {
        return Err(format!("the model name is longer than {MAX_NAME_LEN} bytes"));
    }
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match first && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:+@".contains(c)) {
        true => Ok(name.to_owned()),
        false => Err(format!(
            "{} is not a model name: use letters, digits and . _ - / : + @, starting with a letter or digit",
            quoted(name)
        )),
    }
}

/// `"11400-11500"`, one port, or `none` (also `false`).
const DISCOVER: Scalar<Option<RangeInclusive<u16>>> = Scalar {
    text: "`\"FIRST-LAST\"`, one port, or `none`",
    schema: || json!({"anyOf": [PORT.schema(), {"const": false}, string_like(r"^\s*([Nn][Oo][Nn][Ee]|[0-9xo+]+\s*(-\s*[0-9xo+]+)?)\s*$")]}),
    read: discover,
    write: |range| match range {
        Some(range) => Yaml::Text(format!("{}-{}", range.start(), range.end())),
        None => Yaml::text("none"),
    },
};

fn discover(node: &Node) -> Result<Option<RangeInclusive<u16>>, String> {
    let what = r#"a range of ports such as "11400-11500", or none"#;
    match value::kind(node) {
        value::Kind::Bool(false) => Ok(None),
        value::Kind::Int(text) => number_to_port(text).map(|port| Some(port..=port)),
        value::Kind::Str(text) if text.trim().eq_ignore_ascii_case("none") => Ok(None),
        value::Kind::Str(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.trim(), last.trim());
            if !is_int(first) || !is_int(last) {
                return Err(expected(what, node));
            }
            let (first, last) = (number_to_port(first)?, number_to_port(last)?);
            if first > last {
                return Err(format!("the range {first}-{last} is empty; write \"{last}-{first}\""));
            }
            Ok(Some(first..=last))
        }
        _ => Err(expected(what, node)),
    }
}
