//! One condition of a rule: which series, what is made of them, and what that is compared with.

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
        "What is watched, such as `citadel_model_requests_total{code=~\"5..\"}`. The metric must be in the catalogue.",
        &SELECTOR,
    ),
    key("rate", "A counter's growth a second over that time.", &WINDOW),
    key("increase", "A counter's growth over that time, the first event included.", &WINDOW),
    key("quantile", "A quantile of what a histogram observed, with `over`.", &QUANTILE),
    key("predict", "What a gauge will be so much later, along the line of the time `over`.", &WINDOW),
    key("over", "How far `quantile` and `predict` look back.", &WINDOW),
];

/// The keys of a comparison.
pub(super) const COMPARISON: &[Item] = &[
    key("above", "True when the value is greater. One of these six is needed.", &NUMBER),
    key("at_least", "True when the value is greater or equal.", &NUMBER),
    key("below", "True when the value is less.", &NUMBER),
    key("at_most", "True when the value is less or equal.", &NUMBER),
    key("equal", "True when the value is equal.", &NUMBER),
    key("not_equal", "True when the value is another.", &NUMBER),
];

/// How far something looks back or ahead.
const WINDOW: Span = Span("1s", "31d");

const QUANTILE: Scalar<f64> = Scalar {
    text: "number, 0 to 1",
    schema: || json!({"type": "number", "minimum": 0, "maximum": 1}),
    read: |node| {
        let quantile = value::number(node)?;
        match (0.0..=1.0).contains(&quantile) {
            true => Ok(quantile),
            false => Err(format!("{quantile} is no quantile (0 to 1)")),
        }
    },
    ..NUMBER
};

/// Reads the comparison and the operand of `section`, and the divisor of `divisor`, where there can be one.
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

/// The one comparison that is written.
fn compare(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<(Compare, f64)> {
    let written: Vec<_> = Compare::ALL.iter().filter(|(_, key, _)| section.has(key)).collect();
    match written.as_slice() {
        [(compare, key, _)] => Some((*compare, section.required(key, &NUMBER, mistakes)?)),
        [] => {
            let keys = Compare::ALL.map(|(_, key, _)| key).join(", ");
            section.mistake(None, format!("is compared with nothing: one of {keys} is needed"), mistakes);
            None
        }
        [(_, first, _), .., (_, last, _)] => {
            section.mistake(Some(last), format!("there is {first} already; one comparison a condition"), mistakes);
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

/// The function that is written, if one is.
fn function(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Function> {
    const FUNCTIONS: [&str; 4] = ["rate", "increase", "quantile", "predict"];
    let written: Vec<_> = FUNCTIONS.into_iter().filter(|key| section.has(key)).collect();
    if let [first, .., last] = written.as_slice() {
        section.mistake(Some(last), format!("there is {first} already; one function a metric"), mistakes);
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
        section.mistake(Some("over"), "goes with quantile and predict only", mistakes);
        return None;
    }
    Some(function)
}

fn over_of(section: &Section<'_>, key: &str, over: Option<Duration>, mistakes: &mut Mistakes) -> Option<Duration> {
    if over.is_none() {
        section.mistake(Some(key), "needs `over`, how far it looks back", mistakes);
    }
    over
}

/// Whether the function can be made of such a metric: PromQL would give numbers without meaning, or nothing.
fn fits(selector: &Selector, function: Function) -> Result<(), String> {
    let (name, kind) = (selector.metric.name, selector.metric.kind);
    match (function, kind) {
        (Function::Quantile { .. }, catalogue::Kind::Histogram) => Ok(()),
        (Function::Quantile { .. }, _) => Err(format!("{name} is no histogram, which quantile needs")),
        (_, catalogue::Kind::Histogram) => Err(format!("{name} is a histogram: a quantile of it is needed")),
        (Function::Rate { .. } | Function::Increase { .. }, catalogue::Kind::Gauge) => {
            Err(format!("{name} is a gauge, which has no rate; rate and increase are for counters"))
        }
        (Function::Predict { .. }, catalogue::Kind::Counter) => {
            Err(format!("{name} is a counter; predict is for gauges"))
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
