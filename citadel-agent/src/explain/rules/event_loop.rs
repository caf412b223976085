//! The server does not read its requests, or does not go on with its responses: its event loop, or all its threads, are busy with
//! something else.

use super::super::case::{Case, DISK_CALLS, Facts, rate};
use super::super::words::{percent, time};
use super::{Finding, explains};

/// The calls in which an event loop waits for events.
const LOOP_CALLS: [&str; 6] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll", "select"];

pub(super) fn judge(case: &Case<'_>) -> Finding {
    let queue = case.share(case.excess(Facts::receive_queue));
    let away = away(case).filter(|away| case.share(away.seconds) > queue);
    away.and_then(|away| explains(case, away.seconds, 0.8, 0.1, || away.sentence(case))).unwrap_or_else(|| unread(case))
}

/// For how long the loop does nothing that is measured.
struct Away {
    /// Of the window, and of the time before.
    now: f64,
    before: f64,
    /// By request.
    seconds: f64,
}

impl Away {
    fn sentence(&self, case: &Case<'_>) -> String {
        let what = case.slow.map_or("response", |slow| slow.what.words());
        format!(
            "Its event loop is blocked {} of the time, {} before, in something that neither needs a CPU nor is a measured system call \
             (a sleep, a lock): the {what} is longer by {}, the run queue is normal ({}).",
            percent(self.now),
            percent(self.before),
            time(case.slow.map_or(0.0, |slow| slow.excess)),
            time(case.now.run_queue()),
        )
    }
}

/// A loop that is blocked in the middle of responses, while no other request arrives that would have to wait.
fn away(case: &Case<'_>) -> Option<Away> {
    let (now, before) = (blocked_part(&case.now)?, blocked_part(&case.before)?);
    let part = (now - before).max(0.0);
    // If it is blocked at any time, a request has that part of its duration of it; if only while it serves one, all of it.
    let seconds = part * case.now.mean("duration.success")?.max(1.0 / case.now.per_second());
    Some(Away { now, before, seconds })
}

/// The part of the time in which no thread waits for events, runs, waits for a CPU or is in a system call that works; `None` if
/// the server has no event loop: one that turns at least once for each request. Other threads make the part smaller.
fn blocked_part(facts: &Facts<'_>) -> Option<f64> {
    let window = facts.window;
    let sum = |what: &str| LOOP_CALLS.iter().map(|call| window.sum(&format!("{what}.{call}"))).sum::<f64>();
    if !facts.enough() || sum("syscall_calls") < facts.requests() {
        return None;
    }
    let by_request = facts.on_cpu() + facts.run_queue() + facts.calls().map(|(_, seconds)| seconds).sum::<f64>();
    Some((1.0 - rate(window, sum("syscall_seconds")) - by_request * facts.per_second()).clamp(0.0, 1.0))
}

/// Requests that wait in the receive queue.
fn unread(case: &Case<'_>) -> Finding {
    if !case.now.has("receive_queue") && !case.before.has("receive_queue") {
        return Finding::NotMeasured(
            "how long requests wait before the server reads them (the recvq program is not running)".to_owned(),
        );
    }
    let seconds = case.excess(Facts::receive_queue);
    let (now, before) = (case.now.receive_queue(), case.before.receive_queue());
    let busy = |what: &str| {
        format!(
            "Requests wait {} before the server reads them, {} before: its event loop is {what}.",
            time(now),
            time(before)
        )
    };
    explains(case, seconds, 0.8, 0.1, || busy(&blocked(case, seconds)))
        .unwrap_or_else(|| Finding::RuledOut(format!("Requests wait {} before the server reads them.", time(now))))
}

/// What the loop does meanwhile.
fn blocked(case: &Case<'_>, seconds: f64) -> String {
    let run_queue = case.excess(Facts::run_queue);
    let on_cpu = case.excess(Facts::on_cpu);
    let calls = case.now.calls().map(|(call, now)| (call, (now - case.before.call(call)).max(0.0)));
    let most = calls.max_by(|a, b| a.1.total_cmp(&b.1)).filter(|(_, excess)| *excess >= 0.3 * seconds);
    match most {
        _ if run_queue >= 0.5 * seconds => {
            format!("waiting for a CPU ({} per request)", time(case.now.run_queue()))
        }
        // Reads and writes of a socket or pipe may block as well.
        Some((call, _)) if DISK_CALLS.contains(&call) || on_cpu < 0.3 * seconds => {
            format!(
                "blocked in {call} ({} per request, {} before)",
                time(case.now.call(call)),
                time(case.before.call(call))
            )
        }
        _ if on_cpu >= 0.3 * seconds => {
            let share = case.now.on_cpu() / case.now.each(case.now.window.covered_seconds).max(1e-9);
            format!(
                "computing ({} of CPU time per request, {} before; {} of a CPU), not waiting for one (run queue {})",
                time(case.now.on_cpu()),
                time(case.before.on_cpu()),
                percent(share),
                time(case.now.run_queue()),
            )
        }
        _ => format!(
            "blocked in something that neither needs a CPU nor is a measured system call (a sleep, a lock): the run queue is normal \
             ({}), so it is not for want of a CPU",
            time(case.now.run_queue())
        ),
    }
}
