//! A rule: its conditions, labels and annotations, and their consistency.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::condition::{COMPARISON, OPERAND, condition, write_comparison, write_operand};
use super::template::TEMPLATE;
use super::types::{Condition, Part, Rule, Severity, Template};
use crate::config::kind::{Describe, Inner, Item, Kind, Mapping, Scalar, Span, TEXT, Words, Written, key, string_like};
use crate::config::mistakes::{Mistakes, quoted};
use crate::config::schema::{self, Group};
use crate::config::section::{Field, Section};
use crate::config::tree::{Node, Value};
use crate::config::value::{self, expected, string};
use crate::config::yaml::Yaml;

/// The keys of a rule.
const RULE: &[Item] = &[
    key("alert", "Name of the rule. A rule with the name of a shipped rule replaces it.", &NAME),
    key("", "", &Group { text: "", items: OPERAND }),
    key(
        "divide_by",
        "Divisor; makes the value a ratio.",
        &Group { text: "mapping of `metric` and a function, as above", items: OPERAND },
    ),
    key("by", "Labels to keep when summing values over all other labels; absent: no aggregation.", &LABEL_NAMES),
    key("", "", &Group { text: "", items: COMPARISON }),
    key("and", "Additional conditions, which must be true for the same labels.", &Conditions),
    key("for", "How long the conditions must be true before the alert fires; absent: it fires immediately.", &SPAN),
    key("keep_firing_for", "How long the alert keeps firing after the conditions are no longer true.", &SPAN),
    key("severity", "Value of the label `severity`.", &SEVERITY),
    key("labels", "Additional labels of the alert.", &LABELS),
    key(
        "annotations",
        "Texts for people. The templates `{{ $labels.NAME }}`, `{{ $value }}` and `{{ $threshold }}` are expanded; numbers can be \
         formatted with `| humanize`, `humanize1024`, `humanizeDuration` or `humanizePercentage`.",
        &ANNOTATIONS,
    ),
];

/// The keys of an additional condition.
const CONDITION: &[Item] =
    &[key("", "", &Group { text: "", items: OPERAND }), key("", "", &Group { text: "", items: COMPARISON })];

/// Duration for `for` and `keep_firing_for`.
pub(super) const SPAN: Span = Span("0s", "31d");

pub(super) const SEVERITY: Words<Severity> = Words(Severity::WORDS);

/// Maximum number of rules in a file.
const MAX_RULES: usize = 500;

/// Maximum number of additional conditions of a rule.
const MAX_AND: usize = 4;

/// Labels that every alert has besides those of its series and its rule; routes of the receiver depend on them.
const GIVEN: [&str; 4] = ["alertname", "instance", "job", "severity"];

/// A list of rules with unique names.
pub(super) struct Rules;

impl Describe for Rules {
    fn text(&self) -> String {
        "list of rules".to_owned()
    }

    fn schema(&self) -> Json {
        let mut rule = schema::object(RULE);
        rule["type"] = "object".into();
        rule["required"] = json!(["alert", "metric", "severity"]);
        json!({"type": "array", "maxItems": MAX_RULES, "items": rule})
    }

    fn inner(&self) -> Inner {
        Inner::Each("[]", RULE)
    }
}

impl Kind for Rules {
    type Value = Vec<Rule>;

    fn read(&self, written: &Written<'_>, mistakes: &mut Mistakes) -> Option<Self::Value> {
        let mut names = BTreeMap::new();
        let mut rules = Vec::new();
        for item in written.items("a list of rules", MAX_RULES, mistakes)? {
            let section = Section::open(&item, RULE, mistakes);
            let Some(rule) = rule(&section, mistakes) else { continue };
            if let Some(line) = names.insert(rule.name.clone(), item.node.pos.line) {
                let message = format!("duplicate rule {}; first defined on line {line}", quoted(&rule.name));
                section.mistake(Some("alert"), message, mistakes);
            }
            rules.push(rule);
        }
        Some(rules)
    }

    fn write(&self, rules: &Self::Value) -> Yaml {
        Yaml::List(rules.iter().map(write).collect())
    }
}

