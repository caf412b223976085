//! Converters from a value in the file to its final type, or an error.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use hyper::header::{HeaderName, HeaderValue};

use super::mistakes::{nearest, quoted};
use super::tree::{Node, Value};
use super::yaml::Yaml;

/// Maximum length of a path, URL or string.
const MAX_LEN: usize = 2048;

/// A scalar according to the YAML 1.2 core schema, or a collection.
pub(super) enum Kind<'a> {
    Null,
    Bool(bool),
    Int(&'a str),
    Float(&'a str),
    Str(&'a str),
    List,
    Map,
    Refused,
}

pub(super) fn kind(node: &Node) -> Kind<'_> {
    match &node.value {
        Value::List(_) => Kind::List,
        Value::Map(_) => Kind::Map,
        Value::Refused => Kind::Refused,
        Value::Scalar { text, plain: false } => Kind::Str(text),
        Value::Scalar { text, plain: true } => match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" => Kind::Bool(true),
            "false" | "False" | "FALSE" => Kind::Bool(false),
            text if is_int(text) => Kind::Int(text),
            text if is_float(text) => Kind::Float(text),
            text => Kind::Str(text),
        },
    }
}

pub(super) fn is_int(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    digits(text.strip_prefix(['+', '-']).unwrap_or(text), 10)
        || text.strip_prefix("0x").is_some_and(|text| digits(text, 16))
        || text.strip_prefix("0o").is_some_and(|text| digits(text, 8))
}

pub(super) fn is_null(node: &Node) -> bool {
    matches!(kind(node), Kind::Null)
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust's float syntax without the words "inf" and "nan", which YAML writes with a dot.
    let number = unsigned.starts_with(|c: char| c == '.' || c.is_ascii_digit()) && unsigned.parse::<f64>().is_ok();
    number || matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN")
}

/// `expected WHAT, found ...`
pub(super) fn expected(what: &str, node: &Node) -> String {
    let found = match kind(node) {
        Kind::Null => "nothing".to_owned(),
        Kind::Bool(value) => format!("{value}"),
        Kind::Int(text) | Kind::Float(text) => {
            format!("the number {}", text.chars().take(40).collect::<String>())
        }
        Kind::Str(text) => format!("the string {}", quoted(text)),
        Kind::List => "a list".to_owned(),
        Kind::Map => "a mapping".to_owned(),
        Kind::Refused => "an unsupported value".to_owned(),
    };
    format!("expected {what}, found {found}")
}

/// An integer that covers ports and seconds; larger values saturate and are out of range.
fn int(text: &str) -> i64 {
    let saturated = |text: &str, radix| {
        i64::from_str_radix(text, radix).unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX })
    };
    match text.strip_prefix("0x") {
        Some(hex) => saturated(hex, 16),
        None => text.strip_prefix("0o").map_or_else(|| saturated(text, 10), |octal| saturated(octal, 8)),
    }
}

pub(super) fn boolean(node: &Node) -> Result<bool, String> {
    match kind(node) {
        Kind::Bool(value) => Ok(value),
        _ => Err(expected("true or false", node)),
    }
}

pub(super) fn string(node: &Node) -> Result<&str, String> {
    match kind(node) {
        Kind::Str(text) if text.trim().is_empty() => Err("is empty; remove the key to use the default".to_owned()),
        Kind::Str(text) if text.len() > MAX_LEN => Err(format!("is longer than {MAX_LEN} bytes")),
        Kind::Str(text) => Ok(text),
        Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
            Err(format!("{}; quote it if it is meant as a string", expected("a string", node)))
        }
        _ => Err(expected("a string", node)),
    }
}

pub(super) fn text(node: &Node) -> Result<String, String> {
    let text = string(node)?;
    if text.chars().any(char::is_control) {
        return Err(format!("{} contains a control character", quoted(text)));
    }
    Ok(text.to_owned())
}

/// The name of a header field (RFC 9110, section 5.1) in lower case. `reserved` are set by `by`.
pub(super) fn header_name(written: &str, reserved: &[&str], by: &str) -> Result<String, String> {
    let name = written.to_ascii_lowercase();
    if reserved.contains(&name.as_str()) {
        Err(format!("{name} is set by {by}"))
    } else if HeaderName::try_from(&name).is_err() {
        Err(format!("{} is not a valid header field name", quoted(written)))
    } else {
        Ok(name)
    }
}

/// The value of a header field (RFC 9110, section 5.5).
pub(super) fn header_value(node: &Node) -> Result<String, String> {
    let text = text(node)?;
    match HeaderValue::from_str(&text) {
        Ok(_) => Ok(text),
        Err(_) => Err("contains characters that are not allowed in a header field".to_owned()),
    }
}

pub(super) fn port(node: &Node) -> Result<u16, String> {
    match kind(node) {
        Kind::Int(text) => number_to_port(text),
        Kind::Str(text) if is_int(text) => Err(format!("{}; remove the quotes", expected("a TCP port", node))),
        _ => Err(expected("a TCP port (1-65535)", node)),
    }
}

pub(super) fn number_to_port(text: &str) -> Result<u16, String> {
    u16::try_from(int(text))
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{} is not a TCP port (1-65535)", text.chars().take(40).collect::<String>()))
}

