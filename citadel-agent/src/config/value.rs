//! Converters: one written value -> its final type, or what is wrong with it.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use citadel_agent_common::calls::{CALLS, Call};
use tracing::Level;

use super::mistakes::{nearest, quoted};
use super::resolved::{CallForm, DcgmRelease};
use super::tree::{Node, Value};

/// Bounds of every interval: below, the agent would do little else; above, it is surely a slip of the unit.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 60 * 60);

/// Longest window or holding time of an alert rule.
const MAX_SPAN: Duration = Duration::from_secs(31 * 24 * 60 * 60);

/// Longest path, URL and string that is taken.
const MAX_LEN: usize = 2048;

/// Longest model name: it becomes a label value and part of a unit's name.
const MAX_NAME_LEN: usize = 128;

/// A scalar by the YAML 1.2 core schema, a collection by its kind.
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

fn is_int(text: &str) -> bool {
    let digits = |text: &str, radix| !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    digits(text.strip_prefix(['+', '-']).unwrap_or(text), 10)
        || text.strip_prefix("0x").is_some_and(|text| digits(text, 16))
        || text.strip_prefix("0o").is_some_and(|text| digits(text, 8))
}

fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    // Rust's own float syntax, less the words "inf" and "nan", which YAML writes with a dot.
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
        Kind::Refused => "what is not supported".to_owned(),
    };
    format!("expected {what}, found {found}")
}

/// An integer of any size that a port or a number of seconds can have; larger ones saturate, so that they are out of range.
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

/// `true` is the release whose names dashboards are written for today.
pub(super) fn dcgm_release(node: &Node) -> Result<Option<DcgmRelease>, String> {
    const EXPECTED: &str = "true, false, \"4.8\" or \"4.9\"";
    match kind(node) {
        Kind::Bool(wanted) => Ok(wanted.then_some(DcgmRelease::V4_8)),
        // Without quotes, YAML reads a number.
        Kind::Str(text) | Kind::Float(text) => match text {
            "4.8" => Ok(Some(DcgmRelease::V4_8)),
            "4.9" => Ok(Some(DcgmRelease::V4_9)),
            _ => Err(expected(EXPECTED, node)),
        },
        _ => Err(expected(EXPECTED, node)),
    }
}

pub(super) fn string(node: &Node) -> Result<&str, String> {
    match kind(node) {
        Kind::Str(text) if text.trim().is_empty() => Err("is empty; leave the key out for the default".to_owned()),
        Kind::Str(text) if text.len() > MAX_LEN => Err(format!("is longer than {MAX_LEN} bytes")),
        Kind::Str(text) => Ok(text),
        Kind::Int(_) | Kind::Float(_) | Kind::Bool(_) => {
            Err(format!("{}; put it in quotes if it is meant", expected("a string", node)))
        }
        _ => Err(expected("a string", node)),
    }
}

pub(super) fn text(node: &Node) -> Result<String, String> {
    let text = string(node)?;
    if text.chars().any(char::is_control) {
        return Err(format!("{} holds a control character", quoted(text)));
    }
    Ok(text.to_owned())
}

pub(super) fn port(node: &Node) -> Result<u16, String> {
    match kind(node) {
        Kind::Int(text) => number_to_port(text),
        Kind::Str(text) if is_int(text) => Err(format!("{}; remove the quotes", expected("a TCP port", node))),
        _ => Err(expected("a TCP port (1-65535)", node)),
    }
}

fn number_to_port(text: &str) -> Result<u16, String> {
    u16::try_from(int(text))
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("{} is not a TCP port (1-65535)", text.chars().take(40).collect::<String>()))
}

/// `"11400-11500"`, one port, or `none` (also `false`).
pub(super) fn discover(node: &Node) -> Result<Option<RangeInclusive<u16>>, String> {
    let what = r#"a range of ports such as "11400-11500", or none"#;
    match kind(node) {
        Kind::Bool(false) => Ok(None),
        Kind::Int(text) => number_to_port(text).map(|port| Some(port..=port)),
        Kind::Str(text) if text.trim().eq_ignore_ascii_case("none") => Ok(None),
        Kind::Str(text) => {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let (first, last) = (first.trim(), last.trim());
            if !is_int(first) || !is_int(last) {
                return Err(expected(what, node));
            }
            let (first, last) = (number_to_port(first)?, number_to_port(last)?);
            if first > last {
                return Err(format!("the range {first}-{last} is empty; write \"{last}-{first}\""));
            }
            Ok(Some(first..=last))
        }
        _ => Err(expected(what, node)),
    }
}

/// A number of seconds, or a number with a unit.
pub(super) fn interval(node: &Node) -> Result<Duration, String> {
    duration_within(node, INTERVAL, "100ms to 24h")
}