/// A rule in the syntax of the configuration.
fn write(rule: &Rule) -> Yaml {
    let mut map = Yaml::empty_map();
    map.put("alert", NAME.write(&rule.name));
    write_operand(&rule.condition.operand, &mut map);
    if let Some(divisor) = &rule.condition.divide_by {
        let mut operand = Yaml::empty_map();
        write_operand(divisor, &mut operand);
        map.put("divide_by", operand);
    }
    if let Some(by) = &rule.by {
        map.put("by", Yaml::List(by.iter().map(Yaml::text).collect()));
    }
    write_comparison(&rule.condition, &mut map);
    if !rule.and.is_empty() {
        let conditions = rule.and.iter().map(|condition| {
            let mut map = Yaml::empty_map();
            write_operand(&condition.operand, &mut map);
            write_comparison(condition, &mut map);
            map
        });
        map.put("and", Yaml::List(conditions.collect()));
    }
    for (name, span) in [("for", rule.hold), ("keep_firing_for", rule.keep_firing)] {
        if !span.is_zero() {
            map.put(name, SPAN.write(&span));
        }
    }
    map.put("severity", SEVERITY.write(&rule.severity));
    if !rule.labels.is_empty() {
        map.put("labels", LABELS.write(&rule.labels));
    }
    if !rule.annotations.is_empty() {
        map.put("annotations", ANNOTATIONS.write(&rule.annotations));
    }
    map
}

/// Reads the rule in `section`.
fn rule(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Rule> {
    let name = section.required("alert", &NAME, mistakes);
    let condition = condition(section, Some(&section.below("divide_by")), mistakes);
    let and = and(section, mistakes);
    let by = section.optional("by", &LABEL_NAMES, mistakes);
    let hold = SPAN.get(section, "for", || Duration::ZERO, mistakes);
    let keep_firing = SPAN.get(section, "keep_firing_for", || Duration::ZERO, mistakes);
    let severity = section.required("severity", &SEVERITY, mistakes);
    let labels = LABELS.get(section, "labels", BTreeMap::new, mistakes);
    let annotations = ANNOTATIONS.get(section, "annotations", BTreeMap::new, mistakes);
    let mut rule = Rule {
        name: name?,
        condition: condition?,
        and: and?,
        by: None,
        hold,
        keep_firing,
        severity: severity?,
        labels,
        annotations,
    };
    // All three checks run, so that every error is reported at once.
    let by = by?.map(|names| resolve_by(&rule, section, &names, mistakes));
    let alike = by.is_some() || same_labels(&rule, section, mistakes);
    let labels_free = labels_are_free(&rule, section, mistakes);
    rule.by = match by {
        None => None,
        Some(by) => Some(by?),
    };
    (alike && labels_free && annotations_know_labels(&rule, section, mistakes)).then_some(rule)
}

/// The additional conditions.
struct Conditions;

impl Describe for Conditions {
    fn text(&self) -> String {
        format!("list of at most {MAX_AND} conditions")
    }

    fn schema(&self) -> Json {
        let mut condition = schema::object(CONDITION);
        condition["type"] = "object".into();
        condition["required"] = json!(["metric"]);
        json!({"type": "array", "maxItems": MAX_AND, "items": condition})
    }

    fn inner(&self) -> Inner {
        Inner::Each("[]", CONDITION)
    }
}

fn and(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Vec<Condition>> {
    let Some(written) = section.written("and") else { return Some(Vec::new()) };
    let items = written.items("a list of conditions", MAX_AND, mistakes)?;
    let read = items.iter().map(|item| condition(&Section::open(item, CONDITION, mistakes), None, mistakes));
    // All of them are read, even after an invalid one.
    read.collect::<Vec<_>>().into_iter().collect()
}

/// The labels in `by`, which every metric of the rule must have.
fn resolve_by(
    rule: &Rule,
    section: &Section<'_>,
    names: &[String],
    mistakes: &mut Mistakes,
) -> Option<Vec<&'static str>> {
    let mut by = Vec::new();
    for name in names {
        let mut known = None;
        for metric in rule.operands().map(|operand| operand.selector.metric) {
            known = metric.labels.iter().copied().find(|label| label == name);
            if known.is_none() {
                let message = format!("{} is not a label of {}", quoted(name), metric.name);
                section.mistake(Some("by"), message, mistakes);
                return None;
            }
        }
        by.extend(known);
    }
    Some(by)
}

/// Without `by`, values are matched by all of their labels, which requires the same label names.
fn same_labels(rule: &Rule, section: &Section<'_>, mistakes: &mut Mistakes) -> bool {
    let names = |labels: &[&'static str]| {
        let mut names = labels.to_vec();
        names.sort_unstable();
        names
    };
    let first = rule.condition.operand.selector.metric;
    let other = rule.operands().map(|operand| operand.selector.metric).find(|m| names(m.labels) != names(first.labels));
    if let Some(other) = other {
        let message = format!("{} and {} have different labels; list the common ones in `by`", first.name, other.name);
        section.mistake(Some("metric"), message, mistakes);
    }
    other.is_none()
}

/// Labels of the series that the alert keeps.
fn series_labels(rule: &Rule) -> &[&'static str] {
    rule.by.as_deref().unwrap_or(rule.condition.operand.selector.metric.labels)
}

/// The rule's own labels must not replace others: two alerts could become one.
fn labels_are_free(rule: &Rule, section: &Section<'_>, mistakes: &mut Mistakes) -> bool {
    let metric = rule.condition.operand.selector.metric;
    let taken =
        rule.labels.keys().find(|name| GIVEN.contains(&name.as_str()) || metric.labels.contains(&name.as_str()));
    if let Some(name) = taken {
        let whose = if GIVEN.contains(&name.as_str()) { "every alert" } else { metric.name };
        section.mistake(Some("labels"), format!("{} is already a label of {whose}", quoted(name)), mistakes);
    }
    taken.is_none()
}

/// A template of a label that the series does not have would leave a gap in the text. As in Prometheus, the rule's own
/// labels are not available.
fn annotations_know_labels(rule: &Rule, section: &Section<'_>, mistakes: &mut Mistakes) -> bool {
    let known = |name: &str| series_labels(rule).contains(&name) || ["instance", "job"].contains(&name);
    let mut right = true;
    for (annotation, Template(parts)) in &rule.annotations {
        for part in parts {
            if let Part::Label(name) = part
                && !known(name)
            {
                let message = format!("{annotation}: the series has no label {}", quoted(name));
                section.mistake(Some("annotations"), message, mistakes);
                right = false;
            }
        }
    }
    right
}

const LABELS: Mapping<Scalar<String>> = texts(Scalar { read: label_value, ..TEXT });

const ANNOTATIONS: Mapping<Scalar<Template>> = texts(TEMPLATE);

const fn texts<T>(value: Scalar<T>) -> Mapping<Scalar<T>> {
    Mapping {
        text: "mapping of names to strings",
        expected: "a mapping of names to strings",
        most: usize::MAX,
        name: label_name,
        value,
    }
}

fn label_name(name: &str) -> Result<String, String> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match first && !name.starts_with("__") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(name.to_owned()),
        false => Err(format!("{} is not a label name: use letters, digits and _, not starting with __", quoted(name))),
    }
}

