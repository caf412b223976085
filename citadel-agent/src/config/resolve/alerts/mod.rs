//! `alerts`: the shipped rules, what is changed of them, and further ones.

mod condition;
mod rule;
mod selector;
mod template;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::config::mistakes::{Mistakes, join, nearest, quoted};
use crate::config::resolved::alerts::{Alerts, Rule};
use crate::config::section::{Section, entries, list};
use crate::config::tree;
use crate::config::value;

/// Most rules of one's own.
const MAX_RULES: usize = 500;

/// The shipped rules, one file a section of the catalogue, written as an operator would write them.
const SHIPPED: [&str; 6] = [
    include_str!("../../rules/models.yaml"),
    include_str!("../../rules/gpu.yaml"),
    include_str!("../../rules/system.yaml"),
    include_str!("../../rules/storage.yaml"),
    include_str!("../../rules/services.yaml"),
    include_str!("../../rules/agent.yaml"),
];

/// The rules that serve without a file.
pub(in crate::config) fn shipped() -> Vec<Rule> {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let mut mistakes = Mistakes::default();
        let mut rules = Vec::new();
        for text in SHIPPED {
            let root = tree::parse(text, &mut mistakes).flatten();
            let section = Section::root(root.as_ref(), &mut mistakes).section("alerts", &mut mistakes);
            rules.extend(own_rules(&section, &mut mistakes).unwrap_or_default());
        }
        let mistakes = mistakes.into_vec();
        assert!(mistakes.is_empty(), "the shipped rules, which are part of the program, are wrong: {mistakes:#?}");
        rules
    });
    RULES.clone()
}

pub(super) fn alerts(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Alerts> {
    let enabled = section.read("enabled", true, value::boolean, mistakes);
    let with_shipped = section.read("shipped", true, value::boolean, mistakes);
    let mut rules = match with_shipped.as_ref().is_none_or(|at| at.value) {
        true => shipped(),
        false => Vec::new(),
    };
    overrides(section, &mut rules, mistakes);
    for own in own_rules(section, mistakes)? {
        match rules.iter_mut().find(|rule| rule.name == own.name) {
            Some(rule) => *rule = own,
            None => rules.push(own),
        }
    }
    Some(Alerts { enabled: enabled?.value, rules })
}

/// The rules in `alerts.rules`; no two of one name.
fn own_rules(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Vec<Rule>> {
    let Some((path, node)) = section.node("rules") else { return Some(Vec::new()) };
    let items = list(&path, node, "a list of rules", MAX_RULES, mistakes)?;
    let mut names = BTreeMap::new();
    let mut rules = Vec::new();
    for (i, item) in items.iter().enumerate() {
        let item_path = format!("{path}[{i}]");
        let section = Section::open(&item_path, "alerts.rules[]", Some(item), mistakes);
        let Some(rule) = rule::rule(&section, mistakes) else { continue };
        if let Some(line) = names.insert(rule.name.clone(), item.pos.line) {
            let message = format!("there is a rule {} on line {line} already", quoted(&rule.name));
            section.mistake(Some("alert"), message, mistakes);
        }
        rules.push(rule);
    }
    Some(rules)
}

/// Changes shipped rules as `alerts.override` says.
fn overrides(section: &Section<'_>, rules: &mut Vec<Rule>, mistakes: &mut Mistakes) {
    let Some((path, node)) = section.node("override") else { return };
    let Some(written) = entries(&path, node, "a mapping of rule names to what is changed", mistakes) else { return };
    for entry in written {
        let path = join(&path, &entry.key);
        let Some(index) = rules.iter().position(|rule| rule.name == entry.key) else {
            let hint = match nearest(&entry.key, rules.iter().map(|rule| rule.name.as_str())) {
                Some(near) => format!("; did you mean {near}?"),
                None => "; `citadel-agent alerts rules` prints them".to_owned(),
            };
            mistakes.push(entry.key_pos, path, format!("there is no shipped rule of this name{hint}"));
            continue;
        };
        let changes = Section::open(&path, "alerts.override.*", Some(&entry.value), mistakes);
        let rule = &mut rules[index];
        let enabled = changes.read("enabled", true, value::boolean, mistakes);
        let threshold = changes.read("threshold", rule.condition.threshold, value::number, mistakes);
        let hold = changes.read("for", rule.hold, value::span, mistakes);
        let keep_firing = changes.read("keep_firing_for", rule.keep_firing, value::span, mistakes);
        let severity = changes.read("severity", rule.severity, rule::severity, mistakes);
        let (Some(enabled), Some(threshold), Some(hold), Some(keep_firing), Some(severity)) =
            (enabled, threshold, hold, keep_firing, severity)
        else {
            continue;
        };
        rule.condition.threshold = threshold.value;
        (rule.hold, rule.keep_firing, rule.severity) = (hold.value, keep_firing.value, severity.value);
        if !enabled.value {
            rules.remove(index);
        }
    }
}
