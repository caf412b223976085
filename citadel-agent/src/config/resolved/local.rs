//! `local_collection`: what is served, where.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tracing::Level;

use crate::config::kind::{ABSOLUTE_PATH, INTERVAL, PORT, Scalar, Words, string_like};
use crate::config::mistakes::{Mistakes, nearest, quoted};
use crate::config::section::{Section, part, section};
use crate::config::tree::Node;
use crate::config::value::{Kind, expected, kind, string};
use crate::config::yaml::Yaml;

section! {
    /// What is served, where.
    pub struct Local [check different_ports] {
        /// Address that both listeners bind. `"::"` takes IPv4 as well; a host without IPv6 falls back to `0.0.0.0`.
        listen_address: IpAddr = Ipv6Addr::UNSPECIFIED.into(), ADDRESS;
        /// Port of the metrics pages.
        metrics_port: u16 = 8000, PORT;
        /// Port of `/health`, `/ready` and `/status`.
        health_check_port: u16 = 8001, PORT;
        /// Level of the agent's own log; libraries stay at `INFO` or quieter. The environment variable `RUST_LOG` overrides it.
        log_level: Level = Level::INFO, LEVEL;
        /// How log lines are written to stderr. `auto`: text on a terminal and for systemd's journal, which also gets the priority of
        /// each line; JSON, one object a line, to anything else. Read when the agent starts.
        log_format: LogFormat = LogFormat::Auto, Words(LogFormat::WORDS);
        /// How often sources that are not read at each scrape are read.
        collection_interval: Duration = Duration::from_secs(60), INTERVAL;
        /// Unix socket by which `citadel-agent reload` and `gpu` talk to the running agent; read when the agent starts.
        control_socket: PathBuf = "/run/citadel-agent/control.sock".into(), ABSOLUTE_PATH;
        /// Paths of the metrics pages; `/metrics` always carries all.
        endpoints: Endpoints = Endpoints::default(), part::<Endpoints>();
    }
}

/// How the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Text for a person or the journal, JSON for anything else.
    Auto,
    /// Text.
    Text,
    /// JSON, one object a line.
    Json,
}

