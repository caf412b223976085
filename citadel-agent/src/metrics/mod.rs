//! Metrics: the catalogue, the families that sources fill, and their encodings.

pub mod catalogue;
pub mod family;
