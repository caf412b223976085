//! The spool against a model: random actions, crashes that cut off what was not synced, flipped bits, files gone.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const ROOMY: SpoolLimits =
    SpoolLimits { max_bytes: 1 << 30, max_age: Duration::from_secs(1 << 30), min_free: 0, memory: 1 << 20 };

/// Small enough that a few records fill a segment.
const CRAMPED: SpoolLimits = SpoolLimits { max_bytes: 8 << 10, ..ROOMY };

#[derive(Clone, Debug)]
enum Action {
    Append {
        samples: u32,
        bytes: usize,
    },
    Sync,
    /// Everything below this part of what there is, is answered for.
    Release(f64),
    /// The process dies and a new one opens the spool.
    Restart,
    /// The machine dies: of the last file, this part of what was not synced is gone.
    PowerCut(f64),
    /// A bit of some file, by parts of the whole.
    Flip(f64, f64, u8),
    /// A file is removed.
    Remove(f64),
    /// Somebody else's file appears.
    Foreign,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (1u32..9, 0usize..900).prop_map(|(samples, bytes)| Action::Append { samples, bytes }),
        2 => Just(Action::Sync),
        1 => (0.0..1.0).prop_map(Action::Release),
        2 => Just(Action::Restart),
        1 => (0.0..1.0).prop_map(Action::PowerCut),
        1 => (0.0..1.0, 0.0..1.0, 0u8..8).prop_map(|(file, byte, bit)| Action::Flip(file, byte, bit)),
        1 => (0.0..1.0).prop_map(Action::Remove),
        1 => Just(Action::Foreign),
    ]
}

/// What must hold of one record.
struct Expected {
    first: u64,
    samples: u32,
    body: Vec<u8>,
    synced: bool,
    /// Nothing has happened that could have harmed it.
    whole: bool,
}

struct World {
    dir: TempDir,
    spool: Spool,
    limits: SpoolLimits,
    records: Vec<Expected>,
    released: u64,
    /// The end at the last sync, which the ledgers then hold.
    noted: u64,
    seed: u8,
}

impl World {
    fn new(limits: SpoolLimits) -> Self {
        let dir = TempDir::new().unwrap();
        let spool = Spool::open(dir.path(), limits, 0);
        Self { dir, spool, limits, records: Vec::new(), released: 0, noted: 0, seed: 0 }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.retain(|file| Segment::is_name(file.to_str().unwrap()) && !file.to_str().unwrap().contains("foreign"));
        files
    }

    fn pick(&self, part: f64) -> Option<PathBuf> {
        let files = self.files();
        files.get((part * files.len() as f64) as usize).cloned()
    }

    /// A file's records are no longer sure to be there.
    fn harm(&mut self, file: &PathBuf) {
        let segment = self.spool.segments.iter().find(|segment| segment.path == *file);
        let Some((first, end)) = segment.map(|segment| (segment.first, segment.end)) else { return };
        for record in &mut self.records {
            record.whole &= record.first < first || record.first >= end;
        }
    }

