//! Credentials and trust, wherever a section has them.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};

use crate::config::mistakes::{Mistakes, join, quoted};
use crate::config::resolved::Access;
use crate::config::section::{Section, convert_at, entries};
use crate::config::tree::Node;
use crate::config::value;

pub(super) fn access(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Access> {
    let username = section.optional("username", value::text, mistakes);
    let password_file = section.optional("password_file", value::absolute_path, mistakes);
    let bearer_token_file = section.optional("bearer_token_file", value::absolute_path, mistakes);
    let ca_file = section.optional("ca_file", value::absolute_path, mistakes);

    let cert_file = section.optional("cert_file", value::absolute_path, mistakes);
    let key_file = section.optional("key_file", value::absolute_path, mistakes);
    let headers = match section.node("headers") {
        None => Some(BTreeMap::new()),
        Some((path, node)) => headers(&path, node, mistakes),
    };

    let mut refuse = |message: &str| mistakes.push(section.pos(), section.path(), message);
    if let (Some(username), Some(password_file)) = (&username, &password_file)
        && username.is_some() != password_file.is_some()
    {
        refuse("needs both username and password_file, or neither");
    }
    if let (Some(certificate), Some(key)) = (&cert_file, &key_file)
        && certificate.is_some() != key.is_some()
    {
        refuse("needs both cert_file and key_file, or neither");
    }
    if matches!((&username, &bearer_token_file), (Some(Some(_)), Some(Some(_)))) {
        refuse("has both username and bearer_token_file; a request carries one of them");
    }
    Some(Access {
        username: username?,
        password_file: password_file?,
        bearer_token_file: bearer_token_file?,
        ca_file: ca_file?,
        cert_file: cert_file?,
        key_file: key_file?,
        headers: headers?,
    })
}

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

fn headers(path: &str, node: &Node, mistakes: &mut Mistakes) -> Option<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    for entry in entries(path, node, "a mapping of header names to values, or {} for none", mistakes)? {
        let (path, name) = (join(path, &entry.key), entry.key.to_lowercase());
        if RESERVED.contains(&name.as_str()) {
            mistakes.push(entry.key_pos, &path, format!("{name} is set by the agent"));
        } else if HeaderName::try_from(&name).is_err() {
            mistakes.push(entry.key_pos, &path, format!("{} is not the name of a header field", quoted(&entry.key)));
        }
        if let Some(value) = convert_at(path, entry.key_pos, &entry.value, header_value, mistakes) {
            headers.insert(name, value.value);
        }
    }
    Some(headers)
}

fn header_value(node: &Node) -> Result<String, String> {
    let text = value::text(node)?;
    match HeaderValue::from_str(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err("holds what no header field can".to_owned()),
    }
}
