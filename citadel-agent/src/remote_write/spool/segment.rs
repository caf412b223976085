//! A file of the spool.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::frame::{self, Header, MAX_BODY};
use crate::state_file;

/// Suffix of segment names.
const SUFFIX: &str = ".segment";

/// Maximum size of a segment: the amount that a limit drops at once.
pub(super) const SEGMENT: u64 = 4 << 20;

/// Most bytes of a segment: a record that is longer than segments should be has one of its own.
const MAX_BYTES: u64 = SEGMENT + MAX_BODY as u64 + frame::HEADER as u64;

/// A segment, described by its headers.
#[derive(Debug)]
pub(super) struct Segment {
    /// Where it is.
    pub(super) path: PathBuf,
    /// Sequence number of its first sample.
    pub(super) first: u64,
    /// Sequence number after its last sample.
    pub(super) end: u64,
    /// Time of its newest record.
    pub(super) newest_ms: i64,
    /// Its size.
    pub(super) bytes: u64,
    /// Open while being appended to or read from.
    file: Option<File>,
    /// Position of the last read: the offset of a header, and the number of that record's first sample.
    place: (u64, u64),
}

impl Segment {
    /// Reads the headers of the file at `path`; `None` if it contains no record.
    pub(super) fn open(path: PathBuf) -> io::Result<Option<Self>> {
        let file = state_file::open(&path, false, MAX_BYTES)?;
        let bytes = file.metadata()?.len();
        let Some((offset, header)) = frame::find(&file, 0)? else { return Ok(None) };
        let mut segment = Self {
            path,
            first: header.first,
            end: header.end(),
            newest_ms: header.time_ms,
            bytes,
            file: None,
            place: (offset, header.first),
        };
        let mut next = offset + header.size();
        while let Some((offset, header)) = frame::find(&file, next)? {
            segment.end = segment.end.max(header.end());
            segment.newest_ms = header.time_ms;
            next = offset + header.size();
        }
        Ok(Some(segment))
    }

    /// Creates an empty segment in `folder`, starting with sample `first`.
    pub(super) fn create(folder: &Path, first: u64) -> io::Result<Self> {
        // Someone may have deleted the directory.
        state_file::create_folder(folder)?;
        let mut attempt = 0;
        loop {
            // An existing file with that name is kept.
            let copy = if attempt == 0 { String::new() } else { format!("-{attempt}") };
            let path = folder.join(format!("{first:020}{copy}{SUFFIX}"));
            match state_file::create_new(&path) {
                Ok(file) => {
                    let place = (0, first);
                    return Ok(Self { path, first, end: first, newest_ms: 0, bytes: 0, file: Some(file), place });
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists && attempt < 1000 => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether a file of this name belongs to a spool.
    pub(super) fn is_name(name: &str) -> bool {
        name.ends_with(SUFFIX)
    }

    /// Appends a record. On an error the segment is unchanged, as far as the file system allows.
    pub(super) fn append(&mut self, header: &Header, body: &[u8]) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("the segment is not open"))?;
        let mut frame = Vec::with_capacity(frame::HEADER + body.len());
        frame.extend_from_slice(&header.to_bytes());
        frame.extend_from_slice(body);
        if let Err(error) = file.write_all_at(&frame, self.bytes) {
            // A partial write must not remain before the next record.
            file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += frame.len() as u64;
        self.end = header.end();
        self.newest_ms = header.time_ms;
        Ok(())
    }

    /// Syncs appended records to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }

    /// Closes the file when it is neither appended to nor read.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// The record that contains sample `seq`, or else the next one; `None` if there is neither. The body is `None` if
    /// it is damaged.
    pub(super) fn read(&mut self, seq: u64) -> io::Result<Option<(Header, Option<Vec<u8>>)>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => state_file::open(&self.path, false, MAX_BYTES)?,
        };
        let mut offset = if self.place.1 <= seq { self.place.0 } else { 0 };
        let found = loop {
            let Some((at, header)) = frame::find(&file, offset)? else { break None };
            if header.end() > seq {
                self.place = (at, header.first);
                break Some((header, frame::body(&file, at, &header)?));
            }
            offset = at + header.size();
        };
        self.file = Some(file);
        Ok(found)
    }
}
