//! Remote write.
pub mod encode;
pub mod ledger;
pub mod record;
pub mod series;
pub mod spool;
pub mod stale;
pub mod wire;
