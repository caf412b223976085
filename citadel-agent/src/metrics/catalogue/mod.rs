//! Every metric that the agent exports, one table a section.
//!
//! Exposition, `docs/metrics.md` and the tests derive from it; a metric that is not here cannot be exported. The names
//! are a contract with dashboards and rules: they change only together with a CHANGELOG entry.

use std::collections::HashMap;
use std::sync::LazyLock;

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
}

impl Desc {
    /// Whether its values count from the agent's start on, so that this is when they were 0. Others grow since the host
    /// booted, a driver was loaded or a model's process began, which the agent does not know.
    #[must_use]
    pub fn counts_since_start(&self) -> bool {
        let kernel = [
            &models::REQUESTS,
            &models::REQUESTS_ABORTED,
            &models::STREAM_CHUNKS,
            &models::REQUEST_BYTES,
            &models::RESPONSE_BYTES,
            &models::CONNECTIONS,
        ];
        // The agent's own counters, but not those of kernel programs, which another process may have counted before.
        let own = [&agent::EVENTS_LOST, &agent::PROCESS_CPU];
        self.kind == Kind::Histogram || kernel.into_iter().chain(own).any(|desc| std::ptr::eq(desc, self))
    }
}

/// Makes a section's table: one constant a metric, and `TABLE`, which lists them in the order in which pages carry them.
macro_rules! catalogue {
    ($section:ident; $($id:ident: $kind:ident $unit:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $id: Desc = Desc {
                name: $name, kind: Kind::$kind, unit: Unit::$unit, section: Section::$section,
                labels: &[$($label),*], help: $help,
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

/// Makes tables of [`Field`]s. Names are the prefix and what is written; `{}` of the help is the key.
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
                    labels: &$labels, help: concat!($before, $key, $after),
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
        .chain(one(gpu::TABLE))
        .chain(one(dcgm::TABLE))
        .chain(one(system::TABLE))
        .chain(many(system::FIELDS))
        .chain(one(hwmon::TABLE))
        .chain(many(hwmon::FIELDS))
        .chain(one(storage::TABLE))
        .chain(many(storage::FIELDS))
        .chain(one(services::TABLE))
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
