//! The server does not read its requests: its event loop, or all its threads, are busy with something else.

use super::super::case::{Case, DISK_CALLS, Facts};
use super::super::words::{percent, time};
use super::{Finding, explains};

pub(super) fn judge(case: &Case<'_>) -> Finding {
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
