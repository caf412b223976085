//! The host, under node_exporter's names: what it exports for the same files, this exports too, with the same labels and
//! the same values. `docs/metrics.md` lists what is left out.
//!
//! Each source reads files and hands their text to pure functions that add samples to a page. The parsers are the
//! project's own rather than a library's typed ones: node_exporter's metrics are the files' own fields, whatever they are
//! called, and a library that knows a fixed set of them would lose the others.

pub(super) mod clock;
pub(super) mod cpu;
pub(super) mod kernel;
pub(super) mod load;
pub(super) mod memory;
pub(super) mod network;
pub(super) mod protocols;
pub(super) mod sensors;

use std::path::{Path, PathBuf};

use super::Reading;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::Desc;
use crate::metrics::family::{Page, Value};

/// Adds a number of the kernel's, which may be negative.
fn add_signed<const N: usize>(page: &mut Page, desc: &'static Desc, labels: [&str; N], number: i64) {
    let value = u64::try_from(number).map_or(Value::Float(number as f64), Value::Integer);
    page.add(desc, labels, value);
}

/// A number of the kernel's, which may be negative or take all 64 bits.
fn parse_signed(text: &str) -> Option<Value> {
    let negative = || text.parse::<i64>().ok().map(|number| Value::Float(number as f64));
    text.parse().ok().map(Value::Integer).or_else(negative)
}

/// Directories `PREFIX<number>` below `parent`, with the number, by number; other names are left out.
fn numbered(parent: &Path, prefix: &'static str, skipped: &mut Skipped) -> Option<Vec<(u64, PathBuf)>> {
    let names = skipped.list(prefix, parent)?;
    let number = |name: &String| name.strip_prefix(prefix)?.parse::<u64>().ok();
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((number(name)?, parent.join(name)))).collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    Some(found)
}

/// The end of most sources: what is not there is absent, and what is there was read.
fn outcome(found: bool) -> Reading {
    Ok(if found { super::Outcome::Read } else { super::Outcome::Absent })
}
