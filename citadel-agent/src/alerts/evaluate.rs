//! What a rule's conditions give on a page: the label sets that fulfil them all, each with its value. Pure.

use std::collections::BTreeMap;

use super::histogram::{Buckets, Distribution};
use super::window::{Key, Millis, Reading, Window};
use crate::config::resolved::alerts::{Condition, Function, Operand, Rule};
use crate::metrics::family::{Family, Page, Value};

/// Labels of a result, sorted by name; an empty value is no label.
pub(super) type Labels = BTreeMap<&'static str, String>;

/// A value for each label set.
pub(super) type Vector = BTreeMap<Labels, f64>;

/// What a rule has to remember of earlier pages.
#[derive(Debug)]
pub(super) struct Memory {
    /// One for each operand, in their order; `None` where it does not look back.
    windows: Vec<Option<Window>>,
}

impl Memory {
    pub(super) fn new(rule: &Rule) -> Self {
        Self { windows: rule.operands().map(|operand| operand.function.window().map(Window::new)).collect() }
    }

    /// The clock was set by so much.
    pub(super) fn clock_was_set(&mut self, by: Millis) {
        self.windows.iter_mut().flatten().for_each(|window| window.clock_was_set(by));
    }
}

/// The label sets for which `rule` is true on this page.
pub(super) fn evaluate(rule: &Rule, memory: &mut Memory, page: &Page, now: Millis) -> Vector {
    let mut windows = memory.windows.iter_mut();
    let mut operand = |operand: &Operand| vector(operand, rule, windows.next().and_then(Option::as_mut), page, now);
    // Every operand must see every page, so none is skipped because of what another one gave.
    let mut results = rule.conditions().map(|condition| {
        let dividend = operand(&condition.operand);
        let value = match &condition.divide_by {
            None => dividend,
            Some(divisor) => divide(dividend, &operand(divisor)),
        };
        fulfilled(value, condition)
    });
    let first = results.next().unwrap_or_default();
    results.fold(first, |mut all, next| {
        all.retain(|labels, _| next.contains_key(labels));
        all
    })
}

fn fulfilled(mut value: Vector, condition: &Condition) -> Vector {
    value.retain(|_, value| condition.compare.holds(*value, condition.threshold));
    value
}

/// Label sets that both have; x/0 and 0/0 are infinite and no number, as in PromQL.
fn divide(mut dividend: Vector, divisor: &Vector) -> Vector {
    dividend.retain(|labels, value| {
        divisor.get(labels).is_some_and(|divisor| {
            *value /= divisor;
            true
        })
    });
    dividend
}

/// An operand's value for each label set.
fn vector(operand: &Operand, rule: &Rule, window: Option<&mut Window>, page: &Page, now: Millis) -> Vector {
    let readings = select(operand, page);
    let sum = |series: &mut dyn Iterator<Item = (&Key, f64)>| {
        let mut sums = Vector::new();
        for (key, value) in series {
            *sums.entry(labels(operand, rule, key)).or_insert(0.0) += value;
        }
        sums
    };
    let Some(window) = window else {
        return sum(&mut readings.iter().filter_map(|(key, reading)| match reading {
            Reading::Number(value) => Some((key, *value)),
            Reading::Buckets(_) => None,
        }));
    };
    window.push(now, readings);
    match operand.function {
        Function::Value => Vector::new(),
        Function::Rate { .. } => sum(&mut window.rates(now)),
        Function::Increase { .. } => sum(&mut window.increases(now)),
        Function::Predict { ahead, .. } => sum(&mut window.predictions(now, ahead)),
        Function::Quantile { quantile, .. } => {
            let mut sums: BTreeMap<Labels, Distribution> = BTreeMap::new();
            for (key, rate) in window.distributions(now) {
                sums.entry(labels(operand, rule, key)).or_insert_with(Distribution::empty).add_scaled(&rate, 1.0);
            }
            sums.into_iter().map(|(labels, rate)| (labels, rate.quantile(quantile))).collect()
        }
    }
}

/// The selected series of a page.
fn select(operand: &Operand, page: &Page) -> BTreeMap<Key, Reading> {
    let selector = &operand.selector;
    let family = |family: &&Family| family.desc.name == selector.metric.name;
    let samples = page.families.iter().filter(family).flat_map(|family| &family.samples);
    let selected = samples.filter(|sample| selector.selects(&sample.labels));
    selected
        .map(|sample| {
            let reading = match &sample.value {
                Value::Integer(value) => Reading::Number(*value as f64),
                Value::Float(value) => Reading::Number(*value),
                Value::Histogram(histogram) => Reading::Buckets(Buckets::from(&**histogram)),
            };
            (sample.labels.clone(), reading)
        })
        .collect()
}

/// The labels that a series is summed to.
fn labels(operand: &Operand, rule: &Rule, key: &Key) -> Labels {
    let names = operand.selector.metric.labels.iter().copied();
    let kept = |name: &str| rule.by.as_ref().is_none_or(|by| by.contains(&name));
    names
        .zip(key)
        .filter(|(name, value)| kept(name) && !value.is_empty())
        .map(|(name, value)| (name, value.to_string()))
        .collect()
}