/// A number of seconds, or a number with a unit.
pub(super) fn duration_within(node: &Node, range: RangeInclusive<Duration>, bounds: &str) -> Result<Duration, String> {
    let what = r#"a duration such as 60 (seconds), "15s", "500ms" or "5m""#;
    let (duration, written) = match kind(node) {
        // A negative number of seconds is always out of range.
        Kind::Int(text) => {
            (Duration::from_secs(u64::try_from(int(text)).unwrap_or(u64::MAX)), text.chars().take(40).collect())
        }
        Kind::Str(text) => match humantime::parse_duration(text) {
            Ok(duration) => (duration, quoted(text)),
            Err(error) => return Err(format!("{}: {error}", expected(what, node))),
        },
        _ => return Err(expected(what, node)),
    };
    match range.contains(&duration) {
        true => Ok(duration),
        false => Err(format!("{written} is out of range ({bounds})")),
    }
}

/// An age: one hour to ten years.
pub(super) fn age(node: &Node) -> Result<Duration, String> {
    let Kind::Str(text) = kind(node) else {
        return Err(expected(r#"an age such as "12h" or "7d""#, node));
    };
    let age = humantime::parse_duration(text)
        .map_err(|error| format!("{}: {error}", expected(r#"an age such as "12h" or "7d""#, node)))?;
    let hour = Duration::from_secs(60 * 60);
    match (hour..=hour * 24 * 3650).contains(&age) {
        true => Ok(age),
        false => Err(format!("{} is out of range (1h to 10 years)", quoted(text))),
    }
}

/// Units of bytes, as powers of two.
const UNITS: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

/// The inverse of [`bytes()`].
pub(super) fn write_bytes(bytes: u64) -> Yaml {
    match UNITS.iter().find(|(_, shift)| bytes.trailing_zeros() >= *shift) {
        Some((unit, shift)) if bytes > 0 && *shift > 0 => Yaml::Text(format!("{}{unit}", bytes >> shift)),
        _ => Yaml::Int(bytes),
    }
}

/// A number of bytes, or a number with a binary unit: `1GiB`.
pub(super) fn bytes(node: &Node) -> Result<u64, String> {
    let wrong = || expected(r#"a number of bytes such as 1048576, "512MiB" or "1GiB""#, node);
    match kind(node) {
        Kind::Int(text) => u64::try_from(int(text)).map_err(|_| wrong()),
        Kind::Str(text) => {
            let (number, shift) = (UNITS.iter())
                .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?.trim_end(), *shift)))
                .ok_or_else(wrong)?;
            let number: u64 = number.parse().map_err(|_| wrong())?;
            number.checked_mul(1 << shift).ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

/// One of several words. A word that YAML reads as a number (`1.0`) is taken as written.
pub(super) fn word<T: Copy>(node: &Node, words: &'static [(&'static str, T)]) -> Result<T, String> {
    let names = || words.iter().map(|(name, _)| *name);
    let what = names().collect::<Vec<_>>().join(", ");
    let (Kind::Str(text) | Kind::Float(text) | Kind::Int(text)) = kind(node) else {
        return Err(expected(&format!("one of {what}"), node));
    };
    words.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let hint = nearest(text, names()).map_or(String::new(), |name| format!("; did you mean {name}?"));
        format!("{}{hint}", expected(&format!("one of {what}"), node))
    })
}

/// An integer, 0 or more.
pub(super) fn count(node: &Node) -> Result<u64, String> {
    match kind(node) {
        Kind::Int(text) => u64::try_from(int(text)).map_err(|_| expected("an integer, 0 or more", node)),
        _ => Err(expected("an integer, 0 or more", node)),
    }
}

/// A finite number.
pub(super) fn number(node: &Node) -> Result<f64, String> {
    match kind(node) {
        // Hexadecimal and octal numbers are integers.
        Kind::Int(text) => text.parse().or(Ok(int(text) as f64)),
        Kind::Float(text) => match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => Err(expected("a finite number", node)),
        },
        Kind::Str(text) if is_int(text) || is_float(text) => {
            Err(format!("{}; remove the quotes", expected("a number", node)))
        }
        _ => Err(expected("a number", node)),
    }
}

pub(super) fn absolute_path(node: &Node) -> Result<PathBuf, String> {
    let path = text(node)?;
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(format!("{} is not an absolute path", quoted(&path))),
    }
}

pub(super) fn url(node: &Node) -> Result<String, String> {
    let text = string(node)?;
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    if after_scheme.split(['/', '?']).next().is_some_and(|authority| authority.contains('@')) {
        // The text is not repeated, because errors are logged.
        return Err("must not contain a user name or password, because URLs are logged".to_owned());
    }
    let bad = |why: &str| Err(format!("{} is not a URL: {why}", quoted(text)));
    // Before parsing: `HOST:PORT/PATH` is not a URI, and the scheme is what is missing.
    let has_scheme = text
        .split_once("://")
        .is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https"));
    if !has_scheme {
        return bad("it must start with http:// or https://");
    }
    let uri: hyper::Uri = match text.parse() {
        Ok(uri) => uri,
        Err(error) => return bad(&error.to_string()),
    };
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return bad("it has no host");
    };
    let after_host = &authority.as_str()[authority.host().len()..];
    if after_host.strip_prefix(':').is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return bad("its port is not a TCP port (1-65535)");
    }
    if text.contains('#') {
        return bad("it contains a '#'");
    }
    Ok(text.to_owned())
}

/// A host name or an IP address.
pub(super) fn host(node: &Node) -> Result<String, String> {
    let text = string(node)?;
    let label = |label: &str| !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    match text.parse::<IpAddr>().is_ok() || text.strip_suffix('.').unwrap_or(text).split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err(format!("{} is not a host name or an IP address (no scheme, no port)", quoted(text))),
    }
}

/// A user-defined name.
pub(super) fn plain_name(name: &str) -> Result<String, String> {
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match first && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) {
        true => Ok(name.to_owned()),
        false => Err(format!("{} is not a valid name: use letters, digits, _ and -", quoted(name))),
    }
}
