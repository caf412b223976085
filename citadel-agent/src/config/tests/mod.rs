//! The configuration as a whole: what is accepted, what is refused and in which words.

mod accepted;
mod alerts;
mod documented;
mod logs;
mod properties;
mod refused;
mod remote_write;
mod schema;

/// The operator's file, byte for byte.
pub(crate) const OPERATORS: &str = include_str!("../../../../tests/fixtures/monitoring-integration.yaml");
