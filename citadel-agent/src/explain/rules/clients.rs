//! Requests that fail: with a server error, or because one side closed the connection.

use super::super::case::{Case, Facts};
use super::super::words::{number, percent, time};
use super::Finding;

/// A smaller fraction of all requests is not reported.
const PART: f64 = 0.05;

/// From this fraction on, server errors are wrong even if they have always been there.
const ALWAYS_WRONG: f64 = 0.2;

/// Whether so many requests fail with a server error that it does not matter how many did before.
pub(in super::super) fn always_fails(facts: &Facts<'_>) -> bool {
    facts.each(facts.server_errors) >= ALWAYS_WRONG
}

pub(super) fn server_errors(case: &Case<'_>) -> Finding {
    let part = |facts: &Facts<'_>| facts.each(facts.server_errors);
    let (now, before) = (part(&case.now), part(&case.before));
    let as_before = case.compared() && now < 2.0 * before && !always_fails(&case.now);
    if case.now.server_errors < 3.0 || now < PART || as_before {
        return match case.now.enough() {
            true => Finding::RuledOut(format!("{} of the requests fail with a server error.", percent(now))),
            false => Finding::Silent,
        };
    }
    let mut codes: Vec<(&str, f64)> = Vec::new();
    for (key, count) in case.now.window.requests_of_users() {
        let code = key.rsplit('.').next().unwrap_or_default();
        if code.starts_with('5') {
            match codes.iter_mut().find(|(known, _)| *known == code) {
                Some((_, sum)) => *sum += count,
                None => codes.push((code, count)),
            }
        }
    }
    codes.sort_by(|a, b| b.1.total_cmp(&a.1));
    let list: Vec<_> = codes.iter().take(3).map(|(code, count)| format!("{} with {code}", number(*count))).collect();
    let overload = match codes.first() {
        Some((code, _)) if ["503", "529"].contains(code) => {
            ": the server rejects requests, as it does when it is overloaded or not ready"
        }
        _ => "",
    };
    Finding::Cause {
        weight: 3.0 * now.max(0.34),
        share: Some(now),
        sentence: format!(
            "{} of the requests fail with a server error, {} before ({}){overload}.",
            percent(now),
            percent(before),
            list.join(", ")
        ),
    }
}

fn aborted(facts: &Facts<'_>, side: &str) -> f64 {
    facts.window.total_of(&format!("aborted.{side}"))
}

pub(super) fn give_up(case: &Case<'_>) -> Finding {
    let part = |facts: &Facts<'_>| facts.each(aborted(facts, "client"));
    let (now, before) = (part(&case.now), part(&case.before));
    let count = aborted(&case.now, "client");
    if count < 3.0 || now < PART || (case.compared() && now < 2.0 * before) {
        return match case.now.enough() {
            true => Finding::RuledOut(format!("Clients abort {} of the requests.", percent(now))),
            false => Finding::Silent,
        };
    }
    let phase =
        case.now.window.sums_of("aborted.client").max_by(|a, b| a.1.total_cmp(&b.1)).map_or("", |(phase, _)| phase);
    let when = match phase {
        "request" => "while still sending the request",
        "waiting" => "while waiting for the first byte",
        "headers" => "after the headers, before the first token",
        _ => "in the middle of the response",
    };
    let why = match case.slow {
        Some(slow) => format!(
            "; the {} is {}, {} before, which may exceed their timeouts",
            slow.what.words(),
            time(slow.now),
            time(slow.before)
        ),
        None => "; the server is as fast as before, so the cause is on the client side (a timeout, a user who leaves)"
            .to_owned(),
    };
    Finding::Cause {
        weight: 2.5 * now.max(0.4),
        share: Some(now),
        sentence: format!(
            "Clients abort {} of the requests, {} before, mostly {when}{why}.",
            percent(now),
            percent(before)
        ),
    }
}

pub(super) fn server_aborts(case: &Case<'_>) -> Finding {
    let part = |facts: &Facts<'_>| facts.each(aborted(facts, "server"));
    let (now, before) = (part(&case.now), part(&case.before));
    if aborted(&case.now, "server") < 3.0 || now < PART || (case.compared() && now < 2.0 * before) {
        return Finding::Silent;
    }
    Finding::Cause {
        weight: 2.6 * now.max(0.4),
        share: Some(now),
        sentence: format!(
            "The server closes the connection of {} of the requests before the end of the response, {} before: see its log.",
            percent(now),
            percent(before)
        ),
    }
}
