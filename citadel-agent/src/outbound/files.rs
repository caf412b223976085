//! Files of credentials and CAs: bounded, and read again when they have changed.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::host::files::{read_whole, read_whole_text};

/// The largest file of credentials or certificates: the CAs of a whole host take a quarter of it.
const LARGEST: usize = 1 << 20;

/// What tells one state of a file from another; `None` where it cannot be seen.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", path.display())]
pub(super) struct FileError {
    path: PathBuf,
    error: io::Error,
}

/// The state of the file at `path` now. A renewal that replaces the file changes the inode, one that writes to it the times.
pub(super) fn stamp(path: &Path) -> Stamp {
    let of = |meta: Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec());
    std::fs::metadata(path).ok().map(of)
}

/// All that is in the file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_whole(path, LARGEST).map_err(|error| FileError { path: path.to_owned(), error })
}

/// The text in the file at `path`.
pub(super) fn text(path: &Path) -> Result<String, FileError> {
    read_whole_text(path, LARGEST).map_err(|error| FileError { path: path.to_owned(), error })
}
