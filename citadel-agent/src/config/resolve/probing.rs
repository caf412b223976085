//! How models are probed.

use std::collections::BTreeMap;

use super::list;
use crate::config::mistakes::{Mistakes, join, quoted};
use crate::config::resolved::probing::{Access, HealthEndpoints, Own, Scheme};
use crate::config::section::{Section, convert_at, entries};
use crate::config::tree::Node;
use crate::config::value::{self, Kind, kind};

/// Most paths that each model is probed for.
const MAX_ENDPOINTS: usize = 16;

/// Most header fields that a probe has besides its own.
const MAX_HEADERS: usize = 16;

/// Header fields that are the agent's own, or that would change what a request is.
const OWN_HEADERS: [&str; 9] =
    ["host", "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "accept", "user-agent"];

/// `auto`, or a list of paths. `None`: it is written and is wrong, and that is noted.
pub(super) fn endpoints(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Option<HealthEndpoints>> {
    let Some((path, node)) = section.node("health_endpoints") else { return Some(None) };
    if matches!(kind(node), Kind::Str("auto")) {
        return Some(Some(HealthEndpoints::Auto));
    }
    let paths = list::distinct(&path, node, (MAX_ENDPOINTS, "paths"), value::probe_path, mistakes)?;
    Some(Some(HealthEndpoints::Listed(paths)))
}

/// What of single models is probed otherwise.
pub(super) fn own(models: &Section<'_>, mistakes: &mut Mistakes) -> Option<BTreeMap<String, Own>> {
    let mut all = Some(BTreeMap::new());
    for (name, section) in models.named_as("models", value::model_name, mistakes) {
        match (one(&section, mistakes), &mut all) {
            (Some(own), Some(all)) => _ = all.insert(name, own),
            (None, _) => all = None,
            (Some(_), None) => {}
        }
    }
    all
}

fn one(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Own> {
    let endpoints = endpoints(section, mistakes);
    let interval = section.optional("health_interval", value::interval, mistakes);
    let timeout = section.optional("health_timeout", value::interval, mistakes);
    let access = access(section, mistakes);
    Some(Own { health_endpoints: endpoints?, health_interval: interval?, health_timeout: timeout?, access: access? })
}

fn access(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Access> {
    let scheme = section.read("scheme", Scheme::default(), |node| value::word(node, Scheme::WORDS), mistakes);
    let server_name = section.optional("server_name", value::host, mistakes);
    let ca_file = section.optional("ca_file", value::absolute_path, mistakes);
    let certificate_file = section.optional("certificate_file", value::absolute_path, mistakes);
    let api_key_file = section.optional("api_key_file", value::absolute_path, mistakes);
    let headers = match section.node("headers") {
        None => Some(BTreeMap::new()),
        Some((path, node)) => headers(&path, node, mistakes),
    };
    if let (Some(Some(_)), Some(Some(_))) = (&ca_file, &certificate_file) {
        let message = "is one of two: ca_file trusts whatever a CA has signed, certificate_file this certificate alone";
        section.mistake(Some("certificate_file"), message, mistakes);
    }
    if let (Some(scheme), Some(ca_file), Some(certificate_file)) = (&scheme, &ca_file, &certificate_file)
        && scheme.value == Scheme::Http
        && (ca_file.is_some() || certificate_file.is_some())
    {
        section.mistake(Some("scheme"), "is http, which has no certificate to verify", mistakes);
    }
    Some(Access {
        scheme: scheme?.value,
        server_name: server_name?,
        ca_file: ca_file?,
        certificate_file: certificate_file?,
        api_key_file: api_key_file?,
        headers: headers?,
    })
}

fn headers(path: &str, node: &Node, mistakes: &mut Mistakes) -> Option<BTreeMap<String, String>> {
    let written = entries(path, node, "a mapping of header fields to values, or {} for none", mistakes)?;
    if written.len() > MAX_HEADERS {
        mistakes.push(node.pos, path, format!("{} header fields are more than {MAX_HEADERS}", written.len()));
        return None;
    }
    let mut headers = BTreeMap::new();
    for entry in written {
        let path = join(path, &entry.key);
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let name = entry.key.to_ascii_lowercase();
        if name.is_empty() || !name.chars().all(token) {
            mistakes.push(entry.key_pos, &path, format!("{} is not a header field's name", quoted(&entry.key)));
        } else if OWN_HEADERS.contains(&name.as_str()) {
            mistakes.push(entry.key_pos, &path, format!("{name} is the probe's own"));
        } else if name == "authorization" {
            mistakes.push(entry.key_pos, &path, "is a secret: put the key into a file and name it as api_key_file");
        }
        if let Some(value) = convert_at(path, entry.key_pos, &entry.value, header_value, mistakes) {
            headers.insert(name, value.value);
        }
    }
    Some(headers)
}

fn header_value(node: &Node) -> Result<String, String> {
    let text = value::text(node)?;
    match text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        true => Ok(text),
        false => Err(format!("{} holds what no header field can", quoted(&text))),
    }
}
