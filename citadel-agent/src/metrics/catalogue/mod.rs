//! All metrics that the agent exports, in one table per section.
//!
//! Exposition, `docs/metrics.md` and the tests are derived from it; a metric that is not listed here cannot be
//! exported. Names are a contract with dashboards and rules: they change only together with a CHANGELOG entry.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Buckets;

/// Type of a metric, as in the [OpenMetrics specification](https://prometheus.io/docs/specs/om/open_metrics_spec/).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only increases, until the agent restarts. The name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, exported as native histogram (schema 3) and as classic buckets.
    Histogram,
    /// Exported by node_exporter as `untyped`, because the kernel does not specify the type.
    Unknown,
}

impl Kind {
    /// What kernel counters count from.
    const fn since_before(self) -> Option<Since> {
        match self {
            Self::Counter => Some(Since::Before),
            _ => None,
        }
    }
}

/// Base unit of a metric's value; except for [`Unit::None`], the name ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A count or a flag.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A fraction, usually from 0 to 1.
    Ratio,
    /// Joules.
    Joules,
    /// Watts.
    Watts,
    /// Degrees Celsius.
    Celsius,
    /// Hertz.
    Hertz,
}

impl Unit {
    /// The unit as in names and OpenMetrics; empty for [`Unit::None`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Unit::None => "",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::Ratio => "ratio",
            Unit::Joules => "joules",
            Unit::Watts => "watts",
            Unit::Celsius => "celsius",
            Unit::Hertz => "hertz",
        }
    }
}

/// The page that has a family, besides `/metrics`, which has all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// `/metrics/models`.
    Models,
    /// `/metrics/gpu`.
    Gpu,
    /// `/metrics/system`.
    System,
    /// `/metrics/storage`.
    Storage,
    /// `/metrics/services`.
    Services,
    /// On every page: metrics about the agent itself.
    Agent,
}

/// What a counter counts from. This determines what a new series and a decreasing value mean to an alert rule.
///
/// A counter that is exported only while it is above 0 names a metric that is always on the page (`beside`): where that
/// metric is present and the counter is not, the counter is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// The agent's start: the whole value is growth since then. A decrease is a reset to 0.
    Start,
    /// The attachment of the kernel programs: the agent's start, or before it if they were taken over from the process before.
    Programs,
    /// A time unknown to the agent: the host's boot, the load of a driver, the start of a process or unit; or the count
    /// is kept across restarts of the agent. A new series is not growth, a decrease is a reset to 0.
    Before,
    /// The manufacture of a device, which keeps the count. A new series is not growth; a decrease is another device,
    /// and not growth either.
    Lifetime,
}

/// The entry of a metric.
#[derive(Debug)]
pub struct Desc {
    /// The exposed name, counters with `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// The page that has it.
    pub section: Section,
    /// Label names, in the order of the samples' values.
    pub labels: &'static [&'static str],
    /// The HELP text: one or a few sentences.
    pub help: &'static str,
    /// For a histogram: its classic buckets.
    pub buckets: Option<Buckets>,
    /// For a counter: what it counts from.
    pub since: Option<Since>,
    /// For a counter that is absent while it is 0: a gauge or counter without this restriction, from the same source,
    /// that is present whenever the counter would be. Its labels are a subset of the counter's.
    pub beside: Option<&'static Desc>,
}

impl Desc {
    /// Whether values count from a time that the agent knows, so that they were 0 then.
    #[must_use]
    pub fn counts_since_start(&self) -> bool {
        self.kind == Kind::Histogram || matches!(self.since, Some(Since::Start | Since::Programs))
    }
}

/// The optional [`Desc::since`] and [`Desc::beside`] of an entry.
macro_rules! since {
    () => {
        None
    };
    ($since:ident) => {
        Some(Since::$since)
    };
}
macro_rules! beside {
    () => {
        None
    };
    ($beside:ident) => {
        Some(&$beside)
    };
}

/// The value of [`Desc::buckets`].
macro_rules! buckets {
    () => {
        None
    };
    ($buckets:ident) => {
        Some(super::Buckets::$buckets)
    };
}

/// Generates the table of a section: one constant per metric, and `TABLE`, which lists them in the order of the pages.
macro_rules! catalogue {
    ($section:ident; $(
        $id:ident: $kind:ident $(<$buckets:ident>)? $(($since:ident $(, beside $beside:ident)?))? $unit:ident $name:literal [$($label:literal),*]
            $help:literal;
    )*) => {
        $(
            #[doc = $help]
            pub static $id: Desc = Desc {
                name: $name, kind: Kind::$kind, unit: Unit::$unit, section: Section::$section,
                labels: &[$($label),*], help: $help, buckets: buckets!($($buckets)?),
                since: since!($($since)?), beside: beside!($($($beside)?)?),
            };
        )*
        pub(super) static TABLE: &[&Desc] = &[$(&$id),*];
    };
}

/// A metric of a group whose members differ only in a key, which is the source's name for it.
#[derive(Debug)]
pub struct Field {
    /// The source's name, such as a field of a file in /proc.
    pub key: &'static str,
    /// The metric.
    pub desc: Desc,
}

