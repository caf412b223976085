//! Software RAID: `/proc/mdstat` (`md(4)`; `md_seq_show` and `status_resync` in the kernel's `drivers/md/md.c`).

use crate::host::Roots;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::storage::{MD_BLOCKS, MD_BLOCKS_SYNCED, MD_DISKS, MD_DISKS_REQUIRED, MD_STATE};
use crate::metrics::family::{Page, Value};
use crate::sources::{Outcome, Reading};

pub(in crate::sources) fn read(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("mdstat", &roots.proc.join("mdstat")) else { return Ok(Outcome::Absent) };
    add_arrays(page, &text, skipped);
    Ok(Outcome::Read)
}

pub(in crate::sources) fn add_arrays(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for array in parse(text, skipped) {
        add(page, &array);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ArrayState {
    Active,
    Inactive,
    /// More disks failed than it tolerates, and all writes fail (5.19).
    Broken,
    /// The member disks of a firmware RAID, on which the arrays are; not an array itself.
    Container,
    Recovering,
    Resync,
    Check,
    Reshape,
    /// An unknown word.
    Unknown,
}

/// The exported states, each as 0 or 1. node_exporter has the first five; for an array in another state, all of these
/// are 0, as there.
const STATES: [(ArrayState, &str); 8] = [
    (ArrayState::Active, "active"),
    (ArrayState::Inactive, "inactive"),
    (ArrayState::Recovering, "recovering"),
    (ArrayState::Resync, "resync"),
    (ArrayState::Check, "check"),
    (ArrayState::Reshape, "reshape"),
    (ArrayState::Broken, "broken"),
    (ArrayState::Container, "container"),
];

/// Disks of an array.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Disks {
    required: u64,
    active: u64,
}

/// An array. Unreadable properties are `None`.
#[derive(PartialEq, Eq, Debug)]
struct Array<'a> {
    name: &'a str,
    state: ArrayState,
    disks: Option<Disks>,
    failed: u64,
    spare: u64,
    blocks: Option<u64>,
    synced: Option<u64>,
}

/// All arrays: one line each, followed by indented lines.
fn parse<'a>(mdstat: &'a str, skipped: &mut Skipped) -> Vec<Array<'a>> {
    let mut heads: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    for line in mdstat.lines() {
        let is_detail = line.starts_with(char::is_whitespace);
        match (line.split_once(" : "), heads.last_mut()) {
            (Some(("Personalities", _)), _) => {}
            (Some((name, description)), _) if !is_detail => heads.push((name, description, Vec::new())),
            (_, Some((_, _, details))) if is_detail => details.push(line),
            // Between two arrays.
            _ if line.is_empty() || line.starts_with("unused devices:") || line.starts_with("Personalities :") => {}
            _ => skipped.note("mdstat", line),
        }
    }
    heads.into_iter().filter_map(|(name, description, details)| array(name, description, &details, skipped)).collect()
}

/// Parses `active raid1 sdb1[1] sda1[0]` and the following lines, such as `248896 blocks super 1.2 [2/2] [UU]`. `None`:
/// not an array.
fn array<'a>(name: &'a str, description: &str, details: &[&str], skipped: &mut Skipped) -> Option<Array<'a>> {
    let mut words = description.split_ascii_whitespace();
    let state = skipped.or_note(words.next(), "mdstat", name)?;
    let members: Vec<&str> = words.filter(|word| word.contains('[')).collect();
    let marked = |mark: &str| members.iter().filter(|member| member.contains(mark)).count() as u64;
    let size = details.iter().find(|line| line.contains(" blocks")).copied();

    let state = match state {
        "active" => ArrayState::Active,
        "broken" => ArrayState::Broken,
        "inactive" if size.is_some_and(is_container) => ArrayState::Container,
        "inactive" => ArrayState::Inactive,
        other => {
            skipped.note("mdstat", format_args!("{name}: {other}"));
            ArrayState::Unknown
        }
    };
    // Without redundancy there is nothing to count: either all disks are active, or the array is gone.
    let members = members.len() as u64 - marked("(J)");
    let ratio = size.and_then(|line| line.split_ascii_whitespace().rev().find_map(ratio));
    let disks = match (state, ratio) {
        (ArrayState::Container, _) => None,
        (ArrayState::Inactive, _) | (ArrayState::Broken, None) => Some(Disks { required: members, active: 0 }),
        (_, Some(disks)) => Some(disks),
        (_, None) if size.is_none() => None,
        (_, None) => Some(Disks { required: members, active: members }),
    };
    let blocks = size.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    let blocks = skipped.or_note(blocks, "mdstat", format_args!("{name}: {}", size.unwrap_or("no blocks")));

    let progress = details.iter().find_map(|line| progress(line));
    let (state, synced) = match (progress, state) {
        (Some(progress), ArrayState::Active) => {
            let synced =
                skipped.or_note(progress.synced, "mdstat", format_args!("{name}: how far its {} is", progress.what));
            (progress.state(name, skipped), synced)
        }
        (_, state) => (state, blocks),
    };
    Some(Array { name, state, disks, failed: marked("(F)"), spare: marked("(S)"), blocks, synced })
}

