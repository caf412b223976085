//! Between server and client: packet loss, clients that read slowly, rejected connections.

use super::super::case::{Case, Facts};
use super::super::words::{number, percent, time};
use super::Finding;

/// Retransmitted segments per request: fewer are normal on any network.
const RETRANSMITS: f64 = 0.2;

/// Part of the connections' time for which a client's window held them back.
const HELD_BACK: f64 = 0.2;

fn retransmits(facts: &Facts<'_>) -> f64 {
    facts.each(facts.window.sum("retransmits"))
}

/// Connections that wait for a client to read, at a time.
fn held_back(facts: &Facts<'_>) -> f64 {
    facts.gauge_mean("held_back_connections").unwrap_or(0.0)
}

fn is_slow_reader(case: &Case<'_>) -> bool {
    let open = case.now.gauge_mean("connections_open").unwrap_or(0.0).max(1.0);
    let (now, before) = (held_back(&case.now), held_back(&case.before));
    now >= 0.3 && now / open >= HELD_BACK / 4.0 && now >= 2.0 * before
}

fn is_loss(case: &Case<'_>) -> bool {
    let (now, before) = (retransmits(&case.now), retransmits(&case.before));
    case.now.window.sum("retransmits") >= 5.0 && now >= RETRANSMITS && now >= 3.0 * before && !is_slow_reader(case)
}

/// What clients notice and the server does not: the verdict where all of the server's own latencies are as before.
pub(in super::super) fn clients_notice(case: &Case<'_>) -> Option<String> {
    if !case.compared() {
        return None;
    }
    let (now, before) = (number(retransmits(&case.now)), number(retransmits(&case.before)));
    if is_loss(case) {
        return Some(format!(
            "The server answers as before, but {now} segments per request are retransmitted, {before} before: clients wait."
        ));
    }
    is_slow_reader(case).then(|| "The server answers as before, but clients read the responses slowly.".to_owned())
}

pub(super) fn loss(case: &Case<'_>) -> Finding {
    let (now, before) = (retransmits(&case.now), retransmits(&case.before));
    if !case.now.enough() {
        return Finding::Silent;
    }
    if is_slow_reader(case) {
        return Finding::RuledOut(format!(
            "{} segments per request are retransmitted, but to clients that do not read: this is not packet loss.",
            number(now)
        ));
    }
    if !is_loss(case) {
        return Finding::RuledOut(format!(
            "{} segments per request are retransmitted: the network loses few packets.",
            number(now)
        ));
    }
    let rtt = |facts: &Facts<'_>| time(facts.mean("rtt").unwrap_or(0.0));
    Finding::Cause {
        weight: 0.9,
        share: None,
        sentence: format!(
            "The network loses packets: {} segments per request are retransmitted, {} before; the round trip takes {}, {} before.",
            number(now),
            number(before),
            rtt(&case.now),
            rtt(&case.before),
        ),
    }
}

pub(super) fn slow_reader(case: &Case<'_>) -> Finding {
    if !case.now.has("held_back_connections") {
        return Finding::NotMeasured(
            "whether clients read the responses slowly (no sending connection was seen)".to_owned(),
        );
    }
    let (now, before) = (held_back(&case.now), held_back(&case.before));
    if !is_slow_reader(case) {
        return Finding::RuledOut(format!("{} connections at a time wait for their client to read.", number(now)));
    }
    let open = case.now.gauge_mean("connections_open").unwrap_or(0.0);
    let sentence = format!(
        "Clients read slowly: {} of {} connections wait for their client's receive window, {} before; retransmitted segments \
         ({} per request) probe it, and are not packet loss.",
        number(now),
        number(open),
        number(before),
        number(retransmits(&case.now)),
    );
    Finding::Cause { weight: 1.2, share: None, sentence }
}

pub(super) fn listen_overflow(case: &Case<'_>) -> Finding {
    let depth = case.now.window.gauge("accept_queue").map_or(0.0, |gauge| gauge.max);
    let limit = case.now.window.gauge("accept_queue_limit").map_or(f64::INFINITY, |gauge| gauge.max);
    let (overflows, before) = (case.host.now.sum("listen_overflows"), case.host.rates("listen_overflows").1);
    let full = depth >= limit && limit > 0.0;
    if !full && (overflows < 1.0 || before > 0.0 || depth < 0.5 * limit) {
        return Finding::Silent;
    }
    Finding::Cause {
        weight: 1.1,
        share: None,
        sentence: format!(
            "Connections are rejected: {} wait to be accepted, of at most {} ({} of the limit), and the host dropped {} because of full queues.",
            number(depth),
            number(limit),
            percent(depth / limit),
            number(overflows),
        ),
    }
}