    fn reopen(&mut self) {
        self.spool = Spool::open(self.dir.path(), self.limits, self.noted.max(self.released));
        // Of what nobody had noted, a damaged last header leaves no trace: those numbers are free again.
        let end = self.spool.end();
        self.records.retain(|record| record.first < end);
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Append { samples, bytes } => {
                self.seed = self.seed.wrapping_mul(37).wrapping_add(11);
                let body: Vec<u8> = (0..bytes).map(|i| (i as u8).wrapping_mul(self.seed)).collect();
                let first = self.spool.end();
                self.records.push(Expected { first, samples, body: body.clone(), synced: false, whole: true });
                self.spool.append(samples, 0, body);
            }
            Action::Sync => {
                self.spool.sync().unwrap();
                self.records.iter_mut().for_each(|record| record.synced = true);
                self.noted = self.spool.end();
            }
            Action::Release(part) => {
                let seq = self.spool.begin() + (part * (self.spool.end() - self.spool.begin()) as f64) as u64;
                self.released = self.released.max(seq);
                self.spool.release(self.released);
            }
            Action::Restart => self.reopen(),
            Action::PowerCut(part) => {
                let synced = self.records.iter().filter(|record| record.synced).map(|record| record.first).max();
                if let Some(last) = self.spool.segments.back().filter(|_| self.spool.appending) {
                    let (path, bytes, first) = (last.path.clone(), last.bytes, last.first);
                    // What the file has behind the last synced record may be gone, in part or whole.
                    let kept: u64 = (self.records.iter())
                        .filter(|record| record.first >= first && Some(record.first) <= synced)
                        .map(|record| (frame::HEADER + record.body.len()) as u64)
                        .sum();
                    let cut = kept + (part * (bytes - kept) as f64) as u64;
                    OpenOptions::new().write(true).open(path).unwrap().set_len(cut).unwrap();
                }
                self.records.retain(|record| record.synced);
                self.reopen();
            }
            Action::Flip(file, byte, bit) => {
                let Some(path) = self.pick(file) else { return };
                let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
                let length = file.metadata().unwrap().len();
                if length > 0 {
                    let (mut buffer, at) = ([0], (byte * length as f64) as u64);
                    file.read_exact_at(&mut buffer, at).unwrap();
                    buffer[0] ^= 1 << bit;
                    file.write_all_at(&buffer, at).unwrap();
                    // One record at most: the one that the bit is in. The name says what the file began with, which the
                    // headers may no longer do.
                    let name = path.file_name().unwrap().to_str().unwrap();
                    let first: u64 = name[..20].parse().unwrap();
                    let segment = self.spool.segments.iter().find(|segment| segment.path == path);
                    let end = segment.map_or(u64::MAX, |segment| segment.end);
                    let mut offset = 0;
                    for record in self.records.iter_mut().filter(|record| (first..end).contains(&record.first)) {
                        let size = (frame::HEADER + record.body.len()) as u64;
                        record.whole &= !(offset..offset + size).contains(&at);
                        offset += size;
                    }
                }
            }
            Action::Remove(file) => {
                let Some(path) = self.pick(file) else { return };
                self.harm(&path);
                fs::remove_file(&path).unwrap();
                // Who is appending to a file that is gone goes on doing so: what comes is lost with it at a restart.
                if self.spool.appending && self.spool.segments.back().is_some_and(|last| last.path == path) {
                    self.spool.finish_segment();
                }
            }
            Action::Foreign => {
                let name = format!("foreign-{:020}.segment", self.spool.end());
                fs::write(self.dir.path().join(name), b"not a segment, and much longer than a header of one").unwrap();
                fs::write(self.dir.path().join("README"), b"?").unwrap();
            }
        }
    }

    /// Reads everything: what is there must be what was written, what was not harmed must be there, and the numbers of
    /// records and gaps together must be all numbers.
    fn check(&mut self) {
        let (mut seq, mut found) = (self.spool.begin().max(self.released), Vec::new());
        let begin = seq;
        loop {
            match self.spool.read(seq).unwrap() {
                Found::End => break,
                Found::Gap { until, .. } => {
                    assert!(until > seq && until <= self.spool.end(), "a gap from {seq} to {until}");
                    seq = until;
                }
                Found::Record { first, samples, body, .. } => {
                    assert!(first <= seq && seq < first + u64::from(samples));
                    found.push((first, samples, body));
                    seq = first + u64::from(samples);
                }
            }
        }
        assert_eq!(seq, self.spool.end());
        for (first, samples, body) in &found {
            let written = self.records.iter().find(|record| record.first == *first);
            if let Some(written) = written {
                assert!(written.samples == *samples && written.body == *body, "record {first} is another one");
            }
        }
        for record in self.records.iter().filter(|record| record.whole && record.first >= begin) {
            assert!(found.iter().any(|(first, ..)| *first == record.first), "record {} is lost", record.first);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_that_nothing_has_harmed(actions in prop::collection::vec(action(), 1..60)) {
        let mut world = World::new(ROOMY);
        for action in &actions {
            world.act(action);
            world.check();
        }
    }

    #[test]
    fn the_bound_in_bytes_holds_and_what_it_costs_is_a_gap(actions in prop::collection::vec(action(), 1..60)) {
        let mut world = World::new(CRAMPED);
        for action in &actions {
            world.act(action);
            prop_assert!(world.spool.bytes() <= CRAMPED.max_bytes);
            // Dropping begins with the oldest: whatever is behind the first number that is left must be there.
            world.check();
        }
    }
}

fn append(spool: &mut Spool, time_ms: i64, bytes: usize) {
    spool.append(1, time_ms, vec![7; bytes]);
}

#[test]
fn what_is_dropped_for_a_bound_is_a_gap_with_that_reason() {
    let dir = TempDir::new().unwrap();
    let mut spool = Spool::open(dir.path(), SpoolLimits { max_age: Duration::from_secs(10), ..CRAMPED }, 0);
    for _ in 0..20 {
        append(&mut spool, 0, 1000);
    }
    let Found::Gap { until, reason } = spool.read(0).unwrap() else { panic!("nothing was dropped") };
    assert_eq!((reason, until), (Reason::Size, spool.begin()));
    append(&mut spool, 11_000, 10);
    assert_eq!(spool.read(until).unwrap(), Found::Gap { until: 20, reason: Reason::Age });
    spool.lose(5, Reason::Clock);
    append(&mut spool, 12_000, 10);
    assert_eq!(spool.read(21).unwrap(), Found::Gap { until: 26, reason: Reason::Clock });
    assert!(matches!(spool.read(26).unwrap(), Found::Record { first: 26, .. }));
}

#[test]
fn a_disk_that_keeps_too_little_free_is_left_to_others() {
    let dir = TempDir::new().unwrap();
    let mut spool = Spool::open(dir.path(), SpoolLimits { min_free: u64::MAX, ..ROOMY }, 0);
    append(&mut spool, 0, 100);
    assert_eq!(spool.read(0).unwrap(), Found::Gap { until: 1, reason: Reason::DiskFree });
    assert_eq!(spool.bytes(), 0);
}

/// A folder that is a file refuses every write, whoever the test runs as.
#[test]
fn while_the_disk_refuses_the_newest_stay_in_memory_and_go_to_disk_afterwards() {
    let dir = TempDir::new().unwrap();
    let folder = dir.path().join("spool");
    let mut spool = Spool::open(&folder, SpoolLimits { memory: 2500, ..ROOMY }, 0);
    fs::remove_dir(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    for _ in 0..5 {
        append(&mut spool, 0, 1000);
    }
    assert_eq!(spool.memory(), 2000);
    assert_eq!(spool.read(0).unwrap(), Found::Gap { until: 3, reason: Reason::Memory });
    assert!(matches!(spool.read(3).unwrap(), Found::Record { first: 3, .. }));
    fs::remove_file(&folder).unwrap();
    append(&mut spool, 0, 1000);
    assert_eq!(spool.memory(), 0);
    let mut again = Spool::open(&folder, ROOMY, 0);
    for seq in 3..6 {
        assert!(matches!(again.read(seq).unwrap(), Found::Record { first, .. } if first == seq));
    }
}

#[test]
fn a_file_goes_when_all_of_it_is_answered_for_and_not_before() {
    let dir = TempDir::new().unwrap();
    let mut spool = Spool::open(dir.path(), CRAMPED, 0);
    for _ in 0..6 {
        append(&mut spool, 0, 900);
    }
    let files = || fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(files(), 6);
    spool.release(1);
    assert_eq!(files(), 5);
    spool.release(6);
    assert_eq!(files(), 1, "the one that is appended to stays while it is small");
    assert_eq!(spool.read(6).unwrap(), Found::End);
}

#[test]
fn numbers_go_on_behind_what_a_destination_has_heard_of() {
    let dir = TempDir::new().unwrap();
    let mut spool = Spool::open(dir.path(), ROOMY, 100);
    append(&mut spool, 0, 1);
    assert!(matches!(spool.read(100).unwrap(), Found::Record { first: 100, .. }));
}

/// What a file's place is taken by is never waited for nor read; its samples are a gap, before and after a restart.
#[test]
fn what_is_no_segment_is_a_gap_and_the_rest_is_read() {
    for (what, make) in state_file::tests::INTRUDERS {
        let dir = TempDir::new().unwrap();
        let mut spool = Spool::open(dir.path(), CRAMPED, 0);
        for _ in 0..6 {
            spool.append(1, 1, vec![7; 900]);
        }
        assert!(spool.segments.len() > 3, "a record a segment");
        let path = spool.segments[1].path.clone();
        let (first, end) = (spool.segments[1].first, spool.segments[1].end);
        fs::remove_file(&path).unwrap();
        make(&path);
        make(&dir.path().join("99999999999999999999.segment"));
        for restarted in [false, true] {
            if restarted {
                spool = Spool::open(dir.path(), CRAMPED, spool.end());
            }
            let mut seq = 0;
            while seq < spool.end() {
                seq = match spool.read(seq).unwrap() {
                    Found::Record { first, samples, .. } => first + u64::from(samples),
                    Found::Gap { until, reason } => {
                        assert_eq!((seq, until), (first, end), "{what}");
                        assert!(matches!(reason, Reason::Damaged | Reason::Missing), "{what}: {reason:?}");
                        until
                    }
                    Found::End => panic!("{what}: ends at {seq}"),
                };
            }
        }
        spool.append(1, 1, vec![7; 900]);
        spool.sync().unwrap();
        assert_eq!(spool.memory(), 0, "{what}: the disk takes new ones");
    }
}
