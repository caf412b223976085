//! Alert rules: what is compared with what, for how long, and what the alert says.
//!
//! A rule means the same here and in the Prometheus rule file that is made of it: values, windows and matchers follow
//! PromQL, so that two engines that see the same samples fire the same alerts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::catalogue::Desc;
use crate::metrics::family::LabelValues;

/// One rule; each label set that fulfils its conditions is an alert of its own.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// Value of the label `alertname`.
    pub name: String,
    /// What must be true; its value is the alert's value.
    pub condition: Condition,
    /// What must be true of the same labels besides.
    pub and: Vec<Condition>,
    /// Labels that are summed to; `None`: every series by itself.
    pub by: Option<Vec<&'static str>>,
    /// How long it must be true without a break before the alert fires.
    pub hold: Duration,
    /// How long the alert goes on firing after it is no longer true.
    pub keep_firing: Duration,
    /// Value of the label `severity`.
    pub severity: Severity,
    /// Further labels of the alert.
    pub labels: BTreeMap<String, String>,
    /// What a person is told.
    pub annotations: BTreeMap<String, Template>,
}

impl Rule {
    /// All conditions, the one that gives the alert's value first.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        std::iter::once(&self.condition).chain(&self.and)
    }

    /// All operands, in the order of the conditions.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        self.conditions().flat_map(Condition::operands)
    }

    /// The longest window that it looks back over.
    #[must_use]
    pub fn longest_window(&self) -> Duration {
        self.operands().filter_map(|operand| operand.function.window()).max().unwrap_or_default()
    }
}

/// A value and what it is compared with.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// The value, or the dividend of it.
    pub operand: Operand,
    /// The divisor, for a ratio.
    pub divide_by: Option<Operand>,
    /// How the value compares with the threshold when the condition is true.
    pub compare: Compare,
    /// In the metric's base unit.
    pub threshold: f64,
}

impl Condition {
    /// One or two operands.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        std::iter::once(&self.operand).chain(&self.divide_by)
    }
}

/// Which series, and what is made of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Operand {
    /// Which series.
    pub selector: Selector,
    /// What is made of each.
    pub function: Function,
}

/// What is made of a series, as the PromQL function of that name does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Function {
    /// The value as it is.
    Value,
    /// Growth a second of a counter.
    Rate {
        /// How far it looks back.
        window: Duration,
    },
    /// Growth of a counter. Counters of what is rare appear with the first event, which PromQL's `increase` alone never sees:
    /// what a series that appears means, the catalogue says of each counter.
    Increase {
        /// How far it looks back.
        window: Duration,
    },
    /// A quantile of what a histogram observed.
    Quantile {
        /// 0 to 1.
        quantile: f64,
        /// How far it looks back.
        window: Duration,
    },
    /// Where a gauge will be, along the straight line through its values (least squares).
    Predict {
        /// How far it looks back.
        window: Duration,
        /// How far it looks ahead.
        ahead: Duration,
    },
}

impl Function {
    /// How far it looks back, if it does.
    #[must_use]
    pub const fn window(self) -> Option<Duration> {
        match self {
            Self::Value => None,
            Self::Rate { window }
            | Self::Increase { window }
            | Self::Quantile { window, .. }
            | Self::Predict { window, .. } => Some(window),
        }
    }
}

/// A metric of the catalogue and what its labels must be.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The metric.
    pub metric: &'static Desc,
    /// All of them must hold.
    pub matchers: Vec<Matcher>,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        // A name is in the catalogue once.
        self.metric.name == other.metric.name && self.matchers == other.matchers
    }
}

impl Selector {
    /// Whether a sample with these label values, in the order of the catalogue, is selected.
    #[must_use]
    pub fn selects(&self, labels: &LabelValues) -> bool {
        self.matchers.iter().all(|matcher| labels.get(matcher.index).is_some_and(|value| matcher.test.holds(value)))
    }
}

/// What one label must be.
#[derive(Clone, PartialEq, Debug)]
pub struct Matcher {
    /// The label.
    pub label: &'static str,
    /// Its place among the metric's labels.
    pub index: usize,
    /// What must hold of its value.
    pub test: Test,
}

