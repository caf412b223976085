//! The history on disk: one file, always written as a whole. A line of JSON describes the content; all blocks follow in
//! the same format as in memory.

use std::io::{self, BufRead as _, ErrorKind};
use std::path::Path;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::interval::{Keys, Kind};
use super::store::{Block, Kept, MAX_BYTES, Store, Tier};
use super::{Millis, Subject};
use crate::state_file;

/// Version of the file format.
const VERSION: u32 = 1;

/// Maximum length of the first line: keys and blocks.
const MAX_HEADER: usize = 4 << 20;

/// Maximum number of intervals in a block; a larger number means that the file is not ours.
const MAX_INTERVALS: u32 = 10_000;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    /// Checksum of everything after this line.
    crc32: u32,
    keys: Vec<(String, Kind)>,
    subjects: Vec<OfSubject>,
}

#[derive(Serialize, Deserialize)]
struct OfSubject {
    id: String,
    name: String,
    fine: Vec<OfBlock>,
    coarse: Vec<OfBlock>,
}

#[derive(Serialize, Deserialize)]
struct OfBlock {
    from_ms: Millis,
    to_ms: Millis,
    intervals: u32,
    sealed: bool,
    bytes: usize,
}

/// The content of the file.
pub(super) fn encode(store: &Store) -> Vec<u8> {
    let mut body = Vec::with_capacity(store.bytes());
    let mut tier = |tier: &Tier| -> Vec<OfBlock> {
        let block = |block: &Block| {
            body.extend(&block.bytes);
            let Block { from_ms, to_ms, intervals, sealed, .. } = *block;
            OfBlock { from_ms, to_ms, intervals, sealed, bytes: block.bytes.len() }
        };
        tier.blocks.iter().map(block).collect()
    };
    let subjects = store.subjects.iter().map(|(subject, kept)| OfSubject {
        id: subject.id().into(),
        name: kept.name.to_string(),
        fine: tier(&kept.fine),
        coarse: tier(&kept.coarse),
    });
    let subjects = subjects.collect();
    let keys = store.keys.names.iter().map(|(name, kind)| (name.to_string(), *kind)).collect();
    let header = Header { version: VERSION, crc32: crc32fast::hash(&body), keys, subjects };
    // Strings and numbers always serialise.
    let mut content = serde_json::to_vec(&header).unwrap_or_default();
    content.push(b'\n');
    content.extend(body);
    content
}

pub(super) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        state_file::create_folder(folder)?;
    }
    state_file::replace(path, content)
}

/// Reads the file; `None` if it does not exist.
pub(super) fn read(path: &Path) -> io::Result<Option<Store>> {
    let content = match state_file::read(path, (MAX_BYTES + MAX_HEADER) as u64) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    decode(&content).map(Some)
}

fn decode(mut content: &[u8]) -> io::Result<Store> {
    let damaged = |what: &str| io::Error::new(ErrorKind::InvalidData, what.to_owned());
    let mut line = Vec::new();
    content.read_until(b'\n', &mut line)?;
    let header: Header = serde_json::from_slice(&line)?;
    if header.version != VERSION || header.crc32 != crc32fast::hash(content) {
        return Err(damaged("the file is damaged or has another version"));
    }
    let keys = header.keys.into_iter().map(|(name, kind)| (SmolStr::from(name), kind)).collect();
    let keys = Keys::of(keys).ok_or_else(|| damaged("the file has too many keys"))?;
    let mut store = Store { keys, ..Store::default() };
    let mut tier = |blocks: Vec<OfBlock>| -> Option<Tier> {
        let mut tier = Tier::default();
        for OfBlock { from_ms, to_ms, intervals, sealed, bytes } in blocks {
            let (own, rest) = content.split_at_checked(bytes)?;
            content = rest;
            let block = Block { from_ms, to_ms, intervals, sealed, bytes: own.to_vec() };
            // Decodes each interval once, so that everything kept is readable.
            let mut end = from_ms;
            block.each(&store.keys, |_, to, _| end = to)?;
            if intervals > MAX_INTERVALS || end != to_ms {
                return None;
            }
            tier.blocks.push_back(block);
        }
        Some(tier)
    };
    let mut subjects = Vec::new();
    for OfSubject { id, name, fine, coarse } in header.subjects {
        let subject = Subject::parse(&id).ok_or_else(|| damaged("the file has an invalid subject"))?;
        let (Some(fine), Some(coarse)) = (tier(fine), tier(coarse)) else {
            return Err(damaged("the file's blocks do not match its header"));
        };
        subjects.push((subject, Kept { name: name.into(), fine, coarse, ..Kept::default() }));
    }
    store.subjects = subjects.into_iter().collect();
    Ok(store)
}