/// Finds the metric with the source's name `key`.
#[must_use]
pub fn field(table: &'static [Field], key: &str) -> Option<&'static Desc> {
    table.iter().find(|field| field.key == key).map(|field| &field.desc)
}

/// The HELP text of a [`Field`]: its own, or else the one generated from its key.
macro_rules! help {
    ($made:expr) => {
        $made
    };
    ($made:expr, $own:literal) => {
        $own
    };
}

/// Generates tables of [`Field`]s. A name is the table's prefix and the entry's suffix. Without a HELP text of its own
/// (`= "..."`), an entry gets its key between the table's two texts. Counters count from [`Since::Before`], because the
/// kernel counts them.
macro_rules! fields {
    ($section:ident; $(
        $(#[doc = $doc:literal])* $table:ident: $kind:ident $labels:tt $prefix:literal, $before:literal, $after:literal
        { $($key:literal $unit:ident $name:literal $(= $help:literal)?)* }
    )*) => {
        $(
            $(#[doc = $doc])*
            pub static $table: &[Field] = &[$(Field {
                key: $key,
                desc: Desc {
                    name: concat!($prefix, $name), kind: Kind::$kind, unit: Unit::$unit, section: Section::$section,
                    labels: &$labels, help: help!(concat!($before, $key, $after) $(, $help)?), buckets: None, since: Kind::$kind.since_before(), beside: None,
                },
            }),*];
        )*
        pub(super) static FIELDS: &[&[Field]] = &[$($table),*];
    };
}

pub mod agent;
pub mod dcgm;
pub mod engine;
pub mod gpu;
pub mod hwmon;
pub mod log_events;
pub mod logs;
pub mod models;
pub mod omitted;
pub mod services;
pub mod storage;
pub mod system;

/// All metrics, in the order of the pages.
pub fn all() -> impl Iterator<Item = &'static Desc> {
    let one = |table: &'static [&'static Desc]| table.iter().copied();
    let many =
        |tables: &'static [&'static [Field]]| tables.iter().flat_map(|table| table.iter().map(|field| &field.desc));
    one(models::TABLE)
        .chain(one(engine::TABLE))
        .chain(one(log_events::TABLE))
        .chain(one(gpu::TABLE))
        .chain(one(dcgm::TABLE))
        .chain(one(system::TABLE))
        .chain(many(system::FIELDS))
        .chain(one(hwmon::TABLE))
        .chain(many(hwmon::FIELDS))
        .chain(one(storage::TABLE))
        .chain(many(storage::FIELDS))
        .chain(one(services::TABLE))
        .chain(one(logs::TABLE))
        .chain(one(agent::TABLE))
}

/// Index of a metric in [`all`].
#[must_use]
pub fn position(desc: &'static Desc) -> Option<usize> {
    // Looked up for each family of each page, therefore by address: scanning the tables would take longer than reading
    // most sources.
    static POSITIONS: LazyLock<HashMap<usize, usize>> =
        LazyLock::new(|| all().enumerate().map(|(position, desc)| (address(desc), position)).collect());
    POSITIONS.get(&address(desc)).copied()
}

fn address(desc: &'static Desc) -> usize {
    std::ptr::from_ref(desc).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_says_what_it_counts_from_and_nothing_else_does() {
        for desc in all() {
            let counter = desc.kind == Kind::Counter;
            assert_eq!(
                desc.since.is_some(),
                counter,
                "{}: a counter's entry says what it counts from, as in Counter(Before); see Since",
                desc.name
            );
        }
    }

    #[test]
    fn what_stands_beside_a_counter_is_always_there_and_matches_by_its_labels() {
        for (desc, beside) in all().filter_map(|desc| Some((desc, desc.beside?))) {
            assert!(desc.kind == Kind::Counter && beside.beside.is_none(), "{}", desc.name);
            assert_eq!(desc.section, beside.section, "{}: not always on the same page", desc.name);
            assert!(beside.kind != Kind::Histogram, "{}: {}", desc.name, beside.name);
            assert!(beside.labels.iter().all(|label| desc.labels.contains(label)), "{}", desc.name);
        }
    }

    /// What has been found wrong here once: what the agent itself did not count from its start.
    #[test]
    fn counts_of_devices_and_of_the_host_began_before_the_agent() {
        for desc in all().filter(|desc| desc.kind == Kind::Counter) {
            let since = desc.since.unwrap();
            if desc.name.starts_with("node_") {
                assert_eq!(since, Since::Before, "{}", desc.name);
            }
            if desc.name.starts_with("citadel_smart_") || desc.name.contains("_ecc_errors_") {
                assert_eq!(since, Since::Lifetime, "{}", desc.name);
            }
            if desc.name.starts_with("DCGM_")
                || desc.name.starts_with("citadel_remote_write_") && desc.name.contains("samples")
            {
                assert!(!desc.counts_since_start(), "{}", desc.name);
            }
        }
    }
}
