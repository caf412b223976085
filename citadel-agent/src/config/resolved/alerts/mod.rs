//! `alerts`: the shipped rules, what is changed of them, and further ones.

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

/// The rules in force.
#[derive(Clone, PartialEq, Debug)]
pub struct Alerts {
    /// Whether rules are evaluated and alerts sent.
    pub enabled: bool,
    /// The shipped rules with the configured changes, then the configured ones; no two of the same name.
    pub rules: Vec<Rule>,
}

section! {
    /// The section as it is written.
    pub(super) struct Configured {
        /// Whether alert rules are evaluated and alerts sent.
        enabled: bool = true, BOOLEAN;
        /// Whether the shipped rules are in force; `citadel-agent alerts rules` prints them.
        shipped: bool = true, BOOLEAN;
        /// Changes of shipped rules.
        #[key = "override"]
        overrides: BTreeMap<String, Override> = BTreeMap::new(), OVERRIDES;
        /// Rules of your own.
        rules: Vec<Rule> = Vec::new(), Rules;
    }
}

section! {
    /// What is changed of a shipped rule.
    pub(super) struct Override {
        /// `false`: the shipped rule of this name is not in force.
        enabled: bool = true, BOOLEAN;
        /// Another threshold for its first condition.
        threshold: Option<f64> = None, Optional(NUMBER);
        /// Another `for`.
        #[key = "for"]
        hold: Option<Duration> = None, Optional(SPAN);
        /// Another `keep_firing_for`.
        #[key = "keep_firing_for"]
        keep_firing: Option<Duration> = None, Optional(SPAN);
        /// Another severity.
        severity: Option<Severity> = None, Optional(SEVERITY);
    }
}

const OVERRIDES: Mapping<Keys<Override>> = Mapping {
    text: "mapping of rule names to what is changed",
    expected: "a mapping of rule names to what is changed",
    most: usize::MAX,
    // Whether there is such a rule is seen where the rules are known.
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
        for (name, changes) in configured.overrides {
            match rules.iter().position(|rule| rule.name == name) {
                Some(index) => changes.apply(&mut rules, index),
                None => {
                    let near = nearest(&name, rules.iter().map(|rule| rule.name.as_str()));
                    let hint = near.map_or_else(
                        || "; `citadel-agent alerts rules` prints them".to_owned(),
                        |near| format!("; did you mean {near}?"),
                    );
                    if let Some(entry) = section.written("override").and_then(|written| written.entry(&name)) {
                        let message = format!("there is no shipped rule of this name{hint}");
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

    /// All rules in force, those that were shipped among them.
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

/// The shipped rules, one file a section of the catalogue, written as an operator would write them.
const SHIPPED: [&str; 7] = [
    include_str!("../../rules/models.yaml"),
    include_str!("../../rules/gpu.yaml"),
    include_str!("../../rules/system.yaml"),
    include_str!("../../rules/storage.yaml"),
    include_str!("../../rules/logs.yaml"),
    include_str!("../../rules/services.yaml"),
    include_str!("../../rules/agent.yaml"),
];

/// The rules of an agent without a file.
fn shipped() -> Vec<Rule> {
    const FILE: &[Item] = &[key("alerts", "", &part::<Configured>())];
    static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
        let mut mistakes = Mistakes::new(Vec::new);
        let mut rules = Vec::new();
        for text in SHIPPED {
            let root = tree::parse(text, &mut mistakes).flatten();
            let section = Section::root(root.as_ref(), FILE, &mut mistakes);
            let written = section.written("alerts.rules").expect("a file of shipped rules has rules");
            rules.extend(Rules.read(&written, &mut mistakes).unwrap_or_default());
        }
        let mistakes = mistakes.into_vec();
        assert!(mistakes.is_empty(), "the shipped rules, which are part of the program, are wrong: {mistakes:#?}");
        rules
    });
    RULES.clone()
}
