//! A condition of a rule: series, function, and comparison.

use std::time::Duration;

use serde_json::json;

use super::selector::SELECTOR;
use super::types::{Compare, Condition, Function, Operand, Selector};
use crate::config::kind::{Item, Kind, NUMBER, Scalar, Span, key};
use crate::config::mistakes::Mistakes;
use crate::config::section::Section;
use crate::config::value;
use crate::config::yaml::Yaml;
use crate::metrics::catalogue;

/// The keys of an operand.
pub(super) const OPERAND: &[Item] = &[
    key(
        "metric",
        "Metric to evaluate, such as `citadel_model_requests_total{code=~\"5..\"}`. It must be one of the agent's metrics.",
        &SELECTOR,
    ),
    key("rate", "Per-second rate of a counter over this time.", &WINDOW),
    key("increase", "Increase of a counter over this time, including the first event.", &WINDOW),
    key("quantile", "Quantile of a histogram over the time `over`.", &QUANTILE),
    key(
        "predict",
        "Predicted value of a gauge this time from now, by linear regression over the time `over`.",
        &WINDOW,
    ),
    key("over", "Window of `quantile` and `predict`.", &WINDOW),
];

/// The keys of a comparison.
pub(super) const COMPARISON: &[Item] = &[
    key("above", "True if the value is greater. Exactly one of these six is required.", &NUMBER),
    key("at_least", "True if the value is greater or equal.", &NUMBER),
    key("below", "True if the value is less.", &NUMBER),
    key("at_most", "True if the value is less or equal.", &NUMBER),
    key("equal", "True if the value is equal.", &NUMBER),
    key("not_equal", "True if the value is not equal.", &NUMBER),
];

/// A time window or prediction horizon.
const WINDOW: Span = Span("1s", "31d");

const QUANTILE: Scalar<f64> = Scalar {
    text: "number, 0 to 1",
    schema: || json!({"type": "number", "minimum": 0, "maximum": 1}),
    read: |node| {
        let quantile = value::number(node)?;
        match (0.0..=1.0).contains(&quantile) {
            true => Ok(quantile),
            false => Err(format!("{quantile} is not a quantile (0 to 1)")),
        }
    },
    ..NUMBER
};

/// Reads the comparison and the operand in `section`, and the divisor in `divisor`, if allowed.
pub(super) fn condition(
    section: &Section<'_>,
    divisor: Option<&Section<'_>>,
    mistakes: &mut Mistakes,
) -> Option<Condition> {
    let first = operand(section, mistakes);
    let divide_by = match divisor {
        Some(divisor) if divisor.is_written() => Some(operand(divisor, mistakes)),
        _ => None,
    };
    let compare = compare(section, mistakes);
    let (compare, threshold) = compare?;
    let divide_by = match divide_by {
        None => None,
        Some(read) => Some(read?),
    };
    Some(Condition { operand: first?, divide_by, compare, threshold })
}

/// The comparison, of which there must be exactly one.
fn compare(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<(Compare, f64)> {
    let written: Vec<_> = Compare::ALL.iter().filter(|(_, key, _)| section.has(key)).collect();
    match written.as_slice() {
        [(compare, key, _)] => Some((*compare, section.required(key, &NUMBER, mistakes)?)),
        [] => {
            let keys = Compare::ALL.map(|(_, key, _)| key).join(", ");
            section.mistake(None, format!("has no comparison; one of {keys} is required"), mistakes);
            None
        }
        [(_, first, _), .., (_, last, _)] => {
            section.mistake(
                Some(last),
                format!("conflicts with {first}; a condition has only one comparison"),
                mistakes,
            );
            None
        }
    }
}

fn operand(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Operand> {
    let selector = section.required("metric", &SELECTOR, mistakes);
    let function = function(section, mistakes);
    let operand = Operand { selector: selector?, function: function? };
    if let Err(message) = fits(&operand.selector, operand.function) {
        section.mistake(Some("metric"), message, mistakes);
        return None;
    }
    Some(operand)
}

/// The function, if any.
fn function(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Function> {
    const FUNCTIONS: [&str; 4] = ["rate", "increase", "quantile", "predict"];
    let written: Vec<_> = FUNCTIONS.into_iter().filter(|key| section.has(key)).collect();
    if let [first, .., last] = written.as_slice() {
        section.mistake(Some(last), format!("conflicts with {first}; a metric has only one function"), mistakes);
        return None;
    }
    let over = section.optional("over", &WINDOW, mistakes);
    let function = match written.first() {
        Some(&"rate") => Function::Rate { window: section.required("rate", &WINDOW, mistakes)? },
        Some(&"increase") => Function::Increase { window: section.required("increase", &WINDOW, mistakes)? },
        Some(&key) => {
            let window = over_of(section, key, over?, mistakes);
            match key {
                "quantile" => {
                    let quantile = section.required(key, &QUANTILE, mistakes);
                    Function::Quantile { quantile: quantile?, window: window? }
                }
                _ => {
                    let ahead = section.required(key, &WINDOW, mistakes);
                    Function::Predict { window: window?, ahead: ahead? }
                }
            }
        }
        None => Function::Value,
    };
    if section.has("over") && !matches!(function, Function::Quantile { .. } | Function::Predict { .. }) {
        section.mistake(Some("over"), "is only valid with quantile and predict", mistakes);
        return None;
    }
    Some(function)
}

fn over_of(section: &Section<'_>, key: &str, over: Option<Duration>, mistakes: &mut Mistakes) -> Option<Duration> {
    if over.is_none() {
        section.mistake(Some(key), "requires `over`, its time window", mistakes);
    }
    over
}

/// Whether the function applies to this type of metric: otherwise PromQL would return meaningless values or nothing.
fn fits(selector: &Selector, function: Function) -> Result<(), String> {
    let (name, kind) = (selector.metric.name, selector.metric.kind);
    match (function, kind) {
        (Function::Quantile { .. }, catalogue::Kind::Histogram) => Ok(()),
        (Function::Quantile { .. }, _) => Err(format!("{name} is not a histogram; quantile requires one")),
        (_, catalogue::Kind::Histogram) => Err(format!("{name} is a histogram; use quantile")),
        (Function::Rate { .. } | Function::Increase { .. }, catalogue::Kind::Gauge) => {
            Err(format!("{name} is a gauge; rate and increase are only for counters"))
        }
        (Function::Predict { .. }, catalogue::Kind::Counter) => {
            Err(format!("{name} is a counter; predict is only for gauges"))
        }
        _ => Ok(()),
    }
}

/// Adds the keys of an operand to a mapping.
pub(super) fn write_operand(operand: &Operand, map: &mut Yaml) {
    map.put("metric", SELECTOR.write(&operand.selector));
    let mut span = |name, span| map.put(name, WINDOW.write(&span));
    match operand.function {
        Function::Value => {}
        Function::Rate { window } => span("rate", window),
        Function::Increase { window } => span("increase", window),
        Function::Predict { window, ahead } => {
            span("predict", ahead);
            span("over", window);
        }
        Function::Quantile { quantile, window } => {
            span("over", window);
            map.put("quantile", QUANTILE.write(&quantile));
        }
    }
}

/// Adds the key of a comparison to a mapping.
pub(super) fn write_comparison(condition: &Condition, map: &mut Yaml) {
    map.put(condition.compare.key(), NUMBER.write(&condition.threshold));
}
