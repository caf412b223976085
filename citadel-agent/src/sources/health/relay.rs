//! A model's own metrics page, as far as it is relayed.

use std::collections::BTreeMap;

use tracing::warn;

use super::Heard;
use crate::metrics::foreign::{self, Families, ForeignError, Parsed, Reason};

/// Limits of a page. The widest family of vLLM has 37 labels.
const LIMITS: foreign::PageLimits = foreign::PageLimits { samples: 10_000, labels: 64, text: 4096, memory: 4 << 20 };

/// Maximum memory of all relayed pages; a page of vLLM takes half a megabyte.
const MAX_RELAYED: usize = 16 << 20;

/// Maximum number of families named in a log line.
const EXAMPLES: usize = 5;

/// A relayed page.
#[derive(Clone, Debug, Default)]
pub(super) struct Relayed {
    pub(super) families: Families,
    /// Its memory.
    pub(super) size: usize,
    /// Families that are not relayed, except those that the agent has itself.
    pub(super) dropped: BTreeMap<String, Reason>,
    counts: BTreeMap<Reason, u64>,
}

/// Parses a page.
pub(super) fn read(page: &str) -> Result<Relayed, ForeignError> {
    let Parsed { families, mut dropped, size } = foreign::parse(page, LIMITS)?;
    let mut counts = BTreeMap::new();
    for reason in dropped.values() {
        *counts.entry(*reason).or_default() += 1;
    }
    // Every server with the Python client has these, and the agent its own: counted, but without a warning.
    dropped.retain(|name, reason| *reason != Reason::Name || !name.starts_with("process_"));
    Ok(Relayed { families, size, dropped, counts })
}

impl Relayed {
    /// Number of families that are not relayed, by reason.
    pub(super) fn dropped_by_reason(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().map(|(reason, count)| (reason.name(), *count))
    }

    /// Examples of them, for a message.
    pub(super) fn examples(&self) -> String {
        let short = |name: &String| name.chars().take(100).collect::<String>();
        let some = self.dropped.iter().take(EXAMPLES);
        let mut text: Vec<_> = some.map(|(name, reason)| format!("{} ({})", short(name), reason.name())).collect();
        if self.dropped.len() > EXAMPLES {
            text.push(format!("and {} more", self.dropped.len() - EXAMPLES));
        }
        text.join(", ")
    }
}

/// Makes room for a page of `port` with this much memory: larger pages are dropped, the largest first. Anybody can
/// listen on a model's port, and one large page must not displace many small ones.
pub(super) fn make_room(all: &mut BTreeMap<u16, Heard>, port: u16, memory: usize) -> Result<(), String> {
    let mut others: Vec<(usize, u16)> = Vec::new();
    for (&other, heard) in all.iter().filter(|(other, _)| **other != port) {
        others.extend(heard.relayed.iter().flatten().map(|relayed| (relayed.size, other)));
    }
    let sum = |pages: &[(usize, u16)]| pages.iter().map(|(memory, _)| memory).sum::<usize>();
    others.sort_unstable();
    let larger = others.partition_point(|(other, _)| *other <= memory);
    if sum(&others[..larger]) + memory > MAX_RELAYED {
        return Err(format!("relayed pages are limited to {MAX_RELAYED} bytes in total, and this page does not fit"));
    }
    while sum(&others) + memory > MAX_RELAYED
        && let Some((memory, largest)) = others.pop()
    {
        warn!(
            port = largest,
            memory,
            "not relaying the model's own metrics: relayed pages reached their memory limit and this is the largest"
        );
        if let Some(heard) = all.get_mut(&largest) {
            heard.relayed = Some(Err(()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_pages_give_way_to_small_ones_and_all_stay_within_the_bound() {
        let mut all = BTreeMap::new();
        let mut keep = |port: u16, size: usize| {
            make_room(&mut all, port, size)?;
            all.entry(port).or_insert_with(Heard::default).relayed = Some(Ok(Relayed { size, ..Relayed::default() }));
            let kept =
                || all.iter().filter_map(|(port, heard)| Some((*port, heard.relayed.as_ref()?.as_ref().ok()?.size)));
            assert!(kept().map(|(_, size)| size).sum::<usize>() <= MAX_RELAYED);
            Ok::<_, String>(kept().map(|(port, _)| port).collect::<Vec<_>>())
        };
        for port in 1..=4 {
            keep(port, MAX_RELAYED / 4 - usize::from(port)).unwrap();
        }
        assert_eq!(keep(5, MAX_RELAYED / 8).unwrap(), [2, 3, 4, 5], "the largest was the first");
        assert!(keep(1, MAX_RELAYED / 4 - 1).unwrap_err().contains("this page does not fit"));
        assert_eq!(keep(6, MAX_RELAYED / 8).unwrap(), [2, 3, 4, 5, 6]);
        // One that is there already makes room for itself.
        assert_eq!(keep(6, 1000).unwrap(), [2, 3, 4, 5, 6]);
    }
}
