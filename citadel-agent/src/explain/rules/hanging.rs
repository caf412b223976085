//! Requests that get no answer: more are in flight than those that come and go can be (Little's law).

use super::super::case::Case;
use super::super::words::{number, time};
use super::Finding;

/// What hangs.
pub(in super::super) struct Hanging {
    /// How many requests, at least.
    count: f64,
    pub(in super::super) summary: String,
}

pub(in super::super) fn hanging(case: &Case<'_>) -> Option<Hanging> {
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
                "{} requests are in flight, and for {} not one has got a byte.",
                number(in_flight.min),
                time(seconds)
            )
        };
        return quiet.then(|| Hanging { count: in_flight.min, summary: text() });
    }
    // What comes and goes is in flight for its duration; what is there besides, at its lowest, stays.
    let duration = now.mean("duration")?;
    let longest = now.histogram("duration")?.quantile(0.99)?;
    let moving = now.per_second() * duration;
    let stays = (in_flight.min - moving.max(0.5)).round();
    // With long requests some are always under way; then this cannot tell.
    let tells = longest * 2.0 < seconds && stays >= 1.0;
    let before = case.before.window.gauge("in_flight").filter(|_| case.compared());
    let new = before.is_none_or(|before| before.mean + 0.5 < in_flight.min);
    (tells && new).then(|| Hanging {
        count: stays,
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
    let Some(Hanging { count, .. }) = hanging(case) else { return Finding::Silent };
    let health = match case.now.window.gauge("up") {
        Some(up) if up.last > 0.0 => " The health check is answered all the same.",
        _ => "",
    };
    let cpu = case.now.window.total_of("cpu_seconds") / case.now.window.covered_seconds.max(1e-9);
    let (what, read) = if count > 1.0 { ("requests hang", "them") } else { ("request hangs", "it") };
    let sentence = format!(
        "At least {} {what} in the model: it has read {read} and sends nothing; its processes use {} CPUs.{health}",
        number(count),
        number(cpu),
    );
    Finding::Cause { weight: 5.0, share: None, sentence }
}
