//! Connections that the HTTP listeners dropped.

use super::{Origin, Outcome, Reading};
use crate::metrics::catalogue::agent::HTTP_DROPPED;
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    for (listener, reason, count) in origin.http_dropped.counts() {
        page.add(&HTTP_DROPPED, [listener, reason], Value::Integer(count));
    }
    Ok(Outcome::Read)
}