/// A label value: the same for all alerts of the rule.
fn label_value(node: &Node) -> Result<String, String> {
    let text = value::text(node)?;
    match text.contains("{{") {
        true => Err("a label cannot be a template, because a changed value would be a different alert".to_owned()),
        false => Ok(text),
    }
}

const LABEL_NAMES: Scalar<Vec<String>> = Scalar {
    text: "list of label names",
    schema: || json!({"type": ["array", "null"], "items": {"type": "string"}, "uniqueItems": true}),
    read: label_list,
    write: |names| Yaml::List(names.iter().map(Yaml::text).collect()),
};

fn label_list(node: &Node) -> Result<Vec<String>, String> {
    let Value::List(items) = &node.value else { return Err(expected("a list of label names", node)) };
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let name = string(item)?;
        if names.iter().any(|known| known == name) {
            return Err(format!("{} is listed twice", quoted(name)));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// An alert name: a label value that people type into routes and silences.
const NAME: Scalar<String> =
    Scalar { text: "name", schema: || string_like("^[A-Za-z0-9_.:-]{1,128}$"), read: name, write: Yaml::text };

fn name(node: &Node) -> Result<String, String> {
    let name = string(node)?;
    match name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c)) {
        true => Ok(name.to_owned()),
        false => Err(format!("{} is not an alert name: use up to 128 letters, digits and _ - . :", quoted(name))),
    }
}
