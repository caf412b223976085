//! One condition of a rule: which series, what is made of them, and what that is compared with.

use std::time::Duration;

use super::selector;
use crate::config::mistakes::Mistakes;
use crate::config::resolved::alerts::{Compare, Condition, Function, Operand, Selector};
use crate::config::section::Section;
use crate::config::tree::Node;
use crate::config::value::{self, string};
use crate::metrics::catalogue::Kind;

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
        [(compare, key, _)] => Some((*compare, section.required(key, value::number, mistakes)?)),
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
    let selector = section.required("metric", |node: &Node| string(node).and_then(selector::parse), mistakes);
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
    let over = section.optional("over", value::window, mistakes);
    let function = match written.first() {
        Some(&"rate") => Function::Rate { window: section.required("rate", value::window, mistakes)? },
        Some(&"increase") => Function::Increase { window: section.required("increase", value::window, mistakes)? },
        Some(&key) => {
            let window = over_of(section, key, over?, mistakes);
            match key {
                "quantile" => {
                    let quantile = section.required(key, quantile, mistakes);
                    Function::Quantile { quantile: quantile?, window: window? }
                }
                _ => {
                    let ahead = section.required(key, value::window, mistakes);
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

fn quantile(node: &Node) -> Result<f64, String> {
    let quantile = value::number(node)?;
    match (0.0..=1.0).contains(&quantile) {
        true => Ok(quantile),
        false => Err(format!("{quantile} is no quantile (0 to 1)")),
    }
}

/// Whether the function can be made of such a metric: PromQL would give numbers without meaning, or nothing.
fn fits(selector: &Selector, function: Function) -> Result<(), String> {
    let (name, kind) = (selector.metric.name, selector.metric.kind);
    match (function, kind) {
        (Function::Quantile { .. }, Kind::Histogram) => Ok(()),
        (Function::Quantile { .. }, _) => Err(format!("{name} is no histogram, which quantile needs")),
        (_, Kind::Histogram) => Err(format!("{name} is a histogram: a quantile of it is needed")),
        (Function::Rate { .. } | Function::Increase { .. }, Kind::Gauge) => {
            Err(format!("{name} is a gauge, which has no rate; rate and increase are for counters"))
        }
        (Function::Predict { .. }, Kind::Counter) => Err(format!("{name} is a counter; predict is for gauges")),
        _ => Ok(()),
    }
}
