//! `alerts`: the shipped rules, changes to them, and additional rules.

mod condition;
mod rule;
mod selector;
mod template;
mod types;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

pub use selector::text as selector_text;
pub use types::{
    Compare, Condition, Format, Function, Matcher, Operand, Part, Pattern, Rule, Selector, Severity, Template, Test,
};

use rule::{Rules, SEVERITY, SPAN};

use crate::config::kind::{BOOLEAN, Item, Kind, Mapping, NUMBER, Optional, key};
use crate::config::mistakes::{Mistakes, nearest};
use crate::config::section::{self, Keys, Section, keys_of, part, section};
use crate::config::tree;
use crate::config::yaml::Yaml;

/// The active rules.
#[derive(Clone, PartialEq, Debug)]
pub struct Alerts {
    /// Whether rules are evaluated and alerts sent.
    pub enabled: bool,
    /// The shipped rules with the configured changes, then the configured rules; names are unique.
    pub rules: Vec<Rule>,
}

section! {
    /// The section as in the file.
    pub(super) struct Configured {
        /// Whether to evaluate alert rules and send alerts.
        enabled: bool = true, BOOLEAN;
        /// Whether to use the shipped rules; `citadel-agent alerts rules` prints them.
        shipped: bool = true, BOOLEAN;
        /// Changes to shipped rules.
        #[key = "override"]
        overrides: BTreeMap<String, Override> = BTreeMap::new(), OVERRIDES;
        /// Additional rules.
        rules: Vec<Rule> = Vec::new(), Rules;
    }
}

section! {
    /// Changes to a shipped rule.
    pub(super) struct Override {
        /// `false` disables the shipped rule of this name; `true` enables one that is off by default.
        enabled: bool = true, BOOLEAN;
        /// Threshold of the rule's first condition.
        threshold: Option<f64> = None, Optional(NUMBER);
        /// Replaces the rule's `for`.
        #[key = "for"]
        hold: Option<Duration> = None, Optional(SPAN);
        /// Replaces the rule's `keep_firing_for`.
        #[key = "keep_firing_for"]
        keep_firing: Option<Duration> = None, Optional(SPAN);
        /// Replaces the rule's severity.
        severity: Option<Severity> = None, Optional(SEVERITY);
    }
}

const OVERRIDES: Mapping<Keys<Override>> = Mapping {
    text: "mapping of rule names to changes",
    expected: "a mapping of rule names to changes",
    most: usize::MAX,
    // Whether the rule exists is checked where the rules are known.
    name: |name| Ok(name.to_owned()),
    value: keys_of::<Override>(),
};

impl Default for Alerts {
    fn default() -> Self {
        Self { enabled: true, rules: shipped() }
    }
}

impl section::Part for Alerts {
    const KEYS: &'static [Item] = Configured::KEYS;

    fn read(section: &Section<'_>, mistakes: &mut Mistakes) -> Self {
        let configured = Configured::read(section, mistakes);
        let mut rules = if configured.shipped { shipped() } else { Vec::new() };
        let mut optional = if configured.shipped { optional() } else { Vec::new() };
        for (name, changes) in configured.overrides {
            if let Some(index) = optional.iter().position(|rule| rule.name == name) {
                rules.push(optional.remove(index));
            }
            match rules.iter().position(|rule| rule.name == name) {
                Some(index) => changes.apply(&mut rules, index),
                None => {
                    let near = nearest(&name, rules.iter().chain(&optional).map(|rule| rule.name.as_str()));
                    let hint = near.map_or_else(
                        || "; `citadel-agent alerts rules` prints them".to_owned(),
                        |near| format!("; did you mean {near}?"),
                    );
                    if let Some(entry) = section.written("override").and_then(|written| written.entry(&name)) {
                        let message = format!("there is no shipped rule with this name{hint}");
                        mistakes.push(entry.key_pos, entry.path, message);
                    }
                }
            }
        }
        for own in configured.rules {
            match rules.iter_mut().find(|rule| rule.name == own.name) {
                Some(rule) => *rule = own,
                None => rules.push(own),
            }
        }
        Alerts { enabled: configured.enabled, rules }
    }

    /// All active rules, including shipped ones.
    fn write(&self) -> Yaml {
        let rules = self.rules.clone();
        Configured { enabled: self.enabled, shipped: false, overrides: BTreeMap::new(), rules }.write()
    }
}

impl Override {
    fn apply(self, rules: &mut Vec<Rule>, index: usize) {
        if !self.enabled {
            rules.remove(index);
            return;
        }
        let rule = &mut rules[index];
        rule.condition.threshold = self.threshold.unwrap_or(rule.condition.threshold);
        rule.hold = self.hold.unwrap_or(rule.hold);
        rule.keep_firing = self.keep_firing.unwrap_or(rule.keep_firing);
        rule.severity = self.severity.unwrap_or(rule.severity);
    }
}

/// The shipped rules, one file per section of the catalogue, in the syntax of the configuration.
const SHIPPED: [&str; 7] = [
    include_str!("../../rules/models.yaml"),
    include_str!("../../rules/gpu.yaml"),
    include_str!("../../rules/system.yaml"),
    include_str!("../../rules/storage.yaml"),
    include_str!("../../rules/logs.yaml"),
    include_str!("../../rules/services.yaml"),
    include_str!("../../rules/agent.yaml"),
];

/// Those that are off unless `override` names them.
const OPTIONAL: [&str; 1] = [include_str!("../../rules/optional.yaml")];

/// The rules of the default configuration.
fn shipped() -> Vec<Rule> {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| parsed(&SHIPPED));
    RULES.clone()
}

/// The shipped rules that are off by default.
#[must_use]
pub fn optional() -> Vec<Rule> {
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| parsed(&OPTIONAL));
    RULES.clone()
}

fn parsed(files: &[&str]) -> Vec<Rule> {
    const FILE: &[Item] = &[key("alerts", "", &part::<Configured>())];
    let mut mistakes = Mistakes::new(Vec::new);
    let mut rules = Vec::new();
    for text in files {
        let root = tree::parse(text, &mut mistakes).flatten();
        let section = Section::root(root.as_ref(), FILE, &mut mistakes);
        let written = section.written("alerts.rules").expect("a file of shipped rules has rules");
        rules.extend(Rules.read(&written, &mut mistakes).unwrap_or_default());
    }
    let mistakes = mistakes.into_vec();
    assert!(mistakes.is_empty(), "the shipped rules, which are part of the program, are wrong: {mistakes:#?}");
    rules
}
