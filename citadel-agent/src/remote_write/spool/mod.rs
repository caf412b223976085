//! The spool: collections on disk, from the moment they were made until every destination has answered for them.
//!
//! # Invariants
//!
//! 1. Every sample has a sequence number: how many were collected before it. Numbers only grow, also over restarts, and
//!    none is given twice that was on disk or noted in a ledger (which happens with each sync). Each record's header says which numbers it holds, so what is missing is known exactly: it is the
//!    gap between two headers.
//! 2. A record that was appended is readable until it is released or dropped by a bound, and never changes.
//! 3. After [`Spool::sync`] what was appended before it survives a power cut; after [`Spool::append`] it survives the
//!    process.
//! 4. A file is removed only when every record in it is released, or when a bound says so; then the loss is counted, with
//!    its reason, by whoever had not read it yet: [`Spool::read`] answers [`Found::Gap`].
//! 5. Files of earlier processes are only read. What cannot be understood in them is skipped up to the next whole header,
//!    and is a gap; a file without a single header is left alone.
//! 6. Where the disk refuses, a ring in memory takes the newest records and gives them to the disk as soon as it can; what
//!    falls out of the ring is a gap. The order of numbers is: segments, then ring.
//!
//! Files are `FIRST.segment`, sequences of frames (see `frame.rs`). Everything here blocks: it runs on the remote-write
//! thread.

mod frame;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use frame::Header;
use segment::Segment;

use crate::state_file;

/// Largest segment: what a bound drops at once.
const SEGMENT: u64 = 4 << 20;

/// What the spool may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes on disk.
    pub max_bytes: u64,
    /// Age of a record.
    pub max_age: Duration,
    /// Bytes that stay free on the file system for others.
    pub min_free: u64,
    /// Bytes in memory while the disk refuses.
    pub memory: usize,
}

/// Why samples were lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The spool had its most bytes.
    Size,
    /// They were older than the bound.
    Age,
    /// The file system had too little left.
    DiskFree,
    /// The disk refused, and the memory's ring was full.
    Memory,
    /// Damaged on disk: a flipped bit, or a write that a crash cut off.
    Damaged,
    /// Not there: a file was removed, or a crash took what only the memory had.
    Missing,
    /// The clock stood behind the last collection.
    Clock,
    /// The receiver failed on this batch alone; it is in the dead-letter folder.
    DeadLetter,
}

impl Reason {
    /// Value of the label `reason`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Age => "age",
            Self::DiskFree => "disk_free",
            Self::Memory => "memory",
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Clock => "clock",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// What is at a sequence number.
#[derive(PartialEq, Eq, Debug)]
pub enum Found {
    /// A record that holds it.
    Record {
        /// The number of the record's first sample.
        first: u64,
        /// How many samples it has.
        samples: u32,
        /// When they were collected.
        time_ms: i64,
        /// The record's bytes.
        body: Vec<u8>,
    },
    /// Nothing up to, and without, `until`.
    Gap {
        /// The next number that may be there.
        until: u64,
        /// Why not.
        reason: Reason,
    },
    /// It is not collected yet.
    End,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limits: Limits,
    /// By their first number; the last one is appended to while `appending`.
    segments: VecDeque<Segment>,
    appending: bool,
    /// Records that the disk did not take yet.
    ring: VecDeque<(Header, Vec<u8>)>,
    ring_bytes: usize,
    /// The number of the next sample.
    next: u64,
    /// Why numbers are gaps, as far as this process knows: first, end, reason.
    lost: VecDeque<(u64, u64, Reason)>,
    unsynced: bool,
}

impl Spool {
    /// Opens the spool in `folder`, which is made unless it is there. `at_least` is the highest number that any
    /// ledger knows of: new samples come after it. What cannot be read is left alone, and said; what cannot be written
    /// shows with the first record.
    #[must_use]
    pub fn open(folder: &Path, limits: Limits, at_least: u64) -> Self {
        let mut segments = Vec::new();
        let listed = state_file::create_folder(folder).and_then(|()| fs::read_dir(folder));
        let entries = listed.map_err(|error| warn!(folder = %folder.display(), %error, "the spool cannot be read"));
        for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(Segment::is_name) {
                continue;
            }
            match Segment::open(path.clone()) {
                Ok(Some(segment)) => segments.push(segment),
                Ok(None) => warn!(file = %path.display(), "holds no record of the spool; left alone"),
                Err(error) => warn!(file = %path.display(), %error, "a segment cannot be read; left alone"),
            }
        }
        segments.sort_by_key(|segment| (segment.first, segment.end));
        let next = segments.iter().map(|segment| segment.end).max().unwrap_or(0).max(at_least);
        Self {
            folder: folder.to_owned(),
            limits,
            segments: segments.into(),
            appending: false,
            ring: VecDeque::new(),
            ring_bytes: 0,
            next,
            lost: VecDeque::new(),
            unsynced: false,
        }
    }

