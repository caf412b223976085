//! Requests as lines of text. Pure.

use std::fmt::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use super::request::{Events, Request};

/// What is not known or did not happen.
const NONE: &str = "-";

/// The names of the columns.
pub(super) fn heading() -> String {
    line([
        "TIME",
        "MODEL",
        "CLIENT",
        "ENDPOINT",
        "CODE",
        "QUEUE",
        "TTFB",
        "TTFT",
        "EVENTS",
        "GAP",
        "GAP AT",
        "TOTAL",
        "IN",
        "OUT",
        "RTX",
        "ABORTED BY",
        "ID",
    ])
}

/// A request.
pub(super) fn row(request: &Request) -> String {
    let known = |seconds: Option<f64>| seconds.map_or_else(|| NONE.to_owned(), duration);
    let count = |count: Option<u32>| count.map_or_else(|| NONE.to_owned(), |count| count.to_string());
    let events = request.events.as_ref();
    // One event has none.
    let gap = |seconds: fn(&Events) -> f64| known(events.filter(|events| events.count > 1).map(seconds));
    let aborted =
        request.aborted.as_ref().map_or_else(|| NONE.to_owned(), |ending| format!("{}/{}", ending.side, ending.phase));
    let id = request.trace_id.as_ref().or(request.request_id.as_ref());
    let client = request.client.map_or_else(|| NONE.to_owned(), |client| client.to_string());
    let fields = [
        time(request.ended_ms),
        request.model.clone(),
        client,
        request.endpoint.clone(),
        count(request.code),
        known(request.receive_queue),
        known(request.time_to_first_byte),
        known(events.map(|events| events.time_to_first_token)),
        count(events.map(|events| events.count)),
        gap(|events| events.longest_gap),
        gap(|events| events.longest_gap_at),
        duration(request.duration),
        count(request.request_bytes),
        count(request.response_bytes),
        count(request.retransmits),
        aborted,
        id.map_or_else(|| NONE.to_owned(), String::clone),
    ];
    line(fields.each_ref().map(String::as_str))
}

/// Width of each column but the last; negative: aligned to the right.
const WIDTHS: [i32; 16] = [12, 20, 21, 16, -4, -7, -7, -7, -6, -7, -7, -7, -8, -8, -3, 16];

fn line(fields: [&str; 17]) -> String {
    let mut line = String::new();
    for (field, width) in fields.iter().zip(WIDTHS) {
        let size = width.unsigned_abs() as usize;
        // Writing to a string cannot fail.
        _ = if width < 0 { write!(line, "{field:>size$} ") } else { write!(line, "{field:<size$} ") };
    }
    line + fields[16]
}

/// Time of day, in UTC as in the agent's log.
fn time(ms: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(ms.max(0).unsigned_abs());
    let text = humantime::format_rfc3339_millis(time).to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

/// With three significant digits.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s >= 1.0 => (s, "s"),
        s if s >= 1e-3 => (s * 1e3, "ms"),
        s => (s * 1e6, "us"),
    };
    let decimals = if value >= 100.0 { 0 } else { usize::from(value < 10.0) + 1 };
    format!("{value:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Ending;
    use crate::trace::request::tests::ended;

    #[test]
    fn a_line_has_a_field_under_each_heading() {
        let short = Request::of(&ended(1_800_000_000_123, 2_300_000_000, 200), "qwen");
        assert_eq!(
            row(&short),
            "08:00:00.123 qwen                 10.1.2.3:51234        chat_completions  200       -   2.30s       -      -       -       -   2.30s        -        -   - -                -"
        );
        let long = Request {
            code: None,
            aborted: Some(Ending { side: "client".to_owned(), phase: "streaming".to_owned() }),
            events: Some(Events { count: 54, time_to_first_token: 0.13, longest_gap: 0.0405, longest_gap_at: 1.2 }),
            receive_queue: Some(0.000_07),
            request_bytes: Some(1200),
            response_bytes: Some(33_000),
            retransmits: Some(2),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
            ..short
        };
        let fields: Vec<_> = row(&long).split_whitespace().map(str::to_owned).collect();
        assert_eq!(
            fields[4..],
            [
                "-",
                "70.0us",
                "2.30s",
                "130ms",
                "54",
                "40.5ms",
                "1.20s",
                "2.30s",
                "1200",
                "33000",
                "2",
                "client/streaming",
                "4bf92f3577b34da6a3ce929d0e0e4736"
            ]
        );
        assert_eq!(heading().find("ENDPOINT"), row(&long).find("chat_completions"));
    }

    #[test]
    fn durations_have_three_digits() {
        for (seconds, text) in
            [(0.0, "0.00us"), (0.000_012_34, "12.3us"), (0.123_4, "123ms"), (9.999, "10.00s"), (125.0, "125s")]
        {
            assert_eq!(duration(seconds), text);
        }
    }
}
