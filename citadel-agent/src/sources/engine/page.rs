//! Parses an engine's metrics page. Pure.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::table::{From, Pick, ROWS, Row};
use crate::discovery::engine::Engine;
use crate::metrics::catalogue::Desc;
use crate::metrics::catalogue::engine::{PHASE_SECONDS, PHASES};
use crate::metrics::exposition::{self, Line, SampleLine};
use crate::printable::without_hidden;

/// Maximum number of samples examined: litellm has several per user and key.
const MAX_SAMPLES: usize = 100_000;

/// Maximum number of values of a label that is exported, and maximum length of a value.
const MAX_VALUES: usize = 16;
const MAX_VALUE_LENGTH: usize = 64;

/// Metrics reported by an engine.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which engine it is.
    pub engine: Engine,
    /// Exported series.
    pub series: Vec<EngineSample>,
}

/// An exported series, without the labels of its model.
#[derive(Clone, Debug)]
pub struct EngineSample {
    /// The metric.
    pub desc: &'static Desc,
    /// The label besides model, port and engine.
    pub label: Option<SmolStr>,
    /// The value.
    pub value: f64,
}

/// Why a page is rejected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PageError {
    /// A line is invalid.
    #[error("line {line} is not in the Prometheus text format")]
    Syntax {
        /// Its number, from 1.
        line: usize,
    },
    /// A limit was exceeded.
    #[error("it has more than {limit} {what}")]
    TooMuch {
        /// What was limited.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
}

/// Parses an engine's metrics page; `None` if it is not a page of a known engine.
///
/// # Errors
/// A relevant line is invalid, or a limit is exceeded: a partial sum would be wrong.
pub fn parse(page: &str) -> Result<Option<Report>, PageError> {
    let Some(engine) = engine_of(page) else { return Ok(None) };
    let Some(row) = ROWS.iter().find(|row| row.engine == engine) else { return Ok(None) };
    let found = Found::read(page, row)?;
    let mut series = Vec::new();
    for take in row.takes {
        let first = take.from.iter().find_map(|from| found.take(from));
        for (label, value) in first.transpose()?.unwrap_or_default() {
            series.push(EngineSample { desc: take.desc, label: label.or(take.label.map(SmolStr::new_static)), value });
        }
    }
    for (phase, names) in row.phases {
        let both = |name: &&str| {
            let part = |suffix: &str| found.sum_of(&format!("{name}{suffix}"));
            Some((part("_sum")?, part("_count")?))
        };
        if let Some((sum, count)) = names.iter().find_map(both) {
            let label = Some(SmolStr::new_static(phase));
            series.push(EngineSample { desc: &PHASE_SECONDS, label: label.clone(), value: sum });
            series.push(EngineSample { desc: &PHASES, label, value: count });
        }
    }
    // NaN, infinite and negative values are invalid.
    series.retain(|series| series.value.is_finite() && series.value >= 0.0);
    Ok(Some(Report { engine, series }))
}

/// The engine that serves the page.
fn engine_of(page: &str) -> Option<Engine> {
    let engines = exposition::lines(page).filter_map(|(_, line)| Engine::of_metric(exposition::name(line)));
    engines.reduce(Engine::prefer)
}

/// The samples used by a row, by name.
struct Found<'a> {
    samples: BTreeMap<&'a str, Vec<SampleLine<'a>>>,
    copies: &'static [&'static str],
}

/// The values of a [`From`], each with its label if there are several.
type Values = Vec<(Option<SmolStr>, f64)>;

impl<'a> Found<'a> {
    fn read(page: &'a str, row: &Row) -> Result<Self, PageError> {
        let mut samples: BTreeMap<&str, Vec<SampleLine<'_>>> = BTreeMap::new();
        let mut count = 0;
        for (line, text) in exposition::lines(page) {
            if !is_taken(row, exposition::name(text)) {
                continue;
            }
            let Some(Line::Sample(sample)) = exposition::read(text) else { return Err(PageError::Syntax { line }) };
            count += 1;
            if count > MAX_SAMPLES {
                return Err(PageError::TooMuch { what: "samples", limit: MAX_SAMPLES });
            }
            samples.entry(sample.name).or_default().push(sample);
        }
        Ok(Self { samples, copies: row.copies })
    }

    fn take(&self, from: &From) -> Option<Result<Values, PageError>> {
        let one = |value: f64| Some(Ok(vec![(None, value)]));
        match from {
            From::Sum(picks) => one(picks.iter().map(|pick| self.sum(pick)).sum::<Option<f64>>()?),
            From::Max(pick) => one(self.each(pick)?.into_values().fold(0.0, f64::max)),
            From::Ratio(part, whole) => {
                let (part, whole) = (self.sum(part)?, self.sum(whole)?);
                one(if whole > 0.0 { part / whole } else { 0.0 })
            }
            From::NotAll(pick) => one(f64::from(u8::from(self.each(pick)?.into_values().any(|value| value != 1.0)))),
            From::By(pick, label) => {
                let mut values: BTreeMap<SmolStr, f64> = BTreeMap::new();
                for sample in self.samples.get(pick.name)? {
                    let key = without_hidden(sample.label(label));
                    let many = values.len() == MAX_VALUES && !values.contains_key(&*key);
                    if key.len() > MAX_VALUE_LENGTH || many {
                        return Some(Err(PageError::TooMuch { what: "values of a label", limit: MAX_VALUES }));
                    }
                    *values.entry(key.into()).or_default() += sample.value;
                }
                Some(Ok(values.into_iter().map(|(key, value)| (Some(key), value)).collect()))
            }
        }
    }

    fn sum(&self, pick: &Pick) -> Option<f64> {
        Some(self.each(pick)?.into_values().sum())
    }

    fn sum_of(&self, name: &str) -> Option<f64> {
        Some(self.each_of(name, None)?.into_values().sum())
    }

    fn each(&self, pick: &Pick) -> Option<BTreeMap<String, f64>> {
        self.each_of(pick.name, pick.only)
    }

    /// The values of a name by label set, the largest of copies; `None` if there are none.
    fn each_of(&self, name: &str, only: Option<(&str, &str)>) -> Option<BTreeMap<String, f64>> {
        let mut values: BTreeMap<String, f64> = BTreeMap::new();
        for sample in self.samples.get(name)? {
            if only.is_some_and(|(label, value)| sample.label(label) != value) {
                continue;
            }
            let mut own: Vec<_> = sample.labels.iter().filter(|(label, _)| !self.copies.contains(label)).collect();
            own.sort();
            let key = own.iter().map(|(label, value)| format!("{label}={value:?},")).collect();
            let value = values.entry(key).or_insert(sample.value);
            *value = value.max(sample.value);
        }
        (!values.is_empty()).then_some(values)
    }
}

/// Whether a row uses samples with this name.
fn is_taken(row: &Row, name: &str) -> bool {
    let is = |pick: &Pick| pick.name == name;
    let takes = |from: &From| match from {
        From::Sum(picks) => picks.iter().any(is),
        From::Max(pick) | From::NotAll(pick) | From::By(pick, _) => is(pick),
        From::Ratio(part, whole) => is(part) || is(whole),
    };
    let histogram = name.strip_suffix("_sum").or_else(|| name.strip_suffix("_count"));
    !name.is_empty()
        && (row.takes.iter().flat_map(|take| take.from).any(takes)
            || histogram.is_some_and(|name| row.phases.iter().any(|(_, names)| names.contains(&name))))
}