    /// The first number that may still be here.
    #[must_use]
    pub fn begin(&self) -> u64 {
        let segments = self.segments.front().map(|segment| segment.first);
        segments.or_else(|| self.ring.front().map(|(header, _)| header.first)).unwrap_or(self.next)
    }

    /// The number of the next sample.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.next
    }

    /// Bytes on disk.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes of the files that hold the sample `seq` or later ones.
    #[must_use]
    pub fn bytes_from(&self, seq: u64) -> u64 {
        self.segments.iter().filter(|segment| segment.end > seq).map(|segment| segment.bytes).sum()
    }

    /// Bytes of records that the disk did not take yet; 0 while it does.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.ring_bytes
    }

    /// Takes a record of `samples` samples. It is on disk afterwards, or in memory where the disk refused.
    pub fn append(&mut self, samples: u32, time_ms: i64, body: Vec<u8>) {
        let header = Header::new(self.next, samples, time_ms, &body);
        self.next = header.end();
        if samples == 0 {
            return;
        }
        self.ring_bytes += body.len();
        self.ring.push_back((header, body));
        self.flush(time_ms);
    }

    /// Counts samples that were collected and cannot be kept.
    pub fn lose(&mut self, samples: u32, reason: Reason) {
        let first = self.next;
        self.next += u64::from(samples);
        self.note_lost(first, self.next, reason);
    }

    /// Gives the ring to the disk, in order; what it refuses stays, within the ring's bound.
    pub fn flush(&mut self, now_ms: i64) {
        let waiting = self.ring.len();
        self.keep_bounds(now_ms);
        while let Some((header, body)) = self.ring.front() {
            let (header, body) = (*header, body.as_slice());
            if let Err(error) =
                Self::write(&mut self.segments, &mut self.appending, self.limits, &self.folder, &header, body)
            {
                // What cannot be written to is finished: the next try gets a file of its own.
                self.finish_segment();
                if waiting <= 1 {
                    warn!(folder = %self.folder.display(), %error, "the spool's disk refuses; new samples are kept in memory, {} bytes at most", self.limits.memory);
                }
                break;
            }
            self.unsynced = true;
            self.ring_bytes -= body.len();
            self.ring.pop_front();
        }
        if waiting > 1 && self.ring.is_empty() {
            info!(folder = %self.folder.display(), "the spool's disk takes samples again");
        }
        while self.ring_bytes > self.limits.memory {
            let Some((header, body)) = self.ring.pop_front() else { break };
            self.ring_bytes -= body.len();
            self.note_lost(header.first, header.end(), Reason::Memory);
        }
        self.keep_bounds(now_ms);
    }

    fn write(
        segments: &mut VecDeque<Segment>,
        appending: &mut bool,
        limits: Limits,
        folder: &Path,
        header: &Header,
        body: &[u8],
    ) -> io::Result<()> {
        // An eighth of all, so that dropping one does not drop everything.
        let full = |segment: &Segment| segment.bytes + header.size() > SEGMENT.min(limits.max_bytes / 8);
        if *appending && let Some(last) = segments.back_mut().filter(|last| last.bytes > 0 && full(last)) {
            last.sync()?;
            last.close();
            *appending = false;
        }
        if !*appending {
            segments.push_back(Segment::create(folder, header.first)?);
            *appending = true;
        }
        let last = segments.back_mut().ok_or_else(|| io::Error::other("no segment"))?;
        last.append(header, body)
    }

    /// Ends the segment that is appended to; one without a record goes.
    fn finish_segment(&mut self) {
        if std::mem::take(&mut self.appending)
            && let Some(last) = self.segments.back_mut()
        {
            last.close();
            if last.bytes == 0 {
                _ = fs::remove_file(&last.path);
                self.segments.pop_back();
            }
        }
    }

    /// Writes what was appended through to the disk.
    ///
    /// # Errors
    /// The disk refuses. Whether what it took before is there shows when it is read.
    pub fn sync(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.unsynced) {
            return Ok(());
        }
        let result = self.segments.back().map_or(Ok(()), Segment::sync);
        // The names of new files as well.
        let result = result.and_then(|()| state_file::sync_folder(&self.folder));
        if result.is_err() {
            // After a failed sync the kernel may have dropped the pages: go on in a new file.
            self.finish_segment();
        }
        result
    }

    /// What is at the number `seq`.
    ///
    /// # Errors
    /// The disk cannot be read.
    pub fn read(&mut self, seq: u64) -> io::Result<Found> {
        if seq >= self.next {
            return Ok(Found::End);
        }
        let last = self.segments.len().saturating_sub(1);
        let mut upcoming = self.next;
        let mut damaged = false;
        for i in 0..self.segments.len() {
            let appended = self.appending && i == last;
            let segment = &mut self.segments[i];
            if segment.end <= seq {
                continue;
            }
            // Several may hold it, where somebody copied a file: the first whole one counts.
            let found = match segment.read(seq) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                // Something else has taken the file's place.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    damaged |= segment.first <= seq;
                    None
                }
                found => found?,
            };
            if !appended {
                segment.close();
            }
            match found {
                Some((Header { first, samples, time_ms, .. }, Some(body))) if first <= seq => {
                    return Ok(Found::Record { first, samples, time_ms, body });
                }
                Some((header, None)) if header.first <= seq => {
                    upcoming = upcoming.min(header.end());
                    damaged = true;
                }
                Some((header, _)) => {
                    upcoming = upcoming.min(header.first);
                    damaged |= segment.first <= seq;
                }
                // The headers said more when the spool was opened than is there now.
                None => upcoming = upcoming.min(segment.end),
            }
            if segment.first > seq {
                upcoming = upcoming.min(segment.first);
                break;
            }
        }
        for (header, body) in &self.ring {
            if (header.first..header.end()).contains(&seq) {
                let Header { first, samples, time_ms, .. } = *header;
                return Ok(Found::Record { first, samples, time_ms, body: body.clone() });
            }
            if header.first > seq {
                upcoming = upcoming.min(header.first);
                break;
            }
        }
        Ok(self.gap(seq, upcoming, damaged))
    }

    /// The gap at `seq`, no longer than its reason holds.
    fn gap(&self, seq: u64, upcoming: u64, damaged: bool) -> Found {
        for &(first, end, reason) in &self.lost {
            if (first..end).contains(&seq) {
                return Found::Gap { until: upcoming.min(end), reason };
            }
        }
        let known = self.lost.iter().map(|&(first, ..)| first).filter(|&first| first > seq).min();
        let reason = if damaged { Reason::Damaged } else { Reason::Missing };
        Found::Gap { until: upcoming.min(known.unwrap_or(upcoming)), reason }
    }

    /// Removes the files whose every sample is below `seq`: nobody needs them.
    pub fn release(&mut self, seq: u64) {
        while let Some(front) = self.segments.front() {
            let appended = self.appending && self.segments.len() == 1;
            // The one under way goes too once it is all answered for and has some size, or its bytes would stay for ever.
            if front.end > seq || (appended && front.bytes < SEGMENT / 16) {
                break;
            }
            self.remove_oldest();
        }
        while self.lost.front().is_some_and(|&(_, end, _)| end <= seq) {
            self.lost.pop_front();
        }
        while self.ring.front().is_some_and(|(header, _)| header.end() <= seq) {
            if let Some((_, body)) = self.ring.pop_front() {
                self.ring_bytes -= body.len();
            }
        }
    }

    /// Drops the oldest segments as long as a bound asks for it.
    fn keep_bounds(&mut self, now_ms: i64) {
        let oldest_ms = now_ms.saturating_sub(i64::try_from(self.limits.max_age.as_millis()).unwrap_or(i64::MAX));
        while let Some(front) = self.segments.front() {
            let reason = if front.newest_ms < oldest_ms {
                Reason::Age
            } else if self.bytes() > self.limits.max_bytes {
                Reason::Size
            } else if self.limits.min_free > 0
                && free_bytes(&self.folder).is_some_and(|free| free < self.limits.min_free)
            {
                Reason::DiskFree
            } else {
                break;
            };
            let (first, end) = (front.first, front.end);
            self.remove_oldest();
            self.note_lost(first, end, reason);
        }
    }

    fn remove_oldest(&mut self) {
        if self.segments.len() == 1 {
            self.appending = false;
        }
        if let Some(segment) = self.segments.pop_front()
            && let Err(error) = fs::remove_file(&segment.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(file = %segment.path.display(), %error, "cannot remove a segment");
        }
    }

    fn note_lost(&mut self, first: u64, end: u64, reason: Reason) {
        // One loss after the other for the same reason is one loss; otherwise sorted, because they happen oldest first.
        match self.lost.iter_mut().find(|(_, last, why)| *last == first && *why == reason) {
            Some((_, last, _)) => *last = end,
            None => self.lost.push_back((first, end, reason)),
        }
    }
}

/// Bytes that the file system of `folder` has left for us; `None` when it does not say.
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