/// Whether a line such as `4784 blocks super external:imsm` belongs to a container. An array in one refers to it:
/// `external:/md127/0`, with a hyphen instead of the slash while its metadata is read-only.
fn is_container(size: &str) -> bool {
    let metadata = size.split_ascii_whitespace().find_map(|word| word.strip_prefix("external:"));
    metadata.is_some_and(|metadata| !metadata.starts_with(['/', '-']))
}

/// `[2/1]`: two disks required, one active.
fn ratio(word: &str) -> Option<Disks> {
    let (required, active) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
    Some(Disks { required: required.parse().ok()?, active: active.parse().ok()? })
}

/// An operation on an active array.
struct Progress<'a> {
    /// The kernel's word for it.
    what: &'a str,
    /// Number of processed blocks; `None` while it waits.
    synced: Option<u64>,
}

/// Parses a line such as `[=>...]  recovery =  8.5% (16775552/195310144) finish=17.0min speed=259783K/sec`, or
/// `resync=DELAYED`, `PENDING` or `REMOTE`, which waits for its turn or for another host.
fn progress(line: &str) -> Option<Progress<'_>> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    if let [word] = words[..]
        && let Some((what, "DELAYED" | "PENDING" | "REMOTE")) = word.split_once('=')
    {
        return Some(Progress { what, synced: Some(0) });
    }
    let [bar, what, equals, ..] = words[..] else { return None };
    if !bar.starts_with('[') || !bar.ends_with(']') || !equals.starts_with('=') {
        return None;
    }
    let synced = words.iter().find_map(|word| word.strip_prefix('(')?.split_once('/')?.0.parse().ok());
    Some(Progress { what, synced })
}

impl Progress<'_> {
    fn state(&self, array: &str, skipped: &mut Skipped) -> ArrayState {
        match self.what {
            "recovery" | "recover" => ArrayState::Recovering,
            "resync" | "repair" => ArrayState::Resync,
            "check" => ArrayState::Check,
            "reshape" => ArrayState::Reshape,
            // Stopped by an administrator.
            "frozen" | "idle" => ArrayState::Active,
            other => {
                skipped.note("mdstat", format_args!("{array}: {other}"));
                ArrayState::Active
            }
        }
    }
}

