//! The frame of a record in a segment, little-endian:
//!
//! ```text
//! magic "CRW1" | length u32 | first u64 | time i64 | samples u32 | CRC of the body u32 | CRC of this header u32 | body
//! ```
//!
//! The header has its own checksum, so that if the body is damaged, the number of lost samples and the position of the
//! next record are still known. Pure, except for [`find`], which reads.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Start of a header; the digit is the version.
const MAGIC: [u8; 4] = *b"CRW1";

/// Size of a header in bytes.
pub(super) const HEADER: usize = 36;

/// Maximum size of a body; a page of a million samples is smaller.
pub(super) const MAX_BODY: u32 = 64 << 20;

/// Window size when searching for the next header after a damaged one.
const WINDOW: usize = 64 << 10;

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Sequence number of the first sample: the number of samples collected before it in the spool.
    pub first: u64,
    /// Number of samples.
    pub samples: u32,
    /// Time of the collection, in milliseconds since the epoch.
    pub time_ms: i64,
    /// Size of the body in bytes.
    pub length: u32,
    /// Checksum of the body.
    crc: u32,
}

impl Header {
    /// The header of `body`.
    pub(super) fn new(first: u64, samples: u32, time_ms: i64, body: &[u8]) -> Self {
        Self { first, samples, time_ms, length: body.len() as u32, crc: crc32fast::hash(body) }
    }

    /// The sequence number after the last sample.
    #[must_use]
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.samples)
    }

    /// Header and body together.
    pub(super) fn size(&self) -> u64 {
        HEADER as u64 + u64::from(self.length)
    }

    /// Whether `body` matches the checksum.
    pub(super) fn matches(&self, body: &[u8]) -> bool {
        body.len() == self.length as usize && crc32fast::hash(body) == self.crc
    }

    pub(super) fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.time_ms.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.samples.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER - 4]);
        bytes[HEADER - 4..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Parses the header at the start of `bytes`; `None` if it is missing or damaged.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        if bytes[..4] != MAGIC || crc32fast::hash(&bytes[..HEADER - 4]) != word(HEADER - 4) {
            return None;
        }
        let header =
            Self { length: word(4), first: long(8), time_ms: long(16).cast_signed(), samples: word(24), crc: word(28) };
        (header.length <= MAX_BODY && header.first.checked_add(u64::from(header.samples)).is_some()).then_some(header)
    }
}

/// The first valid header of `file` at or after `offset`, and its position. After a damaged one, it searches byte by
/// byte.
///
/// # Errors
/// The file cannot be read.
pub(super) fn find(file: &File, mut offset: u64) -> io::Result<Option<(u64, Header)>> {
    let mut window = vec![0; HEADER];
    loop {
        let got = read_some(file, &mut window, offset)?;
        if got < HEADER {
            return Ok(None);
        }
        for start in 0..=got - HEADER {
            if let Some(header) = Header::parse(&window[start..got]) {
                return Ok(Some((offset + start as u64, header)));
            }
        }
        offset += (got - HEADER + 1) as u64;
        window.resize(WINDOW, 0);
    }
}

/// Reads until `buffer` is full or the file ends.
fn read_some(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match file.read_at(&mut buffer[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(got)
}

/// The body of the record whose header is at `offset`; `None` if it is truncated or its checksum is wrong.
///
/// # Errors
/// The file cannot be read.
pub(super) fn body(file: &File, offset: u64, header: &Header) -> io::Result<Option<Vec<u8>>> {
    let mut body = vec![0; header.length as usize];
    let got = read_some(file, &mut body, offset + HEADER as u64)?;
    body.truncate(got);
    Ok(header.matches(&body).then_some(body))
}
