//! Metrics that are not in the catalogue: those of the models, relayed with two additional labels.
//!
//! They are parsed from the server's text page, within limits, and written in each of the agent's formats by `blocks`.
//! A family that exceeds a limit or would make the page invalid is dropped; the rest of its page is kept.

pub(super) mod blocks;

use std::borrow::Cow;
use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashSet};
use std::hash::BuildHasher as _;
use std::sync::LazyLock;

use super::catalogue;
use super::exposition::{self, Line, SampleLine};
use crate::printable::without_hidden;

/// A family from another program.
#[derive(Clone, PartialEq, Debug)]
pub struct Foreign {
    /// Its type as in the text formats, if both have it.
    pub kind: &'static str,
    /// HELP, unescaped.
    pub help: String,
    /// Its samples; a histogram has several per label set, each with its own name.
    pub samples: Vec<ForeignSample>,
}

/// A sample of a [`Foreign`].
#[derive(Clone, PartialEq, Debug)]
pub struct ForeignSample {
    /// The family's name, possibly with the suffix `_bucket`, `_sum` or `_count`.
    pub name: String,
    /// Label values by name.
    pub labels: BTreeMap<String, String>,
    /// The value; anything that a float can be.
    pub value: f64,
}

/// Families by name.
pub type Families = BTreeMap<String, Foreign>;

/// Limits of one page.
#[derive(Clone, Copy, Debug)]
pub struct PageLimits {
    /// Number of samples.
    pub samples: usize,
    /// Labels of one sample.
    pub labels: usize,
    /// Bytes of one name, label value or help.
    pub text: usize,
    /// Bytes of memory for its families.
    pub memory: usize,
}

/// The result of parsing a page.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Parsed {
    /// The families.
    pub families: Families,
    /// Families that are dropped, with the reason.
    pub dropped: BTreeMap<String, Reason>,
    /// Approximate memory of the families in bytes.
    pub size: usize,
}

/// Why a family is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    /// The page has too many samples.
    Samples,
    /// The page takes too much memory.
    Memory,
    /// A sample has too many labels.
    Labels,
    /// A name, label or HELP is too long.
    Text,
    /// A duplicate series.
    Duplicate,
    /// Its name is reserved by the agent or Prometheus.
    Name,
    /// A label starts with `__`, which is reserved by Prometheus: a single `__name__` would break the scrape of the
    /// whole host.
    Label,
}

impl Reason {
    /// Value of the label `reason`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Memory => "memory",
            Self::Labels => "labels",
            Self::Text => "text",
            Self::Duplicate => "duplicate",
            Self::Name => "reserved_name",
            Self::Label => "reserved_label",
        }
    }
}

/// Why a page is not relayed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ForeignError {
    /// A line is invalid.
    #[error("line {line} is not in the Prometheus text format")]
    Syntax {
        /// Its number, from 1.
        line: usize,
    },
}

/// Number of dropped families whose names are kept; further ones are not counted.
const MAX_DROPPED: usize = 1000;

/// Maximum length of these names in characters.
const MAX_NAME: usize = 1000;

