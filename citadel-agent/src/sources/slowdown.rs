//! Latencies relative to what is usual for the model, from the history.

use std::time::{Duration, Instant};

use super::{Origin, Outcome, Reading};
use crate::clock::wall_ms;
use crate::explain::slowdown::{Slowdown, slowdowns};
use crate::metrics::catalogue::models::{LONGEST_TOKEN_GAP, SLOWDOWN};
use crate::metrics::family::{Page, Value};

/// How long a result is used: minutes change little in ten seconds.
const FRESH: Duration = Duration::from_secs(10);

/// The last result.
#[derive(Debug, Default)]
pub(super) struct Last(Option<(Instant, Vec<Slowdown>)>);

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let carry_over = &mut *origin.carry_over;
    let Last(last) = &mut carry_over.slowdowns;
    let (_, models) = match last.take() {
        Some(fresh) if fresh.0.elapsed() < FRESH => last.insert(fresh),
        _ => last.insert((Instant::now(), slowdowns(&carry_over.history, wall_ms()))),
    };
    let mut any = false;
    for Slowdown { model, port, longest_gap, ratios } in &*models {
        if let Some(gap) = longest_gap {
            any = true;
            page.add(&LONGEST_TOKEN_GAP, [model, &port.to_string()], Value::Float(*gap));
        }
        for (latency, ratio) in ratios {
            any = true;
            page.add(&SLOWDOWN, [model, &port.to_string(), latency], Value::Float(*ratio));
        }
    }
    Ok(if any { Outcome::Read } else { Outcome::Absent })
}
