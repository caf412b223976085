//! How a receiver lets the agent in, in every section that names one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hyper::header::{HeaderName, HeaderValue};

use crate::config::kind::{ABSOLUTE_PATH, Mapping, Optional, Scalar, TEXT};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::section::{Section, section};
use crate::config::tree::Node;
use crate::config::value;

section! {
    /// Credentials and trust; all `None`: none, and the CAs of the host.
    pub struct Access [check complete] {
        /// User name of basic authentication.
        username: Option<String> = None, Optional(TEXT);
        /// File that holds its password, read for each request.
        password_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// File that holds a bearer token, read for each request.
        bearer_token_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// CA certificates to trust, PEM, instead of the host's own; read again when the file changes.
        ca_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// The agent's own certificate (mutual TLS), PEM, with those between it and its CA; read again when the file changes.
        cert_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Its private key, PEM.
        key_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Further header fields of each request, a tenant's for example. Names are in lower case.
        headers: BTreeMap<String, String> = BTreeMap::new(), HEADERS;
    }
}

fn complete(access: &Access, section: &Section<'_>, mistakes: &mut Mistakes) {
    let right = |names: [&str; 2], mistakes: &Mistakes| names.iter().all(|name| section.is_right(name, mistakes));
    let user = right(["username", "password_file"], mistakes);
    if user && access.username.is_some() != access.password_file.is_some() {
        section.mistake(None, "needs both username and password_file, or neither", mistakes);
    }
    if right(["cert_file", "key_file"], mistakes) && access.cert_file.is_some() != access.key_file.is_some() {
        section.mistake(None, "needs both cert_file and key_file, or neither", mistakes);
    }
    if access.username.is_some() && access.bearer_token_file.is_some() {
        section.mistake(None, "has both username and bearer_token_file; a request carries one of them", mistakes);
    }
}

const HEADERS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of header names to values",
    expected: "a mapping of header names to values, or {} for none",
    most: usize::MAX,
    name: header_name,
    value: Scalar { read: header_value, ..TEXT },
};

/// Header fields that the agent sets itself, or HTTP does.
const RESERVED: [&str; 10] = [
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-prometheus-remote-write-version",
];

fn header_name(written: &str) -> Result<String, String> {
    let name = written.to_lowercase();
    if RESERVED.contains(&name.as_str()) {
        Err(format!("{name} is set by the agent"))
    } else if HeaderName::try_from(&name).is_err() {
        Err(format!("{} is not the name of a header field", quoted(written)))
    } else {
        Ok(name)
    }
}

fn header_value(node: &Node) -> Result<String, String> {
    let text = value::text(node)?;
    match HeaderValue::from_str(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err("holds what no header field can".to_owned()),
    }
}
