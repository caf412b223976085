//! How models are probed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::config::kind::{
    ABSOLUTE_PATH, Describe, HOST, INTERVAL, Kind, List, Mapping, Optional, Scalar, TEXT, Words, Written, string_like,
};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Section, part, section};
use crate::config::tree::Node;
use crate::config::value::{self, string, text};
use crate::config::yaml::Yaml;

section! {
    /// What of one model is probed otherwise; `None`: as of all others.
    pub struct Own {
        /// Other paths for the model of this name, or on the port of this number. Absent here and below: as for all models.
        health_endpoints: Option<HealthEndpoints> = None, Optional(HEALTH_ENDPOINTS);
        /// Another interval.
        health_interval: Option<Duration> = None, Optional(INTERVAL);
        /// Another timeout.
        health_timeout: Option<Duration> = None, Optional(INTERVAL);
        /// How the server lets the agent in.
        #[key = ""]
        access: Access = Access::default(), part::<Access>();
    }
}

section! {
    /// How a model's server lets the agent in.
    pub struct Access [check one_kind_of_trust] {
        /// Whether the server speaks TLS; `auto` finds out.
        scheme: Scheme = Scheme::Auto, Words(Scheme::WORDS);
        /// The name by which the server is asked, and that its certificate must be for; absent: `localhost`.
        server_name: Option<String> = None, Optional(HOST);
        /// CA certificates to trust, PEM.
        ca_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// The server's own certificate, PEM: no other is accepted.
        certificate_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// File that holds an API key, read for each request and sent as a bearer token. Over TLS it is sent only to a server whose
        /// certificate is verified: by one of the two above, else by the host's CAs.
        api_key_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Further header fields of the probes.
        headers: BTreeMap<String, String> = BTreeMap::new(), HEADERS;
    }
}

impl Access {
    /// Whether requests carry what others must not see.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.api_key_file.is_some() || !self.headers.is_empty()
    }
}

fn one_kind_of_trust(access: &Access, section: &Section<'_>, mistakes: &mut Mistakes) {
    let (ca, certificate) = (access.ca_file.is_some(), access.certificate_file.is_some());
    if ca && certificate {
        let message = "is one of two: ca_file trusts whatever a CA has signed, certificate_file this certificate alone";
        section.mistake(Some("certificate_file"), message, mistakes);
    }
    if access.scheme == Scheme::Http && (ca || certificate) {
        section.mistake(Some("scheme"), "is http, which has no certificate to verify", mistakes);
    }
}

/// Whether a server speaks TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheme {
    /// As it turns out.
    #[default]
    Auto,
    /// It does not.
    Http,
    /// It does.
    Https,
}

impl Scheme {
    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("http", Self::Http), ("https", Self::Https)];
}

/// Which paths are asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HealthEndpoints {
    /// What the server answers without work.
    Auto,
    /// These.
    Listed(Vec<String>),
}

/// `auto`, or a list of paths.
pub(super) struct HealthEndpointsKind;

pub(super) const HEALTH_ENDPOINTS: HealthEndpointsKind = HealthEndpointsKind;

const PATHS: List<Scalar<String>> = List { of: PROBE_PATH, what: "paths", most: 16 };

impl Describe for HealthEndpointsKind {
    fn text(&self) -> String {
        format!("`auto`, or a {}", PATHS.text())
    }

    fn schema(&self) -> Json {
        json!({"anyOf": [{"const": "auto"}, PATHS.schema()]})
    }
}

impl Kind for HealthEndpointsKind {
    type Value = HealthEndpoints;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<HealthEndpoints> {
        match value::kind(written.node) {
            value::Kind::Str("auto") => Some(HealthEndpoints::Auto),
            _ => PATHS.read(written, mistakes).map(HealthEndpoints::Listed),
        }
    }

    fn write(&self, endpoints: &HealthEndpoints) -> Yaml {
        match endpoints {
            HealthEndpoints::Auto => Yaml::text("auto"),
            HealthEndpoints::Listed(paths) => PATHS.write(paths),
        }
    }
}

/// What a health probe asks for: a path, perhaps with a query.
const PROBE_PATH: Scalar<String> =
    Scalar { text: "path", schema: || string_like("^/[!-~]*$"), read: probe_path, write: Yaml::text };

fn probe_path(node: &Node) -> Result<String, String> {
    let path = string(node)?;
    if !path.starts_with('/') {
        return Err(format!("{} does not start with '/'", quoted(path)));
    }
    match path.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        Some(c) => Err(format!("{} holds {c:?}, which a request path cannot hold; escape it (%XX)", quoted(path))),
        None => Ok(path.to_owned()),
    }
}

const HEADERS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of header fields to values",
    expected: "a mapping of header fields to values, or {} for none",
    most: 16,
    name: header_name,
    value: Scalar { read: header_value, ..TEXT },
};

/// Header fields that are the agent's own, or that would change what a request is.
const OWN_HEADERS: [&str; 9] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "accept", "user-agent"];

fn header_name(written: &str) -> Result<String, String> {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let name = written.to_ascii_lowercase();
    if name.is_empty() || !name.chars().all(token) {
        Err(format!("{} is not a header field's name", quoted(written)))
    } else if OWN_HEADERS.contains(&name.as_str()) {
        Err(format!("{name} is the probe's own"))
    } else if name == "authorization" {
        Err("is a secret: put the key into a file and name it as api_key_file".to_owned())
    } else {
        Ok(name)
    }
}

fn header_value(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        true => Ok(text),
        false => Err(format!("{} holds what no header field can", quoted(&text))),
    }
}
