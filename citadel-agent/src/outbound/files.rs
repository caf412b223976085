//! Credential and CA files: size-limited, and reloaded when they change.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::host::files::{read_whole, read_whole_text};

/// Maximum size of a credential or certificate file; a host's whole CA bundle is a quarter of this.
const LARGEST: usize = 1 << 20;

/// Identifies a version of a file; `None` if it is not accessible.
pub(super) type Stamp = Option<(u64, u64, u64, i64, i64, i64)>;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}", path.display())]
pub(super) struct FileError {
    path: PathBuf,
    error: io::Error,
}

/// The current version of the file. Replacing the file changes the inode, writing to it the times.
pub(super) fn stamp(path: &Path) -> Stamp {
    let of = |meta: Metadata| (meta.dev(), meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec(), meta.ctime_nsec());
    std::fs::metadata(path).ok().map(of)
}

/// Reads the file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    read_whole(path, LARGEST).map_err(|error| FileError { path: path.to_owned(), error })
}

/// Reads the file as text.
pub(super) fn text(path: &Path) -> Result<String, FileError> {
    read_whole_text(path, LARGEST).map_err(|error| FileError { path: path.to_owned(), error })
}
