//! A slow disk: the model's threads are in calls on files.

use super::super::case::{Case, DISK_CALLS};
use super::super::words::{number, percent, time};
use super::{Finding, explains};

pub(super) fn judge(case: &Case<'_>) -> Finding {
    if !case.now.has("syscall_seconds") && !case.before.has("syscall_seconds") {
        return Finding::NotMeasured(
            "in which system calls it waits, and therefore whether its disk is slow (the syscalls programs are not running)"
                .to_owned(),
        );
    }
    // Sockets are read and written with some of these calls too, and a slow reader or an idle connection is no disk.
    let sure = |call: &&&str| matches!(**call, "fsync" | "fdatasync" | "openat" | "pread64" | "pwrite64");
    let seconds = case.excess(|facts| DISK_CALLS.iter().filter(sure).map(|call| facts.call(call)).sum());
    let most = DISK_CALLS
        .iter()
        .filter(sure)
        .max_by(|a, b| case.excess(|facts| facts.call(a)).total_cmp(&case.excess(|facts| facts.call(b))));
    let most = most.copied().unwrap_or("fsync");
    let sentence = || {
        let calls =
            |facts: &super::super::case::Facts<'_>| facts.each(facts.window.sum(&format!("syscall_calls.{most}")));
        let longest = case.now.window.gauge(&format!("syscall_longest.{most}")).map_or(0.0, |gauge| gauge.max);
        let (now, before) = case.host.rates("pressure_seconds.io_waiting");
        let disk = busiest(case).map(|text| format!("; {text}")).unwrap_or_default();
        format!(
            "It spends {} per request in {most}, {} before ({} calls per request, {} before, up to {} each): its disk is slow or it writes more; \
             something on the host waits for disks {} of the time, {} before{disk}.",
            time(case.now.call(most)),
            time(case.before.call(most)),
            number(calls(&case.now)),
            number(calls(&case.before)),
            time(longest),
            percent(now),
            percent(before),
        )
    };
    explains(case, seconds, 1.0, 0.35, sentence).unwrap_or_else(|| {
        Finding::RuledOut(format!("It spends {} per request in calls on files.", time(case.now.disk_calls())))
    })
}

fn busiest(case: &Case<'_>) -> Option<String> {
    let covered = case.host.now.covered_seconds;
    let (disk, seconds) = case.host.now.sums_of("disk_busy_seconds").max_by(|a, b| a.1.total_cmp(&b.1))?;
    (covered > 0.0).then(|| format!("{disk} is {} busy", percent(seconds / covered)))
}
