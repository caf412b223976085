//! The same rules as a Prometheus rule file. Pure.
//!
//! The expressions correspond to `evaluate` and `window`; the test `alert_engines` verifies that both agree.

use std::fmt::Write as _;
use std::time::Duration;

use super::annotation::number;
use crate::config::resolved::alerts::{Condition, Format, Function, Operand, Part, Rule, Template};
use crate::config::selector_text;
use crate::metrics::catalogue::{Section, Since};

/// The groups of the file: name, and the section whose metrics the rules are about.
const GROUPS: [(&str, Section); 6] = [
    ("citadel-models", Section::Models),
    ("citadel-gpu", Section::Gpu),
    ("citadel-system", Section::System),
    ("citadel-storage", Section::Storage),
    ("citadel-services", Section::Services),
    ("citadel-agent", Section::Agent),
];

/// The text of the rule file.
#[must_use]
pub fn rule_file(rules: &[Rule]) -> String {
    let mut text = String::from("# Made by `citadel-agent alerts rules --prometheus`.\ngroups:\n");
    for (group, section) in GROUPS {
        let mut of_section = rules.iter().filter(|rule| section_of(rule) == section).peekable();
        if of_section.peek().is_some() {
            _ = writeln!(text, "  - name: {group}\n    rules:");
        }
        of_section.for_each(|rule| write_rule(&mut text, rule));
    }
    text
}

fn section_of(rule: &Rule) -> Section {
    rule.condition.operand.selector.metric.section
}

fn write_rule(text: &mut String, rule: &Rule) {
    _ = writeln!(text, "      - alert: {}\n        expr: |-", quoted(&rule.name));
    for (i, condition) in rule.conditions().enumerate() {
        _ = writeln!(text, "          {}{}", if i > 0 { "and " } else { "" }, compared(condition, rule));
    }
    for (key, span) in [("for", rule.hold), ("keep_firing_for", rule.keep_firing)] {
        if !span.is_zero() {
            _ = writeln!(text, "        {key}: {}", duration(span));
        }
    }
    _ = writeln!(text, "        labels:\n          severity: {}", rule.severity.name());
    for (name, value) in &rule.labels {
        _ = writeln!(text, "          {name}: {}", quoted(value));
    }
    if !rule.annotations.is_empty() {
        _ = writeln!(text, "        annotations:");
    }
    for (name, template) in &rule.annotations {
        _ = writeln!(text, "          {name}: {}", quoted(&annotation(template, rule.condition.threshold)));
    }
}

fn compared(condition: &Condition, rule: &Rule) -> String {
    let mut value = summed(&condition.operand, rule);
    if let Some(divisor) = &condition.divide_by {
        value = format!("{value} / {}", summed(divisor, rule));
    }
    format!("{value} {} {}", condition.compare.operator(), condition.threshold)
}

/// An operand, summed over the labels that the rule drops. With `without` instead of `by`, so that `instance`, `job`
/// and other labels added by Prometheus are kept.
fn summed(operand: &Operand, rule: &Rule) -> String {
    let by = rule.by.as_deref();
    let left_out: Vec<_> =
        operand.selector.metric.labels.iter().filter(|l| by.is_some_and(|by| !by.contains(l))).collect();
    let names = left_out.iter().map(|name| **name).collect::<Vec<_>>().join(", ");
    let sum = |value: String| match left_out.is_empty() {
        true => value,
        false => format!("sum without ({names}) ({value})"),
    };
    let selector = selector_text(&operand.selector);
    match operand.function {
        Function::Value => sum(selector),
        Function::Rate { window } => {
            let value = grown("rate", operand, window);
            if left_out.is_empty() && value.contains(" unless ") { format!("({value})") } else { sum(value) }
        }
        Function::Predict { window, ahead } => {
            sum(format!("predict_linear({selector}[{}], {})", duration(window), ahead.as_secs_f64()))
        }
        Function::Increase { window } => {
            let value = increase(operand, window);
            if left_out.is_empty() { format!("({value})") } else { sum(value) }
        }
        Function::Quantile { quantile, window } => {
            let name = operand.selector.metric.name;
            let of = |selector: &str| {
                format!("histogram_quantile({quantile}, {})", sum(format!("rate({selector}[{}])", duration(window))))
            };
            // The native histogram if Prometheus stores it, else the classic one.
            format!("({} or {})", of(&selector), of(&selector.replacen(name, &format!("{name}_bucket"), 1)))
        }
    }
}

/// `rate` or `increase`; no result if a device's counter decreased, because that is another device.
fn grown(function: &str, operand: &Operand, window: Duration) -> String {
    let range = format!("{}[{}]", selector_text(&operand.selector), duration(window));
    match operand.selector.metric.since {
        Some(Since::Lifetime) => format!("{function}({range}) unless resets({range}) > 0"),
        _ => format!("{function}({range})"),
    }
}

/// The increase of a counter, including the first event of a series that appeared in the window: see `increase.rs`.
fn increase(operand: &Operand, window: Duration) -> String {
    let (metric, selector) = (operand.selector.metric, selector_text(&operand.selector));
    let (seconds, window_text) = (window.as_secs_f64(), duration(window));
    // Labels added by Prometheus are kept in the comparison.
    let began = match metric.since {
        // Pages without kernel programs lack the first.
        Some(Since::Programs) => "(citadel_probe_start_time_seconds or process_start_time_seconds)",
        _ => "process_start_time_seconds",
    };
    let agent_began = format!("ignoring ({}) {began} > time() - {seconds}", metric.labels.join(", "));
    let from_start = metric.counts_since_start();
    let mut cases = Vec::new();
    if from_start {
        cases.push(format!("{selector} and {agent_began}"));
    }
    if let Some(beside) = metric.beside {
        let more: Vec<_> = metric.labels.iter().copied().filter(|label| !beside.labels.contains(label)).collect();
        let samples = |selector: &str| format!("count_over_time({selector}[{window_text}])");
        let was_zero =
            format!("{} < ignoring ({}) group_left () {}", samples(&selector), more.join(", "), samples(beside.name));
        let older = if from_start { format!(" unless {agent_began}") } else { String::new() };
        cases.push(format!(
            "last_over_time({selector}[{window_text}]) and {was_zero} unless {selector} offset {window_text}{older}"
        ));
    }
    cases.push(grown("increase", operand, window));
    cases.join("\n            or ")
}

/// A duration in PromQL's syntax: a whole number of the largest unit that fits.
fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let fits = units.iter().find(|(_, length)| millis >= *length && millis.is_multiple_of(*length));
    fits.map_or_else(|| "0s".to_owned(), |(unit, length)| format!("{}{unit}", millis / length))
}

fn annotation(Template(parts): &Template, threshold: f64) -> String {
    let part = |part: &Part| match part {
        Part::Text(text) => text.clone(),
        Part::Label(name) => format!("{{{{ $labels.{name} }}}}"),
        Part::Value(format) => match Format::NAMED.iter().find(|(named, _)| named == format) {
            None => r#"{{ $value | printf "%.4g" }}"#.to_owned(),
            Some((_, name)) => format!("{{{{ $value | {name} }}}}"),
        },
        Part::Threshold(format) => number(*format, threshold),
    };
    parts.iter().map(part).collect()
}

/// A double-quoted YAML scalar: a JSON string is one (YAML 1.2.2, 7.3.1).
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
