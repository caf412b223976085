//! Software RAID: `/proc/mdstat` (`md(4)`).

use crate::host::Roots;
use crate::host::files::read_text;
use crate::metrics::catalogue::storage::{MD_BLOCKS, MD_BLOCKS_SYNCED, MD_DISKS, MD_DISKS_REQUIRED, MD_STATE};
use crate::metrics::family::{Page, Value};
use crate::sources::{Outcome, Reading};

/// States that are exported, each as 0 or 1. An array that is being reshaped is in none of them, as in node_exporter.
const STATES: [State; 5] = [State::Active, State::Inactive, State::Recovering, State::Resync, State::Check];

pub(in crate::sources) fn read(roots: &Roots, page: &mut Page) -> Reading {
    let Some(text) = read_text(&roots.proc.join("mdstat"))? else { return Ok(Outcome::Absent) };
    for array in parse(&text) {
        add(page, &array);
    }
    Ok(Outcome::Read)
}

/// What an array does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Active,
    Inactive,
    Recovering,
    Resync,
    Check,
    Reshape,
}

impl State {
    const fn label(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Recovering => "recovering",
            Self::Resync => "resync",
            Self::Check => "check",
            Self::Reshape => "reshape",
        }
    }
}

/// An array.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Array<'a> {
    name: &'a str,
    state: State,
    required: u64,
    active: u64,
    failed: u64,
    spare: u64,
    blocks: u64,
    synced: u64,
}

/// All arrays; what is not as documented is left out.
pub(super) fn parse(mdstat: &str) -> Vec<Array<'_>> {
    let mut arrays = Vec::new();
    let mut lines = mdstat.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((name, description)) = line.split_once(" : ") else { continue };
        if name.starts_with(char::is_whitespace) || name == "Personalities" {
            continue;
        }
        let mut details = Vec::new();
        while let Some(detail) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            details.push(detail);
        }
        arrays.extend(array(name, description, &details));
    }
    arrays
}

/// `active raid1 sdb1[1] sda1[0]`, and below it `248896 blocks [2/2] [UU]` and what else there is.
fn array<'a>(name: &'a str, description: &str, details: &[&str]) -> Option<Array<'a>> {
    let mut words = description.split_ascii_whitespace();
    let inactive = match words.next()? {
        "active" => false,
        "inactive" => true,
        _ => return None,
    };
    let words: Vec<&str> = words.collect();
    let devices = words.iter().filter(|word| word.contains('['));
    let marked = |mark: &str| devices.clone().filter(|device| device.ends_with(mark)).count() as u64;
    let (failed, spare, devices) = (marked("(F)"), marked("(S)"), devices.clone().count() as u64);

    let size = details.first()?;
    let blocks = size.trim_start().split_once(' ')?.0.parse().ok()?;
    let (required, active) = match (inactive, size.split_ascii_whitespace().rev().find_map(ratio)) {
        (true, _) => (devices, 0),
        (false, Some(disks)) => disks,
        // Without redundancy there is nothing to count: all of them, or the array is gone.
        (false, None) => (devices, devices),
    };

    let progress = details.iter().skip(1).find_map(|line| Some((progress(line)?, *line)));
    let (state, synced) = match progress {
        Some((state, line)) => (state, synced(line).unwrap_or_default()),
        None if inactive => (State::Inactive, blocks),
        None => (State::Active, blocks),
    };
    Some(Array { name, state, required, active, failed, spare, blocks, synced })
}

/// `[2/1]`: two disks required, one active.
fn ratio(word: &str) -> Option<(u64, u64)> {
    let (required, active) = word.strip_prefix('[')?.strip_suffix(']')?.split_once('/')?;
    Some((required.parse().ok()?, active.parse().ok()?))
}

/// What a line as `[=>...]  recovery =  8.5% (16775552/195310144) finish=...` or `resync=DELAYED` says is going on.
fn progress(line: &str) -> Option<State> {
    [("recovery", State::Recovering), ("resync", State::Resync), ("check", State::Check), ("reshape", State::Reshape)]
        .into_iter()
        .find(|(word, _)| line.contains(word))
        .map(|(_, state)| state)
}

/// The blocks that are done; none while the work waits.
fn synced(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once('(')?;
    rest.split_once('/')?.0.parse().ok()
}

fn add(page: &mut Page, array: &Array<'_>) {
    let device = array.name;
    for state in STATES {
        page.add(&MD_STATE, [device, state.label()], Value::Integer(u64::from(state == array.state)));
    }
    for (state, count) in [("active", array.active), ("failed", array.failed), ("spare", array.spare)] {
        page.add(&MD_DISKS, [device, state], Value::Integer(count));
    }
    page.add(&MD_DISKS_REQUIRED, [device], Value::Integer(array.required));
    page.add(&MD_BLOCKS, [device], Value::Integer(array.blocks));
    page.add(&MD_BLOCKS_SYNCED, [device], Value::Integer(array.synced));
}

#[cfg(test)]
mod tests {
    use super::*;

    const MDSTAT: &str = "\
Personalities : [raid1] [raid6] [raid5] [raid4] [raid0]
md0 : active raid1 nvme1n1p1[1] nvme0n1p1[0]
      248896 blocks super 1.2 [2/2] [UU]
      bitmap: 0/1 pages [0KB], 65536KB chunk

md1 : active raid5 sdd1[3](S) sdc1[2](F) sdb1[1] sda1[0]
      7932 blocks super 1.2 level 5, 64k chunk, algorithm 2 [3/2] [UU_]
      [=>...................]  recovery =  8.5% (675/7932) finish=17.0min speed=259783K/sec

md2 : active raid0 sdf[1] sde[0]
      314159265 blocks 64k chunks

md3 : inactive sdg[0](S)
      1024 blocks super 1.2

md4 : active raid1 sdi[1] sdh[0]
      4096 blocks [2/2] [UU]
        resync=DELAYED

unused devices: <none>
";

    #[test]
    fn arrays_in_every_state() {
        let arrays = parse(MDSTAT);
        let array = |name, state, [required, active, failed, spare, blocks, synced]: [u64; 6]| Array {
            name,
            state,
            required,
            active,
            failed,
            spare,
            blocks,
            synced,
        };
        assert_eq!(
            arrays,
            [
                array("md0", State::Active, [2, 2, 0, 0, 248_896, 248_896]),
                array("md1", State::Recovering, [3, 2, 1, 1, 7932, 675]),
                array("md2", State::Active, [2, 2, 0, 0, 314_159_265, 314_159_265]),
                array("md3", State::Inactive, [1, 0, 0, 1, 1024, 1024]),
                array("md4", State::Resync, [2, 2, 0, 0, 4096, 0]),
            ]
        );
    }

    #[test]
    fn a_file_without_arrays_and_garbage_have_none() {
        for text in [
            "",
            "Personalities : \nunused devices: <none>\n",
            "md0 : \n",
            "md0 : active\n x\n",
            "md0 : active raid1 a[0]\n",
        ] {
            assert!(parse(text).is_empty(), "{text:?}");
        }
    }
}
