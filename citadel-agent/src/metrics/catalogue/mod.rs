//! Every metric that the agent exports, one table a section.
//!
//! Exposition, `docs/metrics.md` and the tests derive from it; a metric that is not here cannot be exported. The names
//! are a contract with dashboards and rules: they change only together with a CHANGELOG entry.

/// Type of a metric, as in the [OpenMetrics specification](https://prometheus.io/docs/specs/om/open_metrics_spec/).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows, until the agent restarts. The catalogued name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution, exported as native histogram (schema 3) and as classic buckets.
    Histogram,
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

pub mod agent;
pub mod dcgm;
pub mod gpu;
pub mod models;
pub mod services;
pub mod storage;
pub mod system;

/// All metrics, in the order in which pages carry them.
pub fn all() -> impl Iterator<Item = &'static Desc> {
    [models::TABLE, gpu::TABLE, dcgm::TABLE, system::TABLE, storage::TABLE, services::TABLE, agent::TABLE]
        .into_iter()
        .flatten()
        .copied()
}
