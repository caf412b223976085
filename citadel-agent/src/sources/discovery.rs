//! Whether discovery sees all that listens. It has no metrics of its own: the models' sources carry what it finds.

use super::{Origin, Outcome, Reading};
use crate::metrics::family::Page;

pub(super) fn read(origin: &mut Origin<'_>, _page: &mut Page) -> Reading {
    match &origin.discovered.problem {
        Some(problem) => Err(problem.as_str().into()),
        None => Ok(Outcome::Read),
    }
}
