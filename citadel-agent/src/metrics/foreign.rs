//! Metrics that are not of the catalogue: the models' own, passed on with two labels more.
//!
//! Read from the text format of whoever exposes them, within limits, and written in each of ours. Where two formats differ in
//! what a type's names may be, the type is given up, never the samples.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::hash::BuildHasher as _;

use super::catalogue;
use super::text::{Dialect, escape};
use crate::printable::without_hidden;

/// A family of somebody else's.
#[derive(Clone, PartialEq, Debug)]
pub struct Foreign {
    /// Its type as the text formats call it, if it is one that both know.
    pub kind: &'static str,
    /// HELP, unescaped.
    pub help: String,
    /// Its samples; a histogram has several a label set, each under its own name.
    pub samples: Vec<ForeignSample>,
}

/// One of its samples.
#[derive(Clone, PartialEq, Debug)]
pub struct ForeignSample {
    /// The family's name, perhaps with `_bucket`, `_sum`, `_count` behind it.
    pub name: String,
    /// Labels with their values, by name.
    pub labels: BTreeMap<String, String>,
    /// The value; anything that a float can be.
    pub value: f64,
}

/// Families by name.
pub type Families = BTreeMap<String, Foreign>;

/// What one page may have at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Samples.
    pub samples: usize,
    /// Labels of one sample.
    pub labels: usize,
    /// Bytes of one name, label value or help.
    pub text: usize,
    /// What it may take, see [`memory`].
    pub memory: usize,
}

/// About what families take in memory, once two labels are added: some bytes of text may make ten times as many of this.
#[must_use]
pub fn memory(families: &Families) -> usize {
    let family = |(name, family): (&String, &Foreign)| {
        2 * name.len() + family.help.len() + 256 + family.samples.iter().map(ForeignSample::memory).sum::<usize>()
    };
    families.iter().map(family).sum()
}

impl ForeignSample {
    fn memory(&self) -> usize {
        let label = |(name, value): (&String, &String)| name.len() + value.len() + LABEL;
        size_of::<Self>() + self.name.len() + 2 * LABEL + self.labels.iter().map(label).sum::<usize>()
    }
}

/// A label: two strings in a node of a tree that is half filled, and what an allocator adds.
const LABEL: usize = 4 * size_of::<String>() + 32;

/// Why a page is not passed on.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForeignError {
    /// A line is no line of the format.
    #[error("line {line} is no line of Prometheus' text format")]
    Syntax {
        /// Its number, from 1.
        line: usize,
    },
    /// More than is taken.
    #[error("it has more than {limit} {what}")]
    TooMuch {
        /// Of what.
        what: &'static str,
        /// How many are taken.
        limit: usize,
    },
    /// The same series twice.
    #[error("line {line} repeats a series")]
    Duplicate {
        /// Its number, from 1.
        line: usize,
    },
}

/// Reads a page in Prometheus' text format 0.0.4, and OpenMetrics as far as it is the same. Timestamps and exemplars are left out:
/// what is passed on is what is true now.
///
/// # Errors
/// At the first line that is none, and beyond the limits: half a page is worth less than none.
pub fn parse(page: &str, limits: Limits) -> Result<Families, ForeignError> {
    let mut families = Families::new();
    // Hashes alone, which with a key that nobody knows are as good as the series.
    let (keys, mut seen, mut count, mut taken) = (RandomState::new(), HashSet::new(), 0, 0);
    for (index, text) in page.lines().enumerate() {
        let line = index + 1;
        let text = text.trim_end_matches('\r');
        if let Some(comment) = text.strip_prefix('#') {
            if let Some((keyword, name, rest)) = metadata(comment) {
                let family = families.entry(name.to_owned()).or_insert_with(|| Foreign::new("untyped"));
                match keyword {
                    "TYPE" => family.kind = kind(rest),
                    _ if rest.len() > limits.text => return Err(too_much("bytes of HELP", limits.text)),
                    _ => {
                        let help = unescape(rest).ok_or(ForeignError::Syntax { line })?;
                        family.help = help.split('\n').map(without_hidden).collect::<Vec<_>>().join("\n");
                        taken += family.help.len() + 256;
                    }
                }
            }
            continue;
        }
        if text.trim().is_empty() {
            continue;
        }
        let sample = sample(text, limits).ok_or(ForeignError::Syntax { line })??;
        count += 1;
        if count > limits.samples {
            return Err(too_much("samples", limits.samples));
        }
        if !seen.insert(keys.hash_one((&sample.name, &sample.labels))) {
            return Err(ForeignError::Duplicate { line });
        }
        taken += sample.memory();
        if taken > limits.memory {
            return Err(too_much("bytes in memory", limits.memory));
        }
        let family = family_of(&families, &sample.name);
        families.entry(family).or_insert_with(|| Foreign::new("untyped")).samples.push(sample);
    }
    families.retain(|_, family| !family.samples.is_empty());
    Ok(families)
}

impl Foreign {
    fn new(kind: &'static str) -> Self {
        Self { kind, help: String::new(), samples: Vec::new() }
    }
}

fn too_much(what: &'static str, limit: usize) -> ForeignError {
    ForeignError::TooMuch { what, limit }
}

fn kind(text: &str) -> &'static str {
    ["counter", "gauge", "histogram", "summary"].into_iter().find(|kind| *kind == text.trim()).unwrap_or("untyped")
}

