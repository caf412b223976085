//! Requests that get no answer: one has waited for far longer than usual for the next byte. Where that is not measured, more are in
//! flight than those that come and go can be (Little's law).

use super::super::case::{Case, Facts};
use super::super::words::{number, time};
use super::Finding;

/// What hangs.
pub(in super::super) struct Hanging {
    /// How many requests, at least.
    count: f64,
    /// For how long one has waited, where that is measured.
    waited: Option<f64>,
    pub(in super::super) summary: String,
}

/// A request that has waited for less, in seconds, does not hang.
const WAITED: f64 = 10.0;

/// From this multiple of the longest usual wait on, a request hangs and is not just slow.
const LONGER: f64 = 4.0;

/// By how long a request has waited for the next byte of its response. `None` where that is not measured.
fn waiting(case: &Case<'_>) -> Option<Option<Hanging>> {
    let waited = case.now.window.gauge("longest_wait_seconds")?.last;
    // A server cannot send to a client that does not read, and which of the connections waits is not known.
    if case.now.window.gauge("held_back_connections").is_some_and(|held_back| held_back.last >= 1.0) {
        return Some(None);
    }
    // The longest that is usual: of the first byte, and between two events.
    let longest = |facts: &Facts<'_>| {
        ["first_byte", "first_token", "inter_token"]
            .iter()
            .filter_map(|key| facts.histogram(key)?.quantile(0.99))
            .fold(0.0, f64::max)
    };
    let usual = if case.compared() { longest(&case.before) } else { longest(&case.now) };
    let hangs = waited >= WAITED.max(LONGER * usual);
    let others = || {
        case.now
            .mean("duration.success")
            .map_or(String::new(), |mean| format!(", while others are answered in {}", time(mean)))
    };
    let summary =
        || format!("A request has been waiting for {} for the next byte of its response{}.", time(waited), others());
    Some(hangs.then(|| Hanging { count: 1.0, waited: Some(waited), summary: summary() }))
}

/// Requests in flight are counted every five seconds: over less than this, some may be there each time by chance.
const SAMPLES_SECONDS: f64 = 60.0;

pub(in super::super) fn hanging(case: &Case<'_>) -> Option<Hanging> {
    match waiting(case) {
        Some(hanging) => hanging,
        None => in_flight(case),
    }
}

/// By requests in flight, where the times of those that run are not known.
fn in_flight(case: &Case<'_>) -> Option<Hanging> {
    let now = &case.now;
    let seconds = now.window.covered_seconds;
    let in_flight = now.window.gauge("in_flight")?;
    if in_flight.min < 1.0 || seconds < 5.0 {
        return None;
    }
    if now.requests() == 0.0 {
        // Long answers that stream are no stall.
        let quiet = now.window.sum("bytes_out") == 0.0;
        let text = || {
            format!(
                "{} requests are in flight, and none has received a byte for {}.",
                number(in_flight.min),
                time(seconds)
            )
        };
        return quiet.then(|| Hanging { count: in_flight.min, waited: None, summary: text() });
    }
    // What comes and goes is in flight for its duration; what is there besides, at its lowest, stays.
    let duration = now.mean("duration.success")?;
    let longest = now.histogram("duration.success")?.quantile(0.99)?;
    let moving = now.per_second() * duration;
    let stays = (in_flight.min - moving.max(0.5)).round();
    // With long requests some are always under way; then this cannot tell.
    let tells = longest * 2.0 < seconds && seconds >= SAMPLES_SECONDS && stays >= 1.0;
    let before = case.before.window.gauge("in_flight").filter(|_| case.compared());
    let new = before.is_none_or(|before| before.mean + 0.5 < in_flight.min);
    (tells && new).then(|| Hanging {
        count: stays,
        waited: None,
        summary: format!(
            "{} {} in flight for all of {}, while others are answered in {}.",
            number(stays),
            if stays > 1.0 { "requests have been" } else { "request has been" },
            time(seconds),
            time(duration),
        ),
    })
}

pub(super) fn judge(case: &Case<'_>) -> Finding {
    let Some(Hanging { count, waited, .. }) = hanging(case) else { return Finding::Silent };
    let health = match case.now.window.gauge("up") {
        Some(up) if up.last > 0.0 => " The health check still succeeds.",
        _ => "",
    };
    let cpu = case.now.window.total_of("cpu_seconds") / case.now.window.covered_seconds.max(1e-9);
    let (what, read) = if count > 1.0 { ("requests hang", "them") } else { ("request hangs", "it") };
    let how_long = waited.map_or(String::new(), |seconds| format!(" for {}", time(seconds)));
    let sentence = format!(
        "At least {} {what} in the model: it has read {read} and sends nothing{how_long}; its processes use {} CPUs.{health}",
        number(count),
        number(cpu),
    );
    Finding::Cause { weight: 5.0, share: None, sentence }
}