/// Parses a page in Prometheus' text format 0.0.4, or the common subset of OpenMetrics. Timestamps and exemplars are
/// ignored, because only current values are relayed.
///
/// # Errors
/// At the first invalid line, because the page is then in another format.
pub fn parse(page: &str, limits: PageLimits) -> Result<Parsed, ForeignError> {
    let kinds = kinds(page)?;
    let mut parsed = Parsed::default();
    let (mut count, mut memory, mut helps) = (0, 0, BTreeMap::new());
    for (line, text) in exposition::lines(page) {
        match exposition::read(text).ok_or(ForeignError::Syntax { line })? {
            Line::Help(name, help) => {
                if exposition::unescape(help).is_none() {
                    return Err(ForeignError::Syntax { line });
                }
                if help.len().max(name.len()) > limits.text {
                    let gone = parsed.drop(&family_of(&kinds, name), Reason::Text);
                    (count, memory) = (count - gone.0, memory - gone.1);
                }
                helps.insert(name, help);
            }
            Line::Sample(sample) => {
                let family = family_of(&kinds, sample.name);
                if parsed.dropped.contains_key(&family) {
                    continue;
                }
                let wrong = fault(&sample, &family, limits);
                let sample = owned(sample);
                let own = size_of_sample(&sample);
                let wrong = wrong.or((count == limits.samples).then_some(Reason::Samples));
                if let Some(reason) = wrong.or((memory + own > limits.memory).then_some(Reason::Memory)) {
                    let gone = parsed.drop(&family, reason);
                    (count, memory) = (count - gone.0, memory - gone.1);
                    continue;
                }
                (count, memory) = (count + 1, memory + own);
                parsed.family(&family, &kinds).samples.push(sample);
            }
            Line::Type(..) | Line::Nothing => {}
        }
    }
    let twice: Vec<String> =
        parsed.families.iter().filter(|(_, family)| has_twice(&family.samples)).map(|(name, _)| name.clone()).collect();
    for name in twice {
        parsed.drop(&name, Reason::Duplicate);
    }
    for (name, family) in &mut parsed.families {
        let help = helps.get(name.as_str()).and_then(|help| exposition::unescape(help));
        family.help = help.unwrap_or_default().split('\n').map(without_hidden).collect::<Vec<_>>().join("\n");
    }
    parsed.size = parsed.families.iter().map(|(name, family)| name.len() + size(family)).sum();
    Ok(parsed)
}

impl Parsed {
    fn family(&mut self, name: &str, kinds: &BTreeMap<&str, &'static str>) -> &mut Foreign {
        let kind = kinds.get(name).copied().unwrap_or("untyped");
        self.families.entry(name.to_owned()).or_insert_with(|| Foreign {
            kind,
            help: String::new(),
            samples: Vec::new(),
        })
    }

    /// Drops a family; returns the number of samples and bytes freed.
    fn drop(&mut self, name: &str, reason: Reason) -> (usize, usize) {
        if self.dropped.len() < MAX_DROPPED {
            self.dropped.insert(name.chars().take(MAX_NAME).collect(), reason);
        }
        let samples = self.families.remove(name).map(|family| family.samples).unwrap_or_default();
        (samples.len(), samples.iter().map(size_of_sample).sum())
    }
}

/// The types of all families; a family with conflicting types has none.
fn kinds(page: &str) -> Result<BTreeMap<&str, &'static str>, ForeignError> {
    let mut kinds: BTreeMap<&str, &'static str> = BTreeMap::new();
    for (line, text) in exposition::lines(page).filter(|(_, text)| text.starts_with('#')) {
        if let Line::Type(name, written) = exposition::read(text).ok_or(ForeignError::Syntax { line })? {
            let kind = kind(written);
            kinds.entry(name).and_modify(|own| *own = if *own == kind { kind } else { "untyped" }).or_insert(kind);
        }
    }
    Ok(kinds)
}

fn kind(text: &str) -> &'static str {
    ["counter", "gauge", "histogram", "summary"].into_iter().find(|kind| *kind == text).unwrap_or("untyped")
}

/// The family of a sample: its own name, or that of the histogram or summary that it is part of, or the one that its
/// `_created` belongs to.
fn family_of(kinds: &BTreeMap<&str, &'static str>, name: &str) -> String {
    let is = |base: &str, of: &[&str]| kinds.get(base).is_some_and(|kind| of.contains(kind));
    if let Some(base) = name.strip_suffix("_created") {
        let counter = format!("{base}_total");
        if is(&counter, &["counter"]) {
            return counter;
        }
        if is(base, &["histogram", "summary"]) {
            return base.to_owned();
        }
    }
    let parts: [(&str, &[&str]); 3] =
        [("_bucket", &["histogram"]), ("_sum", &["histogram", "summary"]), ("_count", &["histogram", "summary"])];
    let part_of = |(suffix, of): (&str, &[&str])| name.strip_suffix(suffix).filter(|base| is(base, of));
    parts.into_iter().find_map(part_of).unwrap_or(name).to_owned()
}

