//! Every metric that the agent exports, one table a section.
//!
//! Exposition, `docs/metrics.md` and the tests derive from it; a metric that is not here cannot be exported. The names
//! are a contract with dashboards and rules: they change only together with a CHANGELOG entry.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Buckets;

/// Type of a metric, as in the [OpenMetrics specification](https://prometheus.io/docs/specs/om/open_metrics_spec/).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, until the agent restarts. The catalogued name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, exported as native histogram (schema 3) and as classic buckets.
    Histogram,
    /// Not said: what node_exporter exports as `untyped`, because the kernel does not say either.
    Unknown,
}

impl Kind {
    /// What a counter of the kernel's counts from.
    const fn since_before(self) -> Option<Since> {
        match self {
            Self::Counter => Some(Since::Before),
            _ => None,
        }
    }
}

/// Base unit of a metric's value; where it is not [`Unit::None`], the name ends with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// A count or a flag.
    None,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A part of one.
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
    /// The unit as names end with it and as OpenMetrics spells it; empty for [`Unit::None`].
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

/// The endpoint whose page carries a family, besides `/metrics`, which carries all.
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
    /// On every page: the agent itself.
    Agent,
}

/// What a counter counts from, which decides what a series that appears and a value that drops mean to an alert rule.
///
/// A counter that is exported only while it is above 0 names the metric that is on the page beside it (`beside`): where
/// that one is and the counter is not, the counter is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// The agent's start: all of a value is growth since then. A drop is a new beginning at 0.
    Start,
    /// A time that the agent does not know: the host's boot, the load of a driver, the start of a process or a unit; or the
    /// count is kept over restarts of the agent. A series that appears says nothing, a drop is a new beginning at 0.
    Before,
    /// The making of a device, which keeps the count. A series that appears says nothing; a drop is another device, and as
    /// little growth.
    Lifetime,
}

/// One metric's entry.
#[derive(Debug)]
pub struct Desc {
    /// The exposed name, counters with `_total`.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// Unit of the value.
    pub unit: Unit,
    /// Which page carries it.
    pub section: Section,
    /// Label names, in the order of the samples' values.
    pub labels: &'static [&'static str],
    /// One sentence for HELP.
    pub help: &'static str,
    /// Of a histogram: its classic buckets.
    pub buckets: Option<Buckets>,
    /// Of a counter: what it counts from.
    pub since: Option<Since>,
    /// Of a counter that is absent while it is 0: a gauge or counter without this restriction, from the same source, that is
    /// there whenever the counter would be. All its labels are the counter's as well.
    pub beside: Option<&'static Desc>,
}

impl Desc {
    /// Whether its values count from the agent's start on, so that this is when they were 0.
    #[must_use]
    pub fn counts_since_start(&self) -> bool {
        self.kind == Kind::Histogram || self.since == Some(Since::Start)
    }
}

/// An entry's [`Desc::since`] and [`Desc::beside`], where it has them.
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

/// Of a histogram, [`Desc::buckets`].
macro_rules! buckets {
    () => {
        None
    };
    ($buckets:ident) => {
        Some(super::Buckets::$buckets)
    };
}

/// Makes a section's table: one constant a metric, and `TABLE`, which lists them in the order in which pages carry them.
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

/// A metric of a group that differs only in a key, which is what the source calls it.
#[derive(Debug)]
pub struct Field {
    /// The source's own name: a field of a file in /proc, say.
    pub key: &'static str,
    /// The metric.
    pub desc: Desc,
}

/// Finds the metric of a source's own name.
#[must_use]
pub fn field(table: &'static [Field], key: &str) -> Option<&'static Desc> {
    table.iter().find(|field| field.key == key).map(|field| &field.desc)
}

/// Makes tables of [`Field`]s. Names are the prefix and what is written; `{}` of the help is the key. Counters among them are
/// the kernel's.
macro_rules! fields {
    ($section:ident; $(
        $(#[doc = $doc:literal])* $table:ident: $kind:ident $labels:tt $prefix:literal, $before:literal, $after:literal
        { $($key:literal $unit:ident $name:literal)* }
    )*) => {
        $(
            $(#[doc = $doc])*
            pub static $table: &[Field] = &[$(Field {
                key: $key,
                desc: Desc {
                    name: concat!($prefix, $name), kind: Kind::$kind, unit: Unit::$unit, section: Section::$section,
                    labels: &$labels, help: concat!($before, $key, $after), buckets: None, since: Kind::$kind.since_before(), beside: None,
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

/// All metrics, in the order in which pages carry them.
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

/// Where in [`all`] a metric stands.
#[must_use]
pub fn position(desc: &'static Desc) -> Option<usize> {
    // Looked up for each family of each page, so by address: a scan of the tables would take longer than most sources.
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
                assert_ne!(since, Since::Start, "{}", desc.name);
            }
        }
    }
}
