//! How samples are sent.

use std::collections::BTreeMap;

use super::access::access;
use crate::config::mistakes::{Mistakes, join, quoted};
use crate::config::resolved::remote_write::{Denied, Destination, Histograms, PROMETHEUS, Protocol, RemoteWrite};
use crate::config::section::{Section, convert_at, entries};
use crate::config::tree::Node;
use crate::config::value;

pub(super) fn remote_write(
    section: &Section<'_>,
    defaults: RemoteWrite,
    mistakes: &mut Mistakes,
) -> Option<RemoteWrite> {
    let interval = section.optional("interval", value::interval, mistakes);
    let directory = section.optional("directory", value::absolute_path, mistakes);
    let job = section.read("job", defaults.job, value::text, mistakes);
    let instance = section.optional("instance", value::text, mistakes);
    let external_labels = match section.node("external_labels") {
        None => Some(defaults.external_labels),
        Some((path, node)) => external_labels(&path, node, mistakes),
    };
    let histograms = section.read("histograms", defaults.histograms, histograms, mistakes);
    let max_bytes = section.read("max_bytes", defaults.max_bytes, spool_bytes, mistakes);
    let max_age = section.read("max_age", defaults.max_age, value::age, mistakes);
    let min_free_bytes = section.read("min_free_bytes", defaults.min_free_bytes, value::bytes, mistakes);
    let destinations = section
        .named("destinations", mistakes)
        .into_iter()
        .map(|(name, own)| destination(&name, &own, mistakes).map(|destination| (name, destination)))
        .collect::<Vec<_>>();
    Some(RemoteWrite {
        interval: interval?,
        directory: directory?,
        job: job?.value,
        instance: instance?,
        external_labels: external_labels?,
        histograms: histograms?.value,
        max_bytes: max_bytes?.value,
        max_age: max_age?.value,
        min_free_bytes: min_free_bytes?.value,
        destinations: destinations.into_iter().collect::<Option<_>>()?,
    })
}

fn destination(name: &str, section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Destination> {
    let defaults = Destination::default();
    let url = section.optional("url", value::url, mistakes);
    let protocol = section.read("protocol", defaults.protocol, protocol, mistakes);
    let histograms = section.optional("histograms", histograms, mistakes);
    let denied = section.read("denied", defaults.denied, denied, mistakes);
    let timeout = section.read("timeout", defaults.timeout, value::interval, mistakes);
    let access = access(section, mistakes);
    if url == Some(None) && name != PROMETHEUS {
        mistakes.push(section.pos(), section.path(), "has no url");
    }
    Some(Destination {
        url: url?,
        protocol: protocol?.value,
        histograms: histograms?,
        denied: denied?.value,
        timeout: timeout?.value,
        access: access?,
    })
}

fn external_labels(path: &str, node: &Node, mistakes: &mut Mistakes) -> Option<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for entry in entries(path, node, "a mapping of label names to values, or {} for none", mistakes)? {
        let path = join(path, &entry.key);
        let first = entry.key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let name = first && entry.key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !name || entry.key.starts_with("__") || matches!(entry.key.as_str(), "job" | "instance" | "le") {
            let message = format!(
                "{} is not a label name for this: letters, digits and _, not beginning with a digit or __, and not job, \
                 instance or le",
                quoted(&entry.key)
            );
            mistakes.push(entry.key_pos, &path, message);
        }
        if let Some(value) = convert_at(path, entry.key_pos, &entry.value, value::text, mistakes) {
            labels.insert(entry.key.clone(), value.value);
        }
    }
    Some(labels)
}

/// Less than this holds no page of a host.
fn spool_bytes(node: &Node) -> Result<u64, String> {
    match value::bytes(node)? {
        bytes if bytes >= 64 << 10 => Ok(bytes),
        _ => Err("is less than 64KiB, which holds too little to be worth keeping".to_owned()),
    }
}

fn protocol(node: &Node) -> Result<Protocol, String> {
    value::word(node, Protocol::WORDS)
}

fn histograms(node: &Node) -> Result<Histograms, String> {
    value::word(node, Histograms::WORDS)
}

fn denied(node: &Node) -> Result<Denied, String> {
    value::word(node, Denied::WORDS)
}