/// What must hold of a label's value.
#[derive(Clone, PartialEq, Debug)]
pub enum Test {
    /// `=`
    Equal(String),
    /// `!=`
    NotEqual(String),
    /// `=~`
    Matches(Pattern),
    /// `!~`
    MatchesNot(Pattern),
}

impl Test {
    /// PromQL's operator, and the text that follows it.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Equal(text) => ("=", text),
            Self::NotEqual(text) => ("!=", text),
            Self::Matches(pattern) => ("=~", &pattern.text),
            Self::MatchesNot(pattern) => ("!~", &pattern.text),
        }
    }

    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Equal(text) => value == text,
            Self::NotEqual(text) => value != text,
            Self::Matches(pattern) => pattern.regex.is_match(value),
            Self::MatchesNot(pattern) => !pattern.regex.is_match(value),
        }
    }
}

/// A regular expression that must match a whole value.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: String,
    regex: regex_lite::Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Pattern {
    /// Compiles `text`, anchored at both ends as in PromQL.
    ///
    /// # Errors
    /// It is no regular expression, or one that needs Unicode tables, which the agent does not carry.
    pub fn new(text: &str) -> Result<Self, regex_lite::Error> {
        // A pattern such as `a)(b` must not become right by what is put around it.
        regex_lite::Regex::new(text)?;
        let regex = regex_lite::Regex::new(&format!("^(?s:{text})$"))?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

/// How a value compares with a threshold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compare {
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
}

impl Compare {
    /// All of them: the key in YAML, and PromQL's operator.
    pub const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Above, "above", ">"),
        (Self::AtLeast, "at_least", ">="),
        (Self::Below, "below", "<"),
        (Self::AtMost, "at_most", "<="),
        (Self::Equal, "equal", "=="),
        (Self::NotEqual, "not_equal", "!="),
    ];

    /// The key in YAML.
    #[must_use]
    pub fn key(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// PromQL's operator.
    #[must_use]
    pub fn operator(self) -> &'static str {
        Self::ALL[self as usize].2
    }

    /// Whether `value` compares so with `threshold`. A value that is not a number (0/0, a quantile of nothing) is only
    /// unequal.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "`==` in a rule means what it means in PromQL: for flags and counts")]
    pub fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::Above => value > threshold,
            Self::AtLeast => value >= threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
            Self::Equal => value == threshold,
            Self::NotEqual => value != threshold,
        }
    }
}

/// How bad it is; a closed set, because Alertmanager routes by it and a slip would route nowhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// To be looked at in working hours.
    Warning,
    /// Somebody must act now.
    Critical,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// How it is written.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("info", Self::Info), ("warning", Self::Warning), ("critical", Self::Critical)];

    /// The label's value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// The text of an annotation: literal parts and placeholders, a subset of Prometheus' templates.
#[derive(Clone, PartialEq, Debug)]
pub struct Template(pub Vec<Part>);

/// A part of an annotation.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    /// As it stands.
    Text(String),
    /// `{{ $labels.NAME }}`
    Label(String),
    /// `{{ $value }}`, `{{ $value | FORMAT }}`
    Value(Format),
    /// `{{ $threshold }}`, `{{ $threshold | FORMAT }}`: the first condition's. Prometheus knows no such variable; the rule
    /// file gets the text.
    Threshold(Format),
}

/// How a number is written, as Prometheus' template function of that name does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Four significant digits.
    Plain,
    /// SI prefixes: `12.3k`.
    Humanize,
    /// Binary prefixes: `1.5Gi`.
    Humanize1024,
    /// Days to seconds: `1h 2m 3s`.
    HumanizeDuration,
    /// A ratio in percent: `12.5%`.
    HumanizePercentage,
}

impl Format {
    /// All that have a name, and it.
    pub const NAMED: [(Self, &'static str); 4] = [
        (Self::Humanize, "humanize"),
        (Self::Humanize1024, "humanize1024"),
        (Self::HumanizeDuration, "humanizeDuration"),
        (Self::HumanizePercentage, "humanizePercentage"),
    ];
}
