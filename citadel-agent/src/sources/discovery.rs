//! Whether discovery sees all listeners. It has no metrics of its own; its results are in those of the models.

use super::{Origin, Outcome, Reading};
use crate::host::skipped::Skipped;
use crate::metrics::family::Page;

pub(super) fn read(origin: &mut Origin<'_>, _page: &mut Page, skipped: &mut Skipped) -> Reading {
    skipped.count_elsewhere(origin.discovered.skipped);
    match &origin.discovered.problem {
        Some(problem) => Err(problem.as_str().into()),
        None => Ok(Outcome::Read),
    }
}
