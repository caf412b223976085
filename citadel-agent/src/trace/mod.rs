//! Single requests: those that fail and the slowest ones of the last hour, and, while somebody traces, all of them.
//!
//! `service` takes the records out of the kernel's ring buffer, `store` keeps them, `hour` decides which ones are kept for an hour,
//! `filter` which ones are asked for, `request` is their form in answers, `running` that of requests in flight, `text` that on a terminal.

pub mod command;
mod filter;
mod hour;
mod request;
mod running;
mod service;
mod store;
mod text;

pub use filter::{Filter, Network};
pub use request::{Ending, Events, Request, Requests};
pub use running::{ModelRequests, RunningRequest};
pub use service::Tracer;