fn duration_within(node: &Node, range: RangeInclusive<Duration>, bounds: &str) -> Result<Duration, String> {
    let what = r#"a duration such as 60 (seconds), "15s", "500ms" or "5m""#;
    let (duration, written) = match kind(node) {
        // A negative number of seconds is out of any range.
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

/// How old something may become: an hour to ten years.
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

/// A number of bytes, or a number with a unit of 1024: `1GiB`.
pub(super) fn bytes(node: &Node) -> Result<u64, String> {
    const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
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

/// One of a few words. A number that YAML sees in one (`1.0`) is taken as it is written.
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

/// A number, whole or not, but not infinite.
pub(super) fn number(node: &Node) -> Result<f64, String> {
    match kind(node) {
        // Hexadecimal and octal ones are whole.
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

/// How long something must last: a number of seconds, or a number with a unit; from 0.
pub(super) fn span(node: &Node) -> Result<Duration, String> {
    duration_within(node, Duration::ZERO..=MAX_SPAN, "0s to 31d")
}

/// How far something looks back or ahead.
pub(super) fn window(node: &Node) -> Result<Duration, String> {
    duration_within(node, Duration::from_secs(1)..=MAX_SPAN, "1s to 31d")
}

pub(super) fn address(node: &Node) -> Result<IpAddr, String> {
    match kind(node) {
        Kind::Str(text) => text.parse().map_err(|_| expected(r#"an IP address such as "::" or "127.0.0.1""#, node)),
        _ => Err(expected("an IP address in quotes", node)),
    }
}

pub(super) fn level(node: &Node) -> Result<Level, String> {
    const LEVELS: [(&str, Level); 6] = [
        ("TRACE", Level::TRACE),
        ("DEBUG", Level::DEBUG),
        ("INFO", Level::INFO),
        ("WARN", Level::WARN),
        ("WARNING", Level::WARN),
        ("ERROR", Level::ERROR),
    ];
    let what = "TRACE, DEBUG, INFO, WARN or ERROR";
    let Kind::Str(text) = kind(node) else {
        return Err(expected(what, node));
    };
    LEVELS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, level)| *level).ok_or_else(|| {
        let hint =
            nearest(text, LEVELS.map(|(name, _)| name)).map_or(String::new(), |name| format!("; did you mean {name}?"));
        format!("{}{hint}", expected(what, node))
    })
}

/// The path of one of our own pages. Letters, digits and `._~-` only: anything else would have to be escaped by who asks
/// for it, or means something to the router.
pub(super) fn call_form(node: &Node) -> Result<CallForm, String> {
    let form = match kind(node) {
        Kind::Str(text) => CallForm::ALL.into_iter().find(|form| form.name() == text),
        _ => None,
    };
    form.ok_or_else(|| expected("auto or raw_tp", node))
}

pub(super) fn system_call(node: &Node) -> Result<&'static Call, String> {
    let Kind::Str(text) = kind(node) else { return Err(expected("a system call", node)) };
    CALLS.iter().find(|call| call.name == text).ok_or_else(|| {
        let near = nearest(text, CALLS.iter().map(|call| call.name));
        let hint = near.map_or_else(
            || format!("; known are {}", CALLS.iter().map(|call| call.name).collect::<Vec<_>>().join(", ")),
            |name| format!("; did you mean {name}?"),
        );
        format!("{} is no system call that can be measured{hint}", quoted(text))
    })
}

pub(super) fn page_path(node: &Node) -> Result<String, String> {
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

/// What a health probe asks for: a path, perhaps with a query.
pub(super) fn probe_path(node: &Node) -> Result<String, String> {
    let path = string(node)?;
    if !path.starts_with('/') {
        return Err(format!("{} does not start with '/'", quoted(path)));
    }
    match path.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        Some(c) => Err(format!("{} holds {c:?}, which a request path cannot hold; escape it (%XX)", quoted(path))),
        None => Ok(path.to_owned()),
    }
}

pub(super) fn absolute_path(node: &Node) -> Result<PathBuf, String> {
    let path = text(node)?;
    match path.starts_with('/') {
        true => Ok(path.into()),
        false => Err(format!("{} is not an absolute path", quoted(&path))),
    }
}

/// A program: an absolute path, or a name to look for on the path.
pub(super) fn program(node: &Node) -> Result<PathBuf, String> {
    let program = text(node)?;
    match program.starts_with('/') || !program.contains('/') {
        true => Ok(program.into()),
        false => Err(format!("{} is neither an absolute path nor a name without a slash", quoted(&program))),
    }
}

/// What systemd matches names of units with: characters of unit names, and those of `fnmatch(3)`.
pub(super) fn unit_pattern(node: &Node) -> Result<String, String> {
    let pattern = string(node)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@*?[]!^".contains(c);
    match !pattern.is_empty() && pattern.len() <= 255 && pattern.chars().all(allowed) {
        true => Ok(pattern.to_owned()),
        false => Err(format!("{} is not a unit's name or a pattern such as \"citadel-*.service\"", quoted(pattern))),
    }
}

pub(super) fn url(node: &Node) -> Result<String, String> {
    let text = string(node)?;
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    if after_scheme.split(['/', '?']).next().is_some_and(|authority| authority.contains('@')) {
        // The text is not repeated: the message goes to the log.
        return Err("is not a URL: a user name or password in it would end up in logs".to_owned());
    }
    let bad = |why: &str| Err(format!("{} is not a URL: {why}", quoted(text)));
    let uri: hyper::Uri = match text.parse() {
        Ok(uri) => uri,
        Err(error) => return bad(&error.to_string()),
    };
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return bad("it must start with http:// or https://");
    }
    let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty()) else {
        return bad("it names no host");
    };
    let after_host = &authority.as_str()[authority.host().len()..];
    if after_host.strip_prefix(':').is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return bad("its port is not a TCP port (1-65535)");
    }
    if text.contains('#') {
        return bad("it holds a '#'");
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

/// Whether `name` can be a model's name: it becomes a label value and part of a unit's name, and people type it.
pub(super) fn model_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a model's name is empty".to_owned());
    }
    if name.len() > MAX_NAME_LEN {
        return Err(format!("a model's name is longer than {MAX_NAME_LEN} bytes"));
    }
    let first = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match first && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-/:+@".contains(c)) {
        true => Ok(()),
        false => Err(format!(
            "{} is not a model name: letters, digits and . _ - / : + @, beginning with a letter or digit",
            quoted(name)
        )),
    }
}
