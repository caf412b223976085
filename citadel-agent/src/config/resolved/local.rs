//! `local_collection`: listeners and logging.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tracing::Level;

use crate::config::kind::{ABSOLUTE_PATH, HOST, INTERVAL, List, Optional, PORT, Scalar, Words, string_like};
use crate::config::mistakes::{Mistakes, nearest, quoted};
use crate::config::section::{Section, part, section};
use crate::config::tree::Node;
use crate::config::value::{Kind, expected, kind, string};
use crate::config::yaml::Yaml;

section! {
    /// Listeners and logging.
    pub struct Local [check different_ports] {
        /// Address that both listeners bind to. `"::"` also accepts IPv4; a host without IPv6 falls back to `0.0.0.0`.
        listen_address: IpAddr = Ipv6Addr::UNSPECIFIED.into(), ADDRESS;
        /// Port of the metrics pages.
        metrics_port: u16 = 8000, PORT;
        /// Port of `/health`, `/ready` and `/status`.
        health_check_port: u16 = 8001, PORT;
        /// Prometheus web configuration file with TLS, client certificates and passwords for both ports. Reloaded when it, or a file
        /// that it names, changes.
        web_config_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Additional host names under which browsers may open the overview page and `/status` without TLS. IP addresses, `localhost` and
        /// the host's own names are always allowed. Other names get 421, which protects against DNS rebinding.
        allowed_hosts: Vec<String> = Vec::new(), List { of: HOST, what: "host names", most: 64 };
        /// Log level of the agent; libraries log at `INFO` at most. The environment variable `RUST_LOG` overrides it.
        log_level: Level = Level::INFO, LEVEL;
        /// Format of log lines on stderr. `auto`: text on a terminal and for the systemd journal (with the priority of each line), JSON
        /// otherwise, one object per line. Read only at startup.
        log_format: LogFormat = LogFormat::Auto, Words(LogFormat::WORDS);
        /// Interval for sources that are not read at each scrape.
        collection_interval: Duration = Duration::from_secs(60), INTERVAL;
        /// Unix socket on which the agent takes commands such as `citadel-agent reload` and `gpu`. Read only at startup.
        control_socket: PathBuf = "/run/citadel-agent/control.sock".into(), ABSOLUTE_PATH;
        /// Paths of the metrics pages; `/metrics` always has all metrics.
        endpoints: Endpoints = Endpoints::default(), part::<Endpoints>();
    }
}

/// Format of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Text on a terminal and for the journal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// JSON, one object per line.
    Json,
}

impl LogFormat {
    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("text", Self::Text), ("json", Self::Json)];
}

section! {
    /// Paths of the metrics pages; `/metrics` always has all metrics.
    pub struct Endpoints [check different_paths] {
        /// Path of the host metrics.
        #[key = "system_metrics"]
        system: String = "/metrics/system".to_owned(), PAGE_PATH;
        /// Path of the GPU metrics.
        #[key = "gpu_metrics"]
        gpu: String = "/metrics/gpu".to_owned(), PAGE_PATH;
        /// Path of the model metrics.
        #[key = "model_metrics"]
        models: String = "/metrics/models".to_owned(), PAGE_PATH;
        /// Path of the storage metrics.
        #[key = "storage_metrics"]
        storage: String = "/metrics/storage".to_owned(), PAGE_PATH;
        /// Path of the service metrics.
        #[key = "service_metrics"]
        services: String = "/metrics/services".to_owned(), PAGE_PATH;
    }
}

/// The keys of the agent's own ports.
const PORTS: [&str; 2] = ["metrics_port", "health_check_port"];

impl Local {
    /// The agent's own ports with their keys, if they are valid.
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
    // The later of the two in the file is the error, as with all duplicates.
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
    // In file order, defaults first: the later of two equal paths is the error.
    pages.sort_by_key(|(name, _)| section.pos_of(name));
    let mut taken = BTreeMap::from([
        ("/metrics", "the page with all metrics".to_owned()),
        ("/last-hour", "the plots of the overview page".to_owned()),
        ("/requests", "the requests on the overview page".to_owned()),
    ]);
    for (name, path) in pages {
        if !section.is_right(name, mistakes) {
            continue;
        }
        if let Some(owner) = taken.get(path.as_str()) {
            section.mistake(Some(name), format!("\"{path}\" is already used by {owner}"), mistakes);
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
        // JSON Schema has no case-insensitive patterns.
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

/// The path of one of the agent's pages. Only letters, digits and `._~-`: clients would have to escape other
/// characters, or the router would interpret them.
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
        "" => Err("\"/\" is the overview page; choose another path".to_owned()),
        _ if rest.split('/').all(segment) => Ok(path.to_owned()),
        _ => {
            Err(format!("{} is not a path of letters, digits, '.', '_', '~' and '-' between single '/'", quoted(path)))
        }
    }
}
