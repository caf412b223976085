//! Evaluates a rule's conditions on a page: the label sets that satisfy all of them, each with its value. Pure.

use std::collections::BTreeMap;

use super::histogram::{Buckets, Distribution};
use super::increase::{Beside, counted_from, increases};
use super::window::{Key, Millis, Reading, Window};
use crate::config::resolved::alerts::{Condition, Function, Operand, Rule};
use crate::metrics::catalogue::Desc;
use crate::metrics::family::{Page, Value};

/// Labels of a result, sorted by name; a label with an empty value is absent.
pub(super) type Labels = BTreeMap<&'static str, String>;

/// A value for each label set.
pub(super) type Vector = BTreeMap<Labels, f64>;

/// What a rule remembers of earlier pages.
#[derive(Debug)]
pub(super) struct CarryOver {
    /// One per operand, in order; `None` for an operand that looks only at the current page.
    operands: Vec<Option<Past>>,
}

/// The history of an operand.
#[derive(Debug)]
struct Past {
    window: Window,
    /// For the increase of a counter that is absent while it is 0.
    beside: Option<Beside>,
}

impl Past {
    fn of(operand: &Operand) -> Option<Self> {
        let (metric, length) = (operand.selector.metric, operand.function.window()?);
        let increase = matches!(operand.function, Function::Increase { .. });
        let beside = increase.then(|| Beside::of(metric, length)).flatten();
        Some(Self { window: Window::new(metric, length), beside })
    }
}

impl CarryOver {
    pub(super) fn new(rule: &Rule) -> Self {
        Self { operands: rule.operands().map(Past::of).collect() }
    }

    /// Shifts all times after the clock was set by `by`.
    pub(super) fn clock_was_set(&mut self, by: Millis) {
        for past in self.operands.iter_mut().flatten() {
            past.window.clock_was_set(by);
            past.beside.iter_mut().for_each(|beside| beside.window.clock_was_set(by));
        }
    }
}

/// The label sets for which `rule` is true on this page.
pub(super) fn evaluate(rule: &Rule, memory: &mut CarryOver, page: &Page, now: Millis) -> Vector {
    let mut pasts = memory.operands.iter_mut();
    let mut operand = |operand: &Operand| vector(operand, rule, pasts.next().and_then(Option::as_mut), page, now);
    // Every operand must see every page, so none is skipped because of another one's result.
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

/// Divides where both have the label set; x/0 is infinite and 0/0 NaN, as in PromQL.
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
fn vector(operand: &Operand, rule: &Rule, past: Option<&mut Past>, page: &Page, now: Millis) -> Vector {
    let selector = &operand.selector;
    let readings = readings(page, selector.metric, |labels| selector.selects(labels));
    let sum = |series: &mut dyn Iterator<Item = (&Key, f64)>| {
        let mut sums = Vector::new();
        for (key, value) in series {
            *sums.entry(labels(operand, rule, key)).or_insert(0.0) += value;
        }
        sums
    };
    let Some(past) = past else {
        return sum(&mut readings.iter().filter_map(|(key, reading)| Some((key, reading.number()?))));
    };
    let Past { window, beside } = past;
    window.push(now, readings);
    if let Some(Beside { metric, window, .. }) = beside {
        window.push(now, self::readings(page, metric, |_| true));
    }
    match operand.function {
        Function::Value => Vector::new(),
        Function::Rate { .. } => sum(&mut window.rates(now)),
        Function::Increase { .. } => {
            let started = counted_from(page, selector.metric);
            sum(&mut increases(selector.metric, window, beside.as_ref(), started, now))
        }
        Function::Predict { ahead, .. } => sum(&mut window.predictions(now, ahead)),
        Function::Quantile { quantile, .. } => {
            let mut sums: BTreeMap<Labels, Distribution> = BTreeMap::new();
            for (key, rate) in window.distributions(now) {
                sums.entry(labels(operand, rule, key)).or_insert_with(Distribution::empty).add_scaled(&rate, 1.0);
            }
            let scale = selector.metric.buckets.map_or(1.0, crate::metrics::Buckets::scale);
            sums.into_iter().map(|(labels, rate)| (labels, rate.quantile(quantile) * scale)).collect()
        }
    }
}

/// The selected series of a metric on a page.
fn readings(page: &Page, metric: &Desc, selects: impl Fn(&Key) -> bool) -> BTreeMap<Key, Reading> {
    let families = page.families.iter().filter(|family| family.desc.name == metric.name);
    let samples = families.flat_map(|family| &family.samples).filter(|sample| selects(&sample.labels));
    samples
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

/// The labels that a series is aggregated by.
fn labels(operand: &Operand, rule: &Rule, key: &Key) -> Labels {
    let names = operand.selector.metric.labels.iter().copied();
    let kept = |name: &str| rule.by.as_ref().is_none_or(|by| by.contains(&name));
    names
        .zip(key)
        .filter(|(name, value)| kept(name) && !value.is_empty())
        .map(|(name, value)| (name, value.to_string()))
        .collect()
}
