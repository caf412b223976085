//! Parses Prometheus' text format 0.0.4 line by line, and the common subset of OpenMetrics. Pure and stateless: the
//! caller decides what to keep.

use std::borrow::Cow;

/// A line of a page.
#[derive(Clone, PartialEq, Debug)]
pub enum Line<'a> {
    /// `# HELP`: a family's name, and the text with escapes as written.
    Help(&'a str, &'a str),
    /// `# TYPE`: a family's name and type.
    Type(&'a str, &'a str),
    /// A sample.
    Sample(SampleLine<'a>),
    /// An empty line or any other comment.
    Nothing,
}

/// A sample. Timestamps and exemplars are ignored, because only the current value matters.
#[derive(Clone, PartialEq, Debug)]
pub struct SampleLine<'a> {
    /// Its name.
    pub name: &'a str,
    /// Label names and values, in the order of the line.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The value; anything that a float can be.
    pub value: f64,
}

impl SampleLine<'_> {
    /// The value of a label; empty if absent, which is equivalent in Prometheus.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// The lines of a page with their numbers, from 1.
pub fn lines(page: &str) -> impl Iterator<Item = (usize, &str)> {
    page.lines().enumerate().map(|(index, line)| (index + 1, line.trim_end_matches('\r')))
}

/// The name of the sample on a line, unchecked; empty for other lines. Much cheaper than [`read`].
#[must_use]
pub fn name(line: &str) -> &str {
    let end = line.find(['{', ' ', '\t']).unwrap_or(line.len());
    if line.starts_with('#') { "" } else { &line[..end] }
}

/// Parses a line; `None` if it is invalid.
#[must_use]
pub fn read(line: &str) -> Option<Line<'_>> {
    if let Some(comment) = line.strip_prefix('#') {
        return Some(metadata(comment).unwrap_or(Line::Nothing));
    }
    if line.trim().is_empty() {
        return Some(Line::Nothing);
    }
    sample(line).map(Line::Sample)
}

/// Whether `name` is a valid metric name.
#[must_use]
pub fn is_metric_name(name: &str) -> bool {
    is_name(name, true)
}

fn metadata(comment: &str) -> Option<Line<'_>> {
    let (keyword, rest) = comment.strip_prefix(' ')?.split_once(' ')?;
    let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    match keyword {
        "HELP" if is_name(name, true) => Some(Line::Help(name, rest)),
        "TYPE" if is_name(name, true) => Some(Line::Type(name, rest.trim())),
        _ => None,
    }
}

fn is_name(name: &str, colons: bool) -> bool {
    let letter = |c: char| c.is_ascii_alphabetic() || c == '_' || (colons && c == ':');
    name.starts_with(letter) && name.chars().all(|c| letter(c) || c.is_ascii_digit())
}

/// `name{label="value",...} 1.5 [timestamp] [# exemplar]`.
fn sample(line: &str) -> Option<SampleLine<'_>> {
    let end = line.find(['{', ' ', '\t'])?;
    let (name, mut rest) = line.split_at(end);
    if !is_name(name, true) {
        return None;
    }
    let mut labels: Vec<(&str, Cow<'_, str>)> = Vec::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.trim_start();
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once('=')?;
            let label = label.trim();
            let (value, after) = quoted(after.trim_start())?;
            if !is_name(label, false) || labels.iter().any(|(other, _)| *other == label) {
                return None;
            }
            labels.push((label, value));
            let after = after.trim_start();
            rest = after.strip_prefix(',').map_or(after, str::trim_start);
            if !after.starts_with([',', '}']) || labels.len() > MAX_LABELS {
                return None;
            }
        }
        rest = &rest[1..];
    }
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    // A timestamp, and after `#` an exemplar.
    if words.next().is_some_and(|word| !word.starts_with('#') && word.parse::<f64>().is_err()) {
        return None;
    }
    Some(SampleLine { name, labels, value })
}

/// A line with more labels is invalid: comparing each label with each other one must stay cheap.
const MAX_LABELS: usize = 512;

/// Parses a quoted value; returns it unescaped, and the rest of the text.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let inner = text.strip_prefix('"')?;
    let mut escaped = false;
    let end = inner.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })?;
    Some((unescape(&inner[..end])?, &inner[end + 1..]))
}

/// Unescapes a label value or HELP; `None` if it ends within an escape.
#[must_use]
pub fn unescape(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' => plain.push('\n'),
                c @ ('\\' | '"') => plain.push(c),
                // Unknown escapes are kept as they are.
                c => plain.extend(['\\', c]),
            },
            c => plain.push(c),
        }
    }
    Some(Cow::Owned(plain))
}