/// Why a sample cannot be relayed.
fn fault(sample: &SampleLine<'_>, family: &str, limits: PageLimits) -> Option<Reason> {
    let long = |text: &str| text.len() > limits.text;
    if sample.labels.len() > limits.labels {
        Some(Reason::Labels)
    } else if long(sample.name) || sample.labels.iter().any(|(name, value)| long(name) || long(value)) {
        Some(Reason::Text)
    } else if sample.labels.iter().any(|(name, _)| name.starts_with("__")) {
        Some(Reason::Label)
    } else if is_reserved(sample.name) || is_reserved(family) {
        Some(Reason::Name)
    } else {
        None
    }
}

fn owned(sample: SampleLine<'_>) -> ForeignSample {
    let label = |(name, value): (&str, Cow<'_, str>)| (name.to_owned(), without_hidden(&value).into_owned());
    let labels = sample.labels.into_iter().map(label).collect();
    ForeignSample { name: sample.name.to_owned(), labels, value: sample.value }
}

fn has_twice(samples: &[ForeignSample]) -> bool {
    // Only hashes: with a random key they identify a series well enough.
    let (keys, mut seen) = (RandomState::new(), HashSet::with_capacity(samples.len()));
    samples.iter().any(|sample| !seen.insert(keys.hash_one((&sample.name, &sample.labels))))
}

/// Approximate memory of a family in bytes.
fn size(family: &Foreign) -> usize {
    256 + family.help.len() + family.samples.iter().map(size_of_sample).sum::<usize>()
}

/// Approximate memory of a sample in bytes, with the two added labels: it can be ten times the size of its text.
fn size_of_sample(sample: &ForeignSample) -> usize {
    let label = |(name, value): (&String, &String)| name.len() + value.len() + LABEL;
    size_of::<ForeignSample>() + sample.name.len() + 2 * LABEL + sample.labels.iter().map(label).sum::<usize>()
}

/// A label: two strings in a half-filled tree node, plus allocator overhead.
const LABEL: usize = 4 * size_of::<String>() + 32;

/// Whether a name is reserved by the agent or Prometheus: two blocks with the same name would make the page invalid,
/// and relayed metrics must not look like the agent's.
fn is_reserved(name: &str) -> bool {
    static OURS: LazyLock<HashSet<&str>> = LazyLock::new(|| catalogue::all().map(|desc| stem(desc.name)).collect());
    name.starts_with("citadel_")
        || name.starts_with("scrape_")
        || matches!(name, "up" | "ALERTS" | "ALERTS_FOR_STATE")
        || is_catalogued(name)
        || OURS.contains(stem(name))
}

/// Whether the catalogue has a metric with exactly this name.
#[must_use]
pub fn is_catalogued(name: &str) -> bool {
    static NAMES: LazyLock<HashSet<&str>> = LazyLock::new(|| catalogue::all().map(|desc| desc.name).collect());
    NAMES.contains(name)
}

/// A name without the suffixes of the formats.
fn stem(name: &str) -> &str {
    let suffixes = ["_total", "_bucket", "_sum", "_count", "_created", "_info"];
    suffixes.into_iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

/// Adds a label to every sample. As in Prometheus, an existing label of that name is renamed to `exported_NAME`, or
/// `exported_exported_NAME` if the family already has that, so that series stay distinct.
pub fn label(families: &mut Families, name: &str, value: &str) {
    for family in families.values_mut() {
        let mut renamed = format!("exported_{name}");
        if family.samples.iter().any(|sample| sample.labels.contains_key(name)) {
            while family.samples.iter().any(|sample| sample.labels.contains_key(&renamed)) {
                renamed.insert_str(0, "exported_");
            }
        }
        for sample in &mut family.samples {
            if let Some(theirs) = sample.labels.insert(name.to_owned(), value.to_owned()) {
                sample.labels.insert(renamed.clone(), theirs);
            }
        }
    }
}

/// Adds the families of another page, whose samples have different labels.
pub fn merge(into: &mut Families, from: Families) {
    for (name, family) in from {
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
