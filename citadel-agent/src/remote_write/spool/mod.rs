//! The spool: keeps collections on disk until every destination has settled them.
//!
//! # Invariants
//!
//! 1. Every sample has a sequence number: the number of samples collected before it. Numbers only increase, also across
//!    restarts, and a number that was on disk or in a ledger (written with each sync) is never reused. Each record's
//!    header contains its numbers, so what is missing is known exactly: it is the gap between two headers.
//! 2. An appended record is readable until it is released or dropped by a limit, and never changes.
//! 3. After [`Spool::sync`], records appended before it survive a power failure; after [`Spool::append`], a record
//!    survives the process.
//! 4. A file is deleted only when every record in it is released, or because of a limit; the loss is then counted, with
//!    its reason, by every destination that had not read it yet: [`Spool::read`] returns [`Found::Gap`].
//! 5. Files of previous processes are only read. Unreadable parts are skipped up to the next valid header, and are a
//!    gap; a file without any header is ignored.
//! 6. If writing to disk fails, a ring in memory takes the newest records and writes them as soon as possible; records
//!    that fall out of the ring are a gap. The order of numbers is: segments, then ring.
//!
//! Files are named `FIRST.segment` and are sequences of frames (see `frame.rs`). All functions block: they run on the
//! remote-write thread.

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
use segment::{SEGMENT, Segment};

use crate::state_file;

/// What the spool may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpoolLimits {
    /// Size on disk in bytes.
    pub max_bytes: u64,
    /// Age of a record.
    pub max_age: Duration,
    /// Bytes that must stay free on the file system.
    pub min_free: u64,
    /// Size in memory in bytes while writing to disk fails.
    pub memory: usize,
}

/// Why samples were lost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The spool exceeded its maximum size.
    Size,
    /// They exceeded the maximum age.
    Age,
    /// The file system had too little free space.
    DiskFree,
    /// Writing to disk failed, and the ring in memory was full.
    Memory,
    /// Damaged on disk: a flipped bit, or a write truncated by a crash.
    Damaged,
    /// Missing: a file was deleted, or a crash lost what was only in memory.
    Missing,
    /// The clock was behind the last collection.
    Clock,
    /// The receiver failed only on this batch; it is in the dead-letter directory.
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
    /// The record that contains it.
    Record {
        /// Sequence number of the record's first sample.
        first: u64,
        /// Number of samples.
        samples: u32,
        /// Time of the collection.
        time_ms: i64,
        /// Encoded record.
        body: Vec<u8>,
    },
    /// Nothing before `until` (exclusive).
    Gap {
        /// The next number that may exist.
        until: u64,
        /// Reason.
        reason: Reason,
    },
    /// Not collected yet.
    End,
}

/// The spool.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    limits: SpoolLimits,
    /// Ordered by first number; while `appending`, records are appended to the last one.
    segments: VecDeque<Segment>,
    appending: bool,
    /// Records that are not on disk yet.
    ring: VecDeque<(Header, Vec<u8>)>,
    ring_bytes: usize,
    /// Number of the next sample.
    next: u64,
    /// Reasons for gaps, as far as this process knows: first, end, reason.
    lost: VecDeque<(u64, u64, Reason)>,
    unsynced: bool,
}

