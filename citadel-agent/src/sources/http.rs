//! Connections that the HTTP listeners dropped, and requests that they refused.

use super::{Origin, Outcome, Reading};
use crate::metrics::catalogue::agent::{HTTP_DROPPED, HTTP_REFUSED};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    for (listener, reason, count) in origin.http_dropped.counts() {
        page.add(&HTTP_DROPPED, [listener, reason], Value::Integer(count));
    }
    for (listener, reason, count) in origin.http_dropped.refusals() {
        page.add(&HTTP_REFUSED, [listener, reason], Value::Integer(count));
    }
    Ok(Outcome::Read)
}