fn add(page: &mut Page, array: &Array<'_>) {
    let device = array.name;
    for (state, label) in STATES {
        page.add(&MD_STATE, [device, label], Value::Integer(u64::from(state == array.state)));
    }
    if let Some(disks) = array.disks {
        page.add(&MD_DISKS, [device, "active"], Value::Integer(disks.active));
        page.add(&MD_DISKS_REQUIRED, [device], Value::Integer(disks.required));
    }
    for (state, count) in [("failed", array.failed), ("spare", array.spare)] {
        page.add(&MD_DISKS, [device, state], Value::Integer(count));
    }
    for (desc, blocks) in [(&MD_BLOCKS, array.blocks), (&MD_BLOCKS_SYNCED, array.synced)] {
        if let Some(blocks) = blocks {
            page.add(desc, [device], Value::Integer(blocks));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every state that `md.c` prints.
    const MDSTAT: &str = include_str!("../../../tests/fixtures/parsers/mdstat");

    fn array(name: &str, state: ArrayState, disks: [u64; 4], blocks: u64, synced: u64) -> Array<'_> {
        let [required, active, failed, spare] = disks;
        let disks = Some(Disks { required, active });
        Array { name, state, disks, failed, spare, blocks: Some(blocks), synced: Some(synced) }
    }

    #[test]
    fn arrays_in_every_state() {
        let mut skipped = Skipped::default();
        let arrays = parse(MDSTAT, &mut skipped);
        let expected = [
            array("md0", ArrayState::Active, [2, 2, 0, 0], 248_896, 248_896),
            array("md1", ArrayState::Recovering, [3, 2, 1, 1], 7932, 675),
            array("md2", ArrayState::Active, [2, 2, 0, 0], 314_159_265, 314_159_265),
            array("md3", ArrayState::Inactive, [1, 0, 0, 1], 1024, 1024),
            array("md4", ArrayState::Resync, [2, 2, 0, 0], 4096, 0),
            array("md5", ArrayState::Resync, [2, 2, 0, 0], 4096, 0),
            array("md6", ArrayState::Resync, [2, 2, 0, 0], 4096, 0),
            array("md7", ArrayState::Check, [4, 4, 0, 0], 4096, 2048),
            array("md8", ArrayState::Reshape, [2, 2, 0, 0], 4096, 7),
            array("md9", ArrayState::Active, [2, 2, 0, 0], 4096, 7),
            array("md10", ArrayState::Broken, [2, 0, 0, 0], 314_159_265, 314_159_265),
            array("md11", ArrayState::Broken, [2, 1, 1, 0], 4096, 4096),
            array("md12", ArrayState::Active, [2, 2, 0, 0], 4096, 4096),
            array("md126", ArrayState::Active, [2, 2, 0, 0], 976_759_808, 976_759_808),
            array("md125", ArrayState::Active, [2, 1, 0, 0], 976_759_808, 976_759_808),
            Array { disks: None, ..array("md127", ArrayState::Container, [0, 0, 0, 2], 4784, 4784) },
        ];
        for (array, expected) in arrays.iter().zip(&expected) {
            assert_eq!(array, expected);
        }
        assert_eq!(arrays.len(), expected.len());
        assert!(skipped.is_empty(), "{}", skipped.summary());
    }

    #[test]
    fn an_array_is_there_whatever_its_state_and_whatever_cannot_be_read_of_it() {
        let text = "md0 : suspended raid1 a[1] b[0]\n      4096 blocks [2/1] [U_]\n\
                    \nodd\nmd1 : active raid1 a[0]\n      x blocks [2/2] [UU]\n      [>..]  scrub = 0.1% (y/2) finish=1min\n\
                    md2 : active raid1 a[0]\n";
        let mut skipped = Skipped::default();
        let arrays = parse(text, &mut skipped);
        assert_eq!(arrays[0], array("md0", ArrayState::Unknown, [2, 1, 0, 0], 4096, 4096));
        let unread = Array { blocks: None, synced: None, ..array("md1", ArrayState::Active, [2, 2, 0, 0], 0, 0) };
        assert_eq!(arrays[1], unread);
        assert_eq!(arrays[2], Array { name: "md2", disks: None, ..unread });
        assert_eq!(skipped.count(), 6, "{}", skipped.summary());
    }

    #[test]
    fn a_blank_line_between_an_array_and_its_numbers_changes_nothing() {
        let mut skipped = Skipped::default();
        let arrays = parse("md0 : active raid1 a[1] b[0]\n\n      4096 blocks [2/2] [UU]\n", &mut skipped);
        assert_eq!(arrays, [array("md0", ArrayState::Active, [2, 2, 0, 0], 4096, 4096)]);
    }

    #[test]
    fn a_file_without_arrays_and_garbage_have_none() {
        for text in ["", "Personalities : \nunused devices: <none>\n", "md0 : \n", "odd\n"] {
            assert!(parse(text, &mut Skipped::default()).is_empty(), "{text:?}");
        }
    }
}
