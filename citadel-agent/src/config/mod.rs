//! Configuration: raw (what was written) -> resolved (valid by construction).

pub mod resolved;
