//! Settings of the health probes.

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
    /// Probe settings of a model; `None`: as for all models.
    pub struct Own {
        /// Paths for the model with this name or port. If this or a key below is absent, the value for all models applies.
        health_endpoints: Option<HealthEndpoints> = None, Optional(HEALTH_ENDPOINTS);
        /// Interval between probes of this model.
        health_interval: Option<Duration> = None, Optional(INTERVAL);
        /// Timeout of a probe of this model.
        health_timeout: Option<Duration> = None, Optional(INTERVAL);
        /// Credentials and TLS settings.
        #[key = ""]
        access: Access = Access::default(), part::<Access>();
    }
}

section! {
    /// Credentials and TLS settings of a model's server.
    pub struct Access [check one_kind_of_trust] {
        /// Whether the server uses TLS; `auto` detects it.
        scheme: Scheme = Scheme::Auto, Words(Scheme::WORDS);
        /// Server name (SNI and `Host`) that the certificate must match; absent: `localhost`.
        server_name: Option<String> = None, Optional(HOST);
        /// PEM file of CA certificates to trust.
        ca_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// PEM file of the server's certificate; no other certificate is accepted.
        certificate_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// File with an API key, read for each request and sent as a bearer token. Over TLS it is sent only if the server's certificate
        /// is verified: by one of the two keys above, else by the host's CA certificates.
        api_key_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Additional header fields of the probes.
        headers: BTreeMap<String, String> = BTreeMap::new(), HEADERS;
    }
}

impl Access {
    /// Whether requests contain credentials.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.api_key_file.is_some() || !self.headers.is_empty()
    }
}

fn one_kind_of_trust(access: &Access, section: &Section<'_>, mistakes: &mut Mistakes) {
    let (ca, certificate) = (access.ca_file.is_some(), access.certificate_file.is_some());
    if ca && certificate {
        let message = "conflicts with ca_file: ca_file trusts every certificate that a CA has signed, certificate_file only this one";
        section.mistake(Some("certificate_file"), message, mistakes);
    }
    if access.scheme == Scheme::Http && (ca || certificate) {
        section.mistake(Some("scheme"), "is http, but a certificate can be verified only with https", mistakes);
    }
}

/// Whether a server uses TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Scheme {
    /// Detected.
    #[default]
    Auto,
    /// No.
    Http,
    /// Yes.
    Https,
}

impl Scheme {
    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("auto", Self::Auto), ("http", Self::Http), ("https", Self::Https)];
}

/// The paths to probe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HealthEndpoints {
    /// Paths that cost the server no work.
    Auto,
    /// Configured paths.
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

/// A path to probe, optionally with a query.
const PROBE_PATH: Scalar<String> =
    Scalar { text: "path", schema: || string_like("^/[!-~]*$"), read: probe_path, write: Yaml::text };

fn probe_path(node: &Node) -> Result<String, String> {
    let path = string(node)?;
    if !path.starts_with('/') {
        return Err(format!("{} does not start with '/'", quoted(path)));
    }
    match path.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        Some(c) => {
            Err(format!("{} contains {c:?}, which is not allowed in a request path; escape it (%XX)", quoted(path)))
        }
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

/// Header fields that are set by the agent, or that would change how the request is interpreted.
const OWN_HEADERS: [&str; 9] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "accept", "user-agent"];

fn header_name(written: &str) -> Result<String, String> {
    match value::header_name(written, &OWN_HEADERS, "the probe")?.as_str() {
        "authorization" => Err("is a secret; put the key into a file and set api_key_file".to_owned()),
        name => Ok(name.to_owned()),
    }
}

fn header_value(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        true => Ok(text),
        false => Err(format!("{} contains characters that are not allowed in a header field", quoted(&text))),
    }
}
