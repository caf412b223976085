//! Counts of the `syscalls` programs per model and system call.

use super::{Origin, Outcome, Reading};
use crate::ebpf::family::Family;
use crate::host::errno;
use crate::metrics::catalogue::models::{SYSCALL_DURATION, SYSCALL_ERRORS};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(syscalls) = &origin.families.syscalls else { return Ok(Outcome::Absent) };
    let errors = syscalls.errors()?;
    page.began = origin.families.began(Family::Syscalls);
    for model in origin.inventory.in_page_order() {
        let Some(slot) = origin.families.slots.get(model.port) else { continue };
        let port = model.port.to_string();
        for (call, histogram) in syscalls.times(slot) {
            page.add(&SYSCALL_DURATION, [&model.name, &port, call.name], Value::Histogram(histogram));
        }
        for ((_, call, number), &count) in errors.range((slot, "", 0)..).take_while(|((of, ..), _)| *of == slot) {
            page.add(&SYSCALL_ERRORS, [&model.name, &port, call, &errno::name(*number)], Value::Integer(count));
        }
    }
    Ok(Outcome::Read)
}

#[cfg(test)]
mod tests {
    use citadel_agent_common::calls::CALLS;

    use super::*;

    #[test]
    fn the_help_marks_the_calls_that_wait() {
        let (_, marked) = SYSCALL_DURATION.help.split_once('(').expect("they stand in brackets");
        let (marked, _) = marked.split_once(')').expect("they stand in brackets");
        let marked: Vec<_> = marked.split([' ', ',', ';']).collect();
        for call in CALLS {
            assert_eq!(marked.contains(&call.name), call.waits, "{call}");
        }
    }
}
