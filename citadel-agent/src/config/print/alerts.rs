//! Alert rules as YAML: the way in which a person would write them.

use std::fmt::Display;

use super::{Yaml, duration, quote};
use crate::config::resolved::alerts::{Alerts, Condition, Format, Function, Operand, Part, Rule, Selector, Template};

/// The section `alerts`: all rules in force, those that were shipped among them.
pub(super) fn print(yaml: &mut Yaml, alerts: &Alerts) {
    yaml.section(0, "alerts");
    yaml.value(1, "enabled", alerts.enabled);
    yaml.value(1, "shipped", false);
    if alerts.rules.is_empty() {
        yaml.value(1, "rules", "[]");
        return;
    }
    yaml.section(1, "rules");
    for rule in &alerts.rules {
        print_rule(yaml, rule);
    }
}

fn print_rule(yaml: &mut Yaml, rule: &Rule) {
    yaml.value(2, "- alert", quote(&rule.name));
    print_operand(yaml, 3, &rule.condition.operand);
    if let Some(divisor) = &rule.condition.divide_by {
        yaml.section(3, "divide_by");
        print_operand(yaml, 4, divisor);
    }
    if let Some(by) = &rule.by {
        yaml.value(3, "by", format_args!("[{}]", by.join(", ")));
    }
    print_comparison(yaml, 3, &rule.condition);
    if !rule.and.is_empty() {
        yaml.section(3, "and");
        for condition in &rule.and {
            yaml.value(4, "- metric", quote(&selector(&condition.operand.selector)));
            print_function(yaml, 5, condition.operand.function);
            print_comparison(yaml, 5, condition);
        }
    }
    if !rule.hold.is_zero() {
        yaml.value(3, "for", duration(rule.hold));
    }
    if !rule.keep_firing.is_zero() {
        yaml.value(3, "keep_firing_for", duration(rule.keep_firing));
    }
    yaml.value(3, "severity", rule.severity.name());
    print_texts(yaml, "labels", rule.labels.iter().map(|(name, value)| (name, value.clone())));
    print_texts(yaml, "annotations", rule.annotations.iter().map(|(name, text)| (name, template(text))));
}

fn print_texts<'a>(yaml: &mut Yaml, name: &str, texts: impl ExactSizeIterator<Item = (&'a String, String)>) {
    if texts.len() > 0 {
        yaml.section(3, name);
    }
    for (name, text) in texts {
        yaml.value(4, name, quote(&text));
    }
}

fn print_operand(yaml: &mut Yaml, depth: usize, operand: &Operand) {
    yaml.value(depth, "metric", quote(&selector(&operand.selector)));
    print_function(yaml, depth, operand.function);
}

fn print_function(yaml: &mut Yaml, depth: usize, function: Function) {
    let mut span = |name: &str, span| yaml.value(depth, name, duration(span));
    match function {
        Function::Value => {}
        Function::Rate { window } => span("rate", window),
        Function::Increase { window } => span("increase", window),
        Function::Predict { window, ahead } => {
            span("predict", ahead);
            span("over", window);
        }
        Function::Quantile { quantile, window } => {
            span("over", window);
            yaml.value(depth, "quantile", number(quantile));
        }
    }
}

fn print_comparison(yaml: &mut Yaml, depth: usize, condition: &Condition) {
    yaml.value(depth, condition.compare.key(), number(condition.threshold));
}

/// The shortest text that is this number again.
fn number(value: f64) -> impl Display {
    format!("{value:?}")
}

/// In the syntax of PromQL.
#[must_use]
pub fn selector(selector: &Selector) -> String {
    let matchers = selector.matchers.iter().map(|matcher| {
        let (operator, text) = matcher.test.parts();
        format!("{}{operator}{}", matcher.label, promql_string(text))
    });
    match selector.matchers.is_empty() {
        true => selector.metric.name.to_owned(),
        false => format!("{}{{{}}}", selector.metric.name, matchers.collect::<Vec<_>>().join(", ")),
    }
}

fn promql_string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn template(Template(parts): &Template) -> String {
    let number = |variable: &str, format: &Format| match Format::NAMED.iter().find(|(named, _)| named == format) {
        None => format!("{{{{ ${variable} }}}}"),
        Some((_, name)) => format!("{{{{ ${variable} | {name} }}}}"),
    };
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Label(name) => format!("{{{{ $labels.{name} }}}}"),
        Part::Value(format) => number("value", format),
        Part::Threshold(format) => number("threshold", format),
    };
    parts.iter().map(part).collect()
}