/// `HELP` or `TYPE`, the name, and the rest of the line; other comments are none.
fn metadata(comment: &str) -> Option<(&str, &str, &str)> {
    let (keyword, rest) = comment.strip_prefix(' ')?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    (matches!(keyword, "HELP" | "TYPE") && is_name(name, true)).then_some((keyword, name, rest))
}

/// The family that a sample belongs to: its own name, or that of a histogram or summary that it is a part of.
fn family_of(families: &Families, name: &str) -> String {
    let part_of = |suffix: &str| {
        let base = name.strip_suffix(suffix)?;
        let kind = families.get(base)?.kind;
        matches!((kind, suffix), ("histogram", _) | ("summary", "_sum" | "_count")).then_some(base)
    };
    ["_bucket", "_sum", "_count"].into_iter().find_map(part_of).unwrap_or(name).to_owned()
}

fn is_name(name: &str, colons: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// `name{label="value",...} 1.5 [timestamp] [# exemplar]`. `None`: it is none; the inner error: it is too large.
fn sample(line: &str, limits: Limits) -> Option<Result<ForeignSample, ForeignError>> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return None;
    }
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.trim_start();
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once('=')?;
            let (value, after) = quoted(after.trim_start())?;
            if labels.len() == limits.labels {
                return Some(Err(too_much("labels at a sample", limits.labels)));
            }
            if value.len().max(label.len()) > limits.text {
                return Some(Err(too_much("bytes in a label", limits.text)));
            }
            let label = label.trim();
            let value = without_hidden(&value).into_owned();
            if !is_name(label, false) || labels.insert(label.to_owned(), value).is_some() {
                return None;
            }
            let after = after.trim_start();
            rest = after.strip_prefix(',').map_or(after, str::trim_start);
            if !after.starts_with([',', '}']) {
                return None;
            }
        }
        rest = &rest[1..];
    }
    if name.len() > limits.text {
        return Some(Err(too_much("bytes in a name", limits.text)));
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    // A timestamp, and behind `#` an exemplar.
    if words.next().is_some_and(|word| !word.starts_with('#') && word.parse::<f64>().is_err()) {
        return None;
    }
    Some(Ok(ForeignSample { name: name.to_owned(), labels, value }))
}

/// A value in quotes, unescaped, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some((unescape(&inner[..end])?, &inner[end + 1..]))
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' => plain.push('\n'),
                c @ ('\\' | '"') => plain.push(c),
                // What is no escape stands for itself.
                c => plain.extend(['\\', c]),
            },
            c => plain.push(c),
        }
    }
    Some(plain)
}

/// Gives every sample of `families` a label; one of that name that is there already becomes `exported_NAME`, as Prometheus does it.
pub fn label(families: &mut Families, name: &str, value: &str) {
    for sample in families.values_mut().flat_map(|family| &mut family.samples) {
        if let Some(theirs) = sample.labels.insert(name.to_owned(), value.to_owned()) {
            sample.labels.insert(format!("exported_{name}"), theirs);
        }
    }
}

/// Adds another page's families, whose samples have labels that these have not. Families that the catalogue has itself are left
/// out: two blocks of one name would spoil the page.
pub fn merge(into: &mut Families, from: Families) {
    for (name, family) in from.into_iter().filter(|(name, _)| !is_ours(name)) {
        match into.get_mut(&name) {
            Some(own) => {
                if own.kind != family.kind {
                    own.kind = "untyped";
                }
                own.samples.extend(family.samples);
            }
            None => _ = into.insert(name, family),
        }
    }
}

fn is_ours(name: &str) -> bool {
    catalogue::all().any(|desc| base(desc.name) == base(name))
}

/// What OpenMetrics calls a counter's family.
fn base(name: &str) -> &str {
    name.strip_suffix("_total").unwrap_or(name)
}

/// Writes families in one of the text formats.
pub(super) fn write(families: &Families, dialect: Dialect, out: &mut String) {
    let open = dialect == Dialect::OpenMetrics;
    for (name, family) in families {
        let (kind, name) = match (family.kind, open) {
            // There a counter's family has no suffix, and its samples have one; a gauge may have the family's name already.
            ("counter", true) if base(name) != name && !families.contains_key(base(name)) => ("counter", base(name)),
            ("untyped" | "counter", true) => ("unknown", name.as_str()),
            (kind, _) => (kind, name.as_str()),
        };
        if !family.help.is_empty() {
            _ = writeln!(out, "# HELP {name} {}", escape(&family.help, open));
        }
        _ = writeln!(out, "# TYPE {name} {kind}");
        for sample in &family.samples {
            out.push_str(&sample.name);
            for (i, (label, value)) in sample.labels.iter().enumerate() {
                _ = write!(out, "{}{label}=\"{}\"", if i == 0 { '{' } else { ',' }, escape(value, true));
            }
            _ = writeln!(out, "{} {}", if sample.labels.is_empty() { "" } else { "}" }, Number(sample.value));
        }
    }
}

/// A float as both text formats spell it.
struct Number(f64);

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            value if value.is_nan() => f.write_str("NaN"),
            value if value.is_infinite() => f.write_str(if value > 0.0 { "+Inf" } else { "-Inf" }),
            value => write!(f, "{value}"),
        }
    }
}
