//! Types of alert rules.
//!
//! A rule means the same here and in the Prometheus rule file generated from it: values, windows and matchers follow
//! PromQL, so that both engines fire the same alerts for the same samples.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::metrics::catalogue::Desc;
use crate::metrics::family::LabelValues;

/// A rule; each label set that satisfies its conditions is a separate alert.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// Value of the label `alertname`.
    pub name: String,
    /// The first condition; its value is the alert's value.
    pub condition: Condition,
    /// Additional conditions for the same labels.
    pub and: Vec<Condition>,
    /// Labels to keep when summing; `None`: no aggregation.
    pub by: Option<Vec<&'static str>>,
    /// How long the conditions must be true without interruption before the alert fires.
    pub hold: Duration,
    /// How long the alert keeps firing after the conditions are no longer true.
    pub keep_firing: Duration,
    /// Value of the label `severity`.
    pub severity: Severity,
    /// Additional labels of the alert.
    pub labels: BTreeMap<String, String>,
    /// Texts for people.
    pub annotations: BTreeMap<String, Template>,
}

impl Rule {
    /// All conditions, starting with the one that determines the alert's value.
    pub fn conditions(&self) -> impl Iterator<Item = &Condition> {
        std::iter::once(&self.condition).chain(&self.and)
    }

    /// All operands, in the order of the conditions.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        self.conditions().flat_map(Condition::operands)
    }

    /// The longest window of its operands.
    #[must_use]
    pub fn longest_window(&self) -> Duration {
        self.operands().filter_map(|operand| operand.function.window()).max().unwrap_or_default()
    }
}

/// A value and the comparison with a threshold.
#[derive(Clone, PartialEq, Debug)]
pub struct Condition {
    /// The value, or the dividend.
    pub operand: Operand,
    /// The divisor, for a ratio.
    pub divide_by: Option<Operand>,
    /// The comparison that makes the condition true.
    pub compare: Compare,
    /// Threshold, in the metric's base unit.
    pub threshold: f64,
}

impl Condition {
    /// One or two operands.
    pub fn operands(&self) -> impl Iterator<Item = &Operand> {
        std::iter::once(&self.operand).chain(&self.divide_by)
    }
}

/// Selected series, and the function applied to them.
#[derive(Clone, PartialEq, Debug)]
pub struct Operand {
    /// The selected series.
    pub selector: Selector,
    /// The function applied to each.
    pub function: Function,
}

/// A function with the semantics of PromQL's.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Function {
    /// The current value.
    Value,
    /// Per-second rate of a counter.
    Rate {
        /// Time window.
        window: Duration,
    },
    /// Increase of a counter. Counters of rare events appear with the first event, which PromQL's `increase` alone
    /// never sees: the catalogue defines for each counter what a new series means.
    Increase {
        /// Time window.
        window: Duration,
    },
    /// Quantile of a histogram.
    Quantile {
        /// 0 to 1.
        quantile: f64,
        /// Time window.
        window: Duration,
    },
    /// Future value of a gauge by linear regression (least squares).
    Predict {
        /// Time window.
        window: Duration,
        /// Prediction horizon.
        ahead: Duration,
    },
}

impl Function {
    /// The time window, if any.
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

/// A metric of the catalogue with label matchers.
#[derive(Clone, Debug)]
pub struct Selector {
    /// The metric.
    pub metric: &'static Desc,
    /// All of them must match.
    pub matchers: Vec<Matcher>,
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        // Names in the catalogue are unique.
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

/// A matcher of a label.
#[derive(Clone, PartialEq, Debug)]
pub struct Matcher {
    /// The label.
    pub label: &'static str,
    /// Index among the metric's labels.
    pub index: usize,
    /// The test of its value.
    pub test: Test,
}

/// A test of a label's value.
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
    /// PromQL's operator, and its operand.
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

/// An anchored regular expression.
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
    /// It is not a valid regular expression, or it needs Unicode tables, which the agent does not include.
    pub fn new(text: &str) -> Result<Self, regex_lite::Error> {
        // A pattern such as `a)(b` must not become valid by adding the anchors.
        regex_lite::Regex::new(text)?;
        let regex = regex_lite::Regex::new(&format!("^(?s:{text})$"))?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

/// A comparison of a value with a threshold.
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
    /// All comparisons: the YAML key, and PromQL's operator.
    pub const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Above, "above", ">"),
        (Self::AtLeast, "at_least", ">="),
        (Self::Below, "below", "<"),
        (Self::AtMost, "at_most", "<="),
        (Self::Equal, "equal", "=="),
        (Self::NotEqual, "not_equal", "!="),
    ];

    /// The YAML key.
    #[must_use]
    pub fn key(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// PromQL's operator.
    #[must_use]
    pub fn operator(self) -> &'static str {
        Self::ALL[self as usize].2
    }

    /// Whether `value` satisfies the comparison. NaN (0/0, a quantile of no observations) is only unequal.
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

/// Severity; a closed set, because Alertmanager routes by it, and a typo would match no route.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// For information.
    Info,
    /// Look at it during working hours.
    Warning,
    /// Act immediately.
    Critical,
}

impl Severity {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The words in the configuration.
    pub const WORDS: &'static [(&'static str, Self)] =
        &[("info", Self::Info), ("warning", Self::Warning), ("critical", Self::Critical)];

    /// The label value.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::WORDS[self as usize].0
    }
}

/// The text of an annotation: literal parts and template expressions, a subset of Prometheus' templates.
#[derive(Clone, PartialEq, Debug)]
pub struct Template(pub Vec<Part>);

/// A part of an annotation.
#[derive(Clone, PartialEq, Debug)]
pub enum Part {
    /// Literal text.
    Text(String),
    /// `{{ $labels.NAME }}`
    Label(String),
    /// `{{ $value }}`, `{{ $value | FORMAT }}`
    Value(Format),
    /// `{{ $threshold }}`, `{{ $threshold | FORMAT }}`: of the first condition. Prometheus has no such variable; the
    /// rule file contains the text.
    Threshold(Format),
}

/// Formats of numbers, as Prometheus' template functions of the same names.
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
    /// Formats with a name.
    pub const NAMED: [(Self, &'static str); 4] = [
        (Self::Humanize, "humanize"),
        (Self::Humanize1024, "humanize1024"),
        (Self::HumanizeDuration, "humanizeDuration"),
        (Self::HumanizePercentage, "humanizePercentage"),
    ];
}
