//! Credentials and TLS settings for receivers, in every section that has one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::kind::{ABSOLUTE_PATH, Mapping, Optional, Scalar, TEXT};
use crate::config::mistakes::Mistakes;
use crate::config::section::{Section, section};
use crate::config::value;

section! {
    /// Credentials and trust. If all are `None`: no credentials, and the host's CA certificates.
    pub struct Access [check complete] {
        /// User name of basic authentication.
        username: Option<String> = None, Optional(TEXT);
        /// File with the password of basic authentication, read for each request.
        password_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// File with a bearer token, read for each request.
        bearer_token_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// PEM file of CA certificates to trust instead of the host's; reloaded when it changes.
        ca_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// PEM file of the client certificate (mutual TLS) and its intermediates; reloaded when it changes.
        cert_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// PEM file of the private key of `cert_file`.
        key_file: Option<PathBuf> = None, Optional(ABSOLUTE_PATH);
        /// Additional header fields of each request, for example for a tenant. Names are converted to lower case.
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
        section.mistake(None, "has both username and bearer_token_file; use only one of them", mistakes);
    }
}

const HEADERS: Mapping<Scalar<String>> = Mapping {
    text: "mapping of header names to values",
    expected: "a mapping of header names to values, or {} for none",
    most: usize::MAX,
    name: |written| value::header_name(written, &RESERVED, "the agent"),
    value: Scalar { read: value::header_value, ..TEXT },
};

/// Header fields that are set by the agent or by HTTP.
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

/// Checks that each of the written destinations has a URL: these are their names, and whether they have one.
pub(super) fn have_urls<'a>(
    destinations: impl Iterator<Item = (&'a String, bool)>,
    section: &Section<'_>,
    mistakes: &mut Mistakes,
) {
    let Some(written) = section.written("destinations") else { return };
    for (name, has_url) in destinations {
        let Some(item) = written.entry(name) else { continue };
        if !has_url && !mistakes.concern(&format!("{}.url", item.path)) {
            mistakes.push(item.key_pos, item.path, "has no url");
        }
    }
}
