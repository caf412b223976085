//! One rule: its conditions and whether they fit together, its labels and what it says.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::condition;
use super::template;
use crate::config::mistakes::{Mistakes, join, quoted};
use crate::config::resolved::alerts::{Condition, Part, Rule, Severity, Template};
use crate::config::section::{Section, convert_at, entries, list};
use crate::config::tree::{Node, Value};
use crate::config::value::{self, expected, string};

/// Most further conditions of a rule.
const MAX_AND: usize = 4;

/// Labels that every alert has besides those of its series and its rule; the receiver's routes rely on them.
const GIVEN: [&str; 4] = ["alertname", "instance", "job", "severity"];

/// Reads the rule in `section`.
pub(super) fn rule(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Rule> {
    let name = section.required("alert", name, mistakes);
    let condition = condition(section, Some(&section.section("divide_by", mistakes)), mistakes);
    let and = and(section, mistakes);
    let by = section.optional("by", label_list, mistakes);
    let hold = section.read("for", Duration::ZERO, value::span, mistakes);
    let keep_firing = section.read("keep_firing_for", Duration::ZERO, value::span, mistakes);
    let severity = section.required("severity", severity, mistakes);
    let labels = texts(section, "labels", label_value, mistakes);
    let annotations = texts(section, "annotations", |node| string(node).and_then(template::parse), mistakes);
    let mut rule = Rule {
        name: name?,
        condition: condition?,
        and: and?,
        by: None,
        hold: hold?.value,
        keep_firing: keep_firing?.value,
        severity: severity?,
        labels: labels?,
        annotations: annotations?,
    };
    // All three, so that all that is wrong is said.
    let by = by?.map(|names| resolve_by(&rule, section, &names, mistakes));
    let alike = by.is_some() || same_labels(&rule, section, mistakes);
    let labels_free = labels_are_free(&rule, section, mistakes);
    rule.by = match by {
        None => None,
        Some(by) => Some(by?),
    };
    (alike && labels_free && annotations_know_labels(&rule, section, mistakes)).then_some(rule)
}

fn and(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Vec<Condition>> {
    let Some((path, node)) = section.node("and") else { return Some(Vec::new()) };
    let items = list(&path, node, "a list of conditions", MAX_AND, mistakes)?;
    let read = items.iter().enumerate().map(|(i, item)| {
        let path = format!("{path}[{i}]");
        condition(&Section::open(&path, "alerts.rules[].and[]", Some(item), mistakes), None, mistakes)
    });
    // All of them are read before the first bad one ends it.
    read.collect::<Vec<_>>().into_iter().collect()
}

/// The names in `by`, which every metric of the rule must have.
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
                let message = format!("{} is no label of {}", quoted(name), metric.name);
                section.mistake(Some("by"), message, mistakes);
                return None;
            }
        }
        by.extend(known);
    }
    Some(by)
}

/// Without `by`, values are put together by all of their labels, which only works when these have the same names.
fn same_labels(rule: &Rule, section: &Section<'_>, mistakes: &mut Mistakes) -> bool {
    let names = |labels: &[&'static str]| {
        let mut names = labels.to_vec();
        names.sort_unstable();
        names
    };
    let first = rule.condition.operand.selector.metric;
    let other = rule.operands().map(|operand| operand.selector.metric).find(|m| names(m.labels) != names(first.labels));
    if let Some(other) = other {
        let message = format!("{} has other labels than {}; name the common ones in `by`", first.name, other.name);
        section.mistake(Some("metric"), message, mistakes);
    }
    other.is_none()
}

/// Labels of the series that an alert keeps.
fn series_labels(rule: &Rule) -> &[&'static str] {
    rule.by.as_deref().unwrap_or(rule.condition.operand.selector.metric.labels)
}

/// The rule's own labels must not take the place of others: two alerts could become one.
fn labels_are_free(rule: &Rule, section: &Section<'_>, mistakes: &mut Mistakes) -> bool {
    let metric = rule.condition.operand.selector.metric;
    let taken =
        rule.labels.keys().find(|name| GIVEN.contains(&name.as_str()) || metric.labels.contains(&name.as_str()));
    if let Some(name) = taken {
        let whose = if GIVEN.contains(&name.as_str()) { "every alert" } else { metric.name };
        section.mistake(Some("labels"), format!("{} is a label of {whose} already", quoted(name)), mistakes);
    }
    taken.is_none()
}

/// A placeholder of a label that the series has not would leave a hole in the text. As in Prometheus, the rule's own labels
/// are none of the series'.
fn annotations_know_labels(rule: &Rule, section: &Section<'_>, mistakes: &mut Mistakes) -> bool {
    let known = |name: &str| series_labels(rule).contains(&name) || ["instance", "job"].contains(&name);
    let mut right = true;
    for (annotation, Template(parts)) in &rule.annotations {
        for part in parts {
            if let Part::Label(name) = part
                && !known(name)
            {
                let message = format!("{annotation}: the series have no label {}", quoted(name));
                section.mistake(Some("annotations"), message, mistakes);
                right = false;
            }
        }
    }
    right
}

/// A mapping of names to texts.
fn texts<T>(
    section: &Section<'_>,
    name: &str,
    convert: fn(&Node) -> Result<T, String>,
    mistakes: &mut Mistakes,
) -> Option<BTreeMap<String, T>> {
    let Some((path, node)) = section.node(name) else { return Some(BTreeMap::new()) };
    let mut read = BTreeMap::new();
    for entry in entries(&path, node, "a mapping of names to strings", mistakes)? {
        let path = join(&path, &entry.key);
        if let Err(message) = label_name(&entry.key) {
            mistakes.push(entry.key_pos, &path, message);
        }
        if let Some(at) = convert_at(path, entry.key_pos, &entry.value, convert, mistakes) {
            read.insert(entry.key.clone(), at.value);
        }
    }
    Some(read)
}

fn label_name(name: &str) -> Result<(), String> {
    let first = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match first && !name.starts_with("__") && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        true => Ok(()),
        false => Err(format!("{} is no label name: letters, digits and _, and no __ in front", quoted(name))),
    }
}

fn label_list(node: &Node) -> Result<Vec<String>, String> {
    let Value::List(items) = &node.value else { return Err(expected("a list of label names", node)) };
    let mut names: Vec<String> = Vec::new();
    for item in items {
        let name = string(item)?;
        if names.iter().any(|known| known == name) {
            return Err(format!("{} is in the list twice", quoted(name)));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The name of an alert: a label value that people type into routes and silences.
pub(super) fn name(node: &Node) -> Result<String, String> {
    let name = string(node)?;
    match name.len() <= 128 && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c)) {
        true => Ok(name.to_owned()),
        false => Err(format!("{} is no name of an alert: up to 128 letters, digits and _ - . :", quoted(name))),
    }
}

/// A label's value: the same for every alert of the rule.
fn label_value(node: &Node) -> Result<String, String> {
    let text = value::text(node)?;
    match text.contains("{{") {
        true => Err("a label is not a template: its value would change, and the alert with it".to_owned()),
        false => Ok(text),
    }
}

pub(super) fn severity(node: &Node) -> Result<Severity, String> {
    let names = Severity::ALL.map(Severity::name);
    let text = string(node).map_err(|_| expected(&names.join(", "), node))?;
    let found = Severity::ALL.into_iter().find(|severity| severity.name() == text);
    found.ok_or_else(|| expected(&names.join(", "), node))
}