impl Spool {
    /// Opens the spool in `folder`, which is created if necessary. `at_least` is the highest number in any ledger: new
    /// samples come after it. Unreadable files are ignored and logged; write errors show up with the first record.
    #[must_use]
    pub fn open(folder: &Path, limits: SpoolLimits, at_least: u64) -> Self {
        let mut segments = Vec::new();
        let listed = state_file::create_folder(folder).and_then(|()| fs::read_dir(folder));
        let entries = listed.map_err(|error| warn!(folder = %folder.display(), %error, "cannot read the spool"));
        for path in entries.into_iter().flatten().flatten().map(|entry| entry.path()) {
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(Segment::is_name) {
                continue;
            }
            match Segment::open(path.clone()) {
                Ok(Some(segment)) => segments.push(segment),
                Ok(None) => warn!(file = %path.display(), "ignored a file without spool records"),
                Err(error) => warn!(file = %path.display(), %error, "ignored a segment that cannot be read"),
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

    /// The first number that may still exist.
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

    /// Size on disk in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Size of the files that contain sample `seq` or later ones.
    #[must_use]
    pub fn bytes_from(&self, seq: u64) -> u64 {
        self.segments.iter().filter(|segment| segment.end > seq).map(|segment| segment.bytes).sum()
    }

    /// Size of records that are not on disk yet; 0 while writing succeeds.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.ring_bytes
    }

    /// Adds a record of `samples` samples. It is then on disk, or in memory if writing failed.
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

    /// Counts collected samples that cannot be kept.
    pub fn lose(&mut self, samples: u32, reason: Reason) {
        let first = self.next;
        self.next += u64::from(samples);
        self.note_lost(first, self.next, reason);
    }

    /// Writes the ring to disk, in order; what fails stays, within the limit of the ring.
    pub fn flush(&mut self, now_ms: i64) {
        let waiting = self.ring.len();
        self.keep_bounds(now_ms);
        while let Some((header, body)) = self.ring.front() {
            let (header, body) = (*header, body.as_slice());
            if let Err(error) =
                Self::write(&mut self.segments, &mut self.appending, self.limits, &self.folder, &header, body)
            {
                // A segment that cannot be written to is finished: the next attempt uses a new file.
                self.finish_segment();
                if waiting <= 1 {
                    warn!(folder = %self.folder.display(), %error, "cannot write to the spool; new samples are kept in memory, at most {} bytes", self.limits.memory);
                }
                break;
            }
            self.unsynced = true;
            self.ring_bytes -= body.len();
            self.ring.pop_front();
        }
        if waiting > 1 && self.ring.is_empty() {
            info!(folder = %self.folder.display(), "writing to the spool again");
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
        limits: SpoolLimits,
        folder: &Path,
        header: &Header,
        body: &[u8],
    ) -> io::Result<()> {
        // An eighth of the limit, so that dropping a segment does not drop everything.
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

    /// Finishes the current segment; an empty one is deleted.
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

    /// Syncs appended records to disk.
    ///
    /// # Errors
    /// I/O errors. Whether earlier records are intact shows when they are read.
    pub fn sync(&mut self) -> io::Result<()> {
        if !std::mem::take(&mut self.unsynced) {
            return Ok(());
        }
        let result = self.segments.back().map_or(Ok(()), Segment::sync);
        // Including the names of new files.
        let result = result.and_then(|()| state_file::sync_folder(&self.folder));
        if result.is_err() {
            // After a failed sync the kernel may have dropped the pages: continue in a new file.
            self.finish_segment();
        }
        result
    }

    /// What is at sequence number `seq`.
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
            // Several segments can contain it if someone copied a file: the first valid record counts.
            let found = match segment.read(seq) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                // The file was replaced by something else.
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
                // The file now contains less than when the spool was opened.
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

    /// The gap at `seq`, limited to the range of its reason.
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

    /// Deletes the files whose samples are all below `seq`.
    pub fn release(&mut self, seq: u64) {
        while let Some(front) = self.segments.front() {
            let appended = self.appending && self.segments.len() == 1;
            // The current segment is deleted too once it is settled and has some size, or its space would never be
            // freed.
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

    /// Drops the oldest segments while a limit is exceeded.
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
        // Consecutive losses for the same reason are merged; the list is sorted, because the oldest are lost first.
        match self.lost.iter_mut().find(|(_, last, why)| *last == first && *why == reason) {
            Some((_, last, _)) => *last = end,
            None => self.lost.push_back((first, end, reason)),
        }
    }
}

/// Free space for the agent in the file system of `folder`; `None` if unknown.
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}
