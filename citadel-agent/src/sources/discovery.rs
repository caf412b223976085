//! Whether discovery sees all that listens. It has no metrics of its own: the models' sources carry what it finds.

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
