//! Metrics reported by the models' engines, with one name for all engines.
//!
//! The health probes fetch the pages, one GET per interval; [`page`] parses them according to `table`, and `ollama` the
//! response of the one engine without a metrics page.

pub mod ollama;
pub mod page;
mod table;

#[cfg(test)]
mod tests;

use std::time::Duration;

use self::page::Report;
use super::{Origin, Outcome, Reading};
use crate::discovery::engine::Engine;
use crate::metrics::catalogue::engine::{INFO, PAGE_PARSE, PAGE_SIZE, PAGE_SUCCESS};
use crate::metrics::family::{Page, Value};

/// What the probes know about a port's engine.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    /// The engine, once identified.
    pub(super) engine: Option<Engine>,
    /// Its version, if reported.
    pub(super) version: Option<String>,
    /// The last metrics page.
    pub(super) page: Option<Asked>,
}

/// Result of requesting a metrics page.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The reported metrics; `Err`: the request or parsing failed.
    pub(super) report: Result<Report, ()>,
    /// Size in bytes.
    pub(super) size: usize,
    /// Time that parsing took.
    pub(super) parse: Duration,
}

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(probes) = origin.probes else { return Ok(Outcome::Absent) };
    let mut any = false;
    probes.each_engine(origin, |model, port, known| {
        any = true;
        add(page, [model, port], known);
    });
    Ok(if any { Outcome::Read } else { Outcome::Absent })
}

fn add(page: &mut Page, [model, port]: [&str; 2], known: &Known) {
    if let Some(engine) = known.engine {
        let version = known.version.as_deref().unwrap_or_default();
        page.add(&INFO, [model, port, engine.name(), version], Value::Integer(1));
    }
    let Some(Asked { report, size, parse }) = &known.page else { return };
    page.add(&PAGE_SUCCESS, [model, port], Value::Integer(u64::from(report.is_ok())));
    page.add(&PAGE_SIZE, [model, port], Value::Integer(*size as u64));
    page.add(&PAGE_PARSE, [model, port], Value::Float(parse.as_secs_f64()));
    let Ok(Report { engine, series }) = report else { return };
    for series in series {
        let value = Value::Float(series.value);
        match &series.label {
            Some(label) => page.add(series.desc, [model, port, engine.name(), label], value),
            None => page.add(series.desc, [model, port, engine.name()], value),
        }
    }
}
