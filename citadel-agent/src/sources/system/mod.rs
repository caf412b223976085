//! The host, with node_exporter's names: the same files are exported with the same labels and values. `docs/metrics.md`
//! lists what is omitted.
//!
//! Each source reads files and passes their text to pure functions that add samples to a page. The parsers are the
//! project's own, not those of a library with typed fields: node_exporter's metrics are the fields of the files,
//! whatever their names, and a library with a fixed set would lose the others.

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

/// Adds a kernel number, which can be negative.
fn add_signed<const N: usize>(page: &mut Page, desc: &'static Desc, labels: [&str; N], number: i64) {
    let value = u64::try_from(number).map_or(Value::Float(number as f64), Value::Integer);
    page.add(desc, labels, value);
}

/// A kernel number, which can be negative or take all 64 bits.
fn parse_signed(text: &str) -> Option<Value> {
    let negative = || text.parse::<i64>().ok().map(|number| Value::Float(number as f64));
    text.parse().ok().map(Value::Integer).or_else(negative)
}

/// Directories `PREFIX<number>` below `parent`, sorted by number; other names are ignored.
fn numbered(parent: &Path, prefix: &'static str, skipped: &mut Skipped) -> Option<Vec<(u64, PathBuf)>> {
    let names = skipped.list(prefix, parent)?;
    let number = |name: &String| name.strip_prefix(prefix)?.parse::<u64>().ok();
    let mut found: Vec<_> = names.iter().filter_map(|name| Some((number(name)?, parent.join(name)))).collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    Some(found)
}

/// The end of most sources: absent if nothing was found, read otherwise.
fn outcome(found: bool) -> Reading {
    Ok(if found { super::Outcome::Read } else { super::Outcome::Absent })
}
