//! Records that a destination has read from the spool and not settled yet. Each record is read and decoded once,
//! however many requests it takes, and a request contains as many records as fit. The newest record is not read back:
//! it is still in memory.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use super::encode::{Form, Room};
use super::record::Record;
use super::spool::{Found, Reason, Spool};

/// What is ahead at a sequence number.
pub(super) enum Ahead {
    Batch(Range<u64>),
    /// Nothing before this number.
    Lost(u64, Reason),
    /// Not collected yet.
    End,
}

/// A record and the number of its first sample.
#[derive(Debug)]
pub(super) struct Loaded {
    /// The number of its first sample.
    pub(super) first: u64,
    pub(super) record: Record,
}

impl Loaded {
    fn end(&self) -> u64 {
        self.first + u64::from(self.record.len())
    }

    fn holds(&self, seq: u64) -> bool {
        (self.first..self.end()).contains(&seq)
    }
}

/// Records ordered by number.
#[derive(Default)]
pub(super) struct Queue {
    records: VecDeque<Rc<Loaded>>,
}

/// Where records come from.
pub(super) struct Source<'a> {
    /// All records.
    pub(super) spool: &'a mut Spool,
    /// The most recently appended record.
    pub(super) newest: Option<&'a Rc<Loaded>>,
}

impl Queue {
    /// The batch at `seq`: collected samples from there on, as many as fit.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub(super) fn batch(&mut self, mut from: Source<'_>, seq: u64, mut room: Room, form: Form) -> io::Result<Ahead> {
        let mut at = seq;
        loop {
            let loaded = match self.record(&mut from, at) {
                Ok(Ok(loaded)) => loaded,
                // Available samples are sent first.
                Ok(Err(_)) | Err(_) if at > seq => return Ok(Ahead::Batch(seq..at)),
                Ok(Err(place)) => return Ok(place),
                Err(error) => return Err(error),
            };
            let (first, end) = (loaded.first, loaded.end());
            at = first + u64::from(room.take(&loaded.record, (at - first) as u32, form));
            if at < end {
                return Ok(Ahead::Batch(seq..at));
            }
            if room.is_full() {
                return Ok(Ahead::Batch(seq..at));
            }
        }
    }

    /// The record that contains sample `seq`.
    fn record(&mut self, from: &mut Source<'_>, seq: u64) -> io::Result<Result<&Loaded, Ahead>> {
        if let Some(i) = self.records.iter().position(|loaded| loaded.holds(seq)) {
            return Ok(Ok(&self.records[i]));
        }
        // Samples dropped by a limit must not be sent.
        if let Some(newest) = from.newest.filter(|newest| newest.holds(seq) && from.spool.begin() <= newest.first) {
            return Ok(Ok(self.insert(Rc::clone(newest))));
        }
        let (first, samples, body) = match from.spool.read(seq)? {
            Found::End => return Ok(Err(Ahead::End)),
            Found::Gap { until, reason } => return Ok(Err(Ahead::Lost(until, reason))),
            Found::Record { first, samples, body, .. } => (first, samples, body),
        };
        match Record::from_bytes(&body) {
            Ok(record) if record.len() == samples => Ok(Ok(self.insert(Rc::new(Loaded { first, record })))),
            // The checksum is correct, so it was written by a version that this one does not understand.
            _ => Ok(Err(Ahead::Lost(first + u64::from(samples), Reason::Damaged))),
        }
    }

    fn insert(&mut self, loaded: Rc<Loaded>) -> &Loaded {
        let at = self.records.partition_point(|other| other.first < loaded.first);
        self.records.insert(at, loaded);
        &self.records[at]
    }

    /// The samples at `range`, record by record.
    pub(super) fn runs(&self, range: &Range<u64>) -> impl Iterator<Item = (&Record, Range<u32>)> {
        let Range { start, end } = *range;
        self.records.iter().filter_map(move |loaded| {
            let from = start.max(loaded.first);
            let to = end.min(loaded.end());
            (from < to).then(|| (&loaded.record, (from - loaded.first) as u32..(to - loaded.first) as u32))
        })
    }

    /// When sample `seq` was collected.
    pub(super) fn time_ms(&self, seq: u64) -> Option<i64> {
        self.records.iter().find(|loaded| loaded.holds(seq)).map(|loaded| loaded.record.time_ms)
    }

    /// Releases everything before `seq`.
    pub(super) fn forget(&mut self, seq: u64) {
        while self.records.front().is_some_and(|loaded| loaded.end() <= seq) {
            self.records.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::metrics::catalogue::models::CONNECTIONS_OPEN;
    use crate::metrics::family::{Page, Value};
    use crate::remote_write::encode::{MAX_SERIES, Protocol};
    use crate::remote_write::record::Identity;
    use crate::remote_write::spool::SpoolLimits;

    const FORM: Form = Form { protocol: Protocol::V2, native: false, classic: true };

    fn spool(dir: &TempDir, records: &[u32]) -> Spool {
        let limits =
            SpoolLimits { max_bytes: 1 << 30, max_age: Duration::from_secs(3600), min_free: 0, memory: 1 << 20 };
        let mut spool = Spool::open(dir.path(), limits, 0);
        for (&samples, time_ms) in records.iter().zip(1..) {
            let mut page = Page::default();
            for i in 0..samples {
                page.add(&CONNECTIONS_OPEN, [&format!("m{i:05}"), "1"], Value::Integer(u64::from(i)));
            }
            page.sort().unwrap();
            let record = Record::new(&page, &[], &Identity::default(), time_ms, 0);
            spool.append(record.len(), time_ms, record.to_bytes().unwrap());
        }
        spool
    }

    fn read(spool: &mut Spool) -> Source<'_> {
        Source { spool, newest: None }
    }

    fn batches(spool: &mut Spool, queue: &mut Queue, most: Option<u64>) -> Vec<Range<u64>> {
        let (mut seq, mut all) = (0, Vec::new());
        while let Ahead::Batch(batch) = queue.batch(read(spool), seq, Room::new(most), FORM).unwrap() {
            let samples: u32 = queue.runs(&batch).map(|(_, run)| run.end - run.start).sum();
            assert_eq!(u64::from(samples), batch.end - batch.start);
            seq = batch.end;
            all.push(batch);
            queue.forget(seq);
        }
        all
    }

    #[test]
    fn a_backlog_of_small_collections_is_packed_in_order() {
        let dir = TempDir::new().unwrap();
        let mut spool = spool(&dir, &[300; 20]);
        let packed = batches(&mut spool, &mut Queue::default(), None);
        assert_eq!(packed, [0..2000, 2000..4000, 4000..6000]);
        let small = batches(&mut spool, &mut Queue::default(), Some(1000));
        assert_eq!(small.len(), 6);
        assert_eq!(MAX_SERIES, 2000);
    }

    #[test]
    fn a_large_record_is_decoded_once() {
        let dir = TempDir::new().unwrap();
        let mut spool = spool(&dir, &[20_000]);
        let mut queue = Queue::default();
        let Ahead::Batch(batch) = queue.batch(read(&mut spool), 0, Room::new(None), FORM).unwrap() else {
            panic!("a batch")
        };
        assert_eq!(batch, 0..2000);
        // From here on the file is not needed.
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(batches(&mut spool, &mut queue, None).len(), 10);
        assert!(queue.records.is_empty());
    }

    #[test]
    fn the_newest_record_goes_out_as_it_was_made_unless_a_bound_has_dropped_it() {
        let dir = TempDir::new().unwrap();
        let mut page = Page::default();
        page.add(&CONNECTIONS_OPEN, ["phi3", "1"], Value::Integer(1));
        let record = Record::new(&page, &[], &Identity::default(), 3, 0);
        let mut spool = spool(&dir, &[10, 1]);
        let newest = Rc::new(Loaded { first: 10, record });
        // The files are not needed for it.
        std::fs::remove_dir_all(dir.path()).unwrap();
        let mut queue = Queue::default();
        let batch =
            queue.batch(Source { spool: &mut spool, newest: Some(&newest) }, 10, Room::new(None), FORM).unwrap();
        assert!(matches!(batch, Ahead::Batch(Range { start: 10, end: 11 })));
        assert_eq!(queue.time_ms(10), Some(3));
        spool.flush(i64::MAX);
        let mut queue = Queue::default();
        let source = Source { spool: &mut spool, newest: Some(&newest) };
        let dropped = queue.batch(source, 10, Room::new(None), FORM).unwrap();
        assert!(matches!(dropped, Ahead::Lost(11, Reason::Age)));
    }

    #[test]
    fn a_gap_ends_a_batch() {
        let dir = TempDir::new().unwrap();
        let mut spool = spool(&dir, &[10]);
        spool.lose(5, Reason::Clock);
        let mut queue = Queue::default();
        let Ahead::Batch(batch) = queue.batch(read(&mut spool), 0, Room::new(None), FORM).unwrap() else {
            panic!("a batch")
        };
        assert_eq!((batch, queue.time_ms(9), queue.time_ms(10)), (0..10, Some(1), None));
        let lost = queue.batch(read(&mut spool), 10, Room::new(None), FORM).unwrap();
        assert!(matches!(lost, Ahead::Lost(15, Reason::Clock)));
    }
}