impl LogFormat {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

section! {
    /// Paths of the metrics pages; `/metrics` always carries all.
    pub struct Endpoints [check different_paths] {
        /// Page of the host metrics.
        #[key = "system_metrics"]
        system: String = "/metrics/system".to_owned(), PAGE_PATH;
        /// Page of the GPU metrics.
        #[key = "gpu_metrics"]
        gpu: String = "/metrics/gpu".to_owned(), PAGE_PATH;
        /// Page of the per-model metrics.
        #[key = "model_metrics"]
        models: String = "/metrics/models".to_owned(), PAGE_PATH;
        /// Page of the storage metrics.
        #[key = "storage_metrics"]
        storage: String = "/metrics/storage".to_owned(), PAGE_PATH;
        /// Page of the service metrics.
        #[key = "service_metrics"]
        services: String = "/metrics/services".to_owned(), PAGE_PATH;
    }
}

/// The keys of the ports that the agent itself listens on.
const PORTS: [&str; 2] = ["metrics_port", "health_check_port"];

impl Local {
    /// The ports that the agent itself listens on, each with its key, of those that could be read.
    pub(super) fn own_ports(&self, section: &Section<'_>, mistakes: &Mistakes) -> Vec<(&'static str, u16)> {
        PORTS
            .into_iter()
            .zip([self.metrics_port, self.health_check_port])
            .filter(|(name, _)| section.is_right(name, mistakes))
            .collect()
    }
}

fn different_ports(local: &Local, section: &Section<'_>, mistakes: &mut Mistakes) {
    if local.metrics_port != local.health_check_port || local.own_ports(section, mistakes).len() < 2 {
        return;
    }
    // The later of the two in the file is the mistake, as with everything that is given twice.
    let [metrics, health] = PORTS.map(|name| section.pos_of(name));
    let (name, other) = if metrics > health { (PORTS[0], PORTS[1]) } else { (PORTS[1], PORTS[0]) };
    let default = if metrics.is_none() || health.is_none() { " (its default)" } else { "" };
    let message = format!("{} is also the {other}{default}; they must differ", local.metrics_port);
    section.mistake(Some(name), message, mistakes);
}

fn different_paths(endpoints: &Endpoints, section: &Section<'_>, mistakes: &mut Mistakes) {
    let Endpoints { system, gpu, models, storage, services } = endpoints;
    let mut pages = [
        ("system_metrics", system),
        ("gpu_metrics", gpu),
        ("model_metrics", models),
        ("storage_metrics", storage),
        ("service_metrics", services),
    ];
    // In the order of the file, defaults first: the later of two equal paths is the mistake.
    pages.sort_by_key(|(name, _)| section.pos_of(name));
    let mut taken = BTreeMap::from([("/metrics", "the page that carries all metrics".to_owned())]);
    for (name, path) in pages {
        if !section.is_right(name, mistakes) {
            continue;
        }
        if let Some(owner) = taken.get(path.as_str()) {
            section.mistake(Some(name), format!("\"{path}\" is taken by {owner}"), mistakes);
        } else {
            let default = if section.has(name) { "" } else { " (its default)" };
            taken.insert(path, format!("{name}{default}"));
        }
    }
}

const ADDRESS: Scalar<IpAddr> = Scalar {
    text: "IP address in quotes",
    schema: || string_like("^[0-9A-Fa-f.:]+$"),
    read: |node| match kind(node) {
        Kind::Str(text) => text.parse().map_err(|_| expected(r#"an IP address such as "::" or "127.0.0.1""#, node)),
        _ => Err(expected("an IP address in quotes", node)),
    },
    write: Yaml::text,
};

const LEVEL: Scalar<Level> = Scalar {
    text: "`TRACE`, `DEBUG`, `INFO`, `WARN` or `WARNING`, `ERROR`; any case",
    schema: || {
        // JSON Schema has no patterns without case.
        let letter = |c: char| format!("[{}{}]", c, c.to_ascii_lowercase());
        let names: Vec<String> = LEVELS.map(|(name, _)| name.chars().map(letter).collect()).to_vec();
        json!({"anyOf": [
            {"enum": LEVELS.map(|(name, _)| name)},
            {"type": "string", "pattern": format!("^({})$", names.join("|"))},
        ]})
    },
    read: level,
    write: Yaml::text,
};

const LEVELS: [(&str, Level); 6] = [
    ("TRACE", Level::TRACE),
    ("DEBUG", Level::DEBUG),
    ("INFO", Level::INFO),
    ("WARN", Level::WARN),
    ("WARNING", Level::WARN),
    ("ERROR", Level::ERROR),
];

fn level(node: &Node) -> Result<Level, String> {
    let what = "TRACE, DEBUG, INFO, WARN or ERROR";
    let Kind::Str(text) = kind(node) else {
        return Err(expected(what, node));
    };
    LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, level)| *level).ok_or_else(|| {
        let near = nearest(text, LEVELS.map(|(name, _)| name));
        let hint = near.map_or(String::new(), |name| format!("; did you mean {name}?"));
        format!("{}{hint}", expected(what, node))
    })
}

/// The path of one of our own pages. Letters, digits and `._~-` only: a client would have to escape anything else, or the
/// router gives it a meaning.
const PAGE_PATH: Scalar<String> =
    Scalar { text: "path", schema: || string_like("^(/[A-Za-z0-9._~-]+)+$"), read: page_path, write: Yaml::text };

fn page_path(node: &Node) -> Result<String, String> {
    let path = string(node)?;
    let Some(rest) = path.strip_prefix('/') else {
        return Err(format!("{} does not start with '/'", quoted(path)));
    };
    let segment = |segment: &str| {
        !segment.is_empty()
            && segment.chars().all(|c| c.is_ascii_alphanumeric() || "._~-".contains(c))
            && segment != "."
            && segment != ".."
    };
    match rest {
        "" => Err("\"/\" is the index page; choose another path".to_owned()),
        _ if rest.split('/').all(segment) => Ok(path.to_owned()),
        _ => {
            Err(format!("{} is not a path of letters, digits, '.', '_', '~' and '-' between single '/'", quoted(path)))
        }
    }
}
