//! Reads small kernel files as a whole: `/proc`, `/sys`, and similar.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Limit for all files read here: `/proc/stat` with 8,192 CPUs has 1 MB.
pub const MAX_TEXT: usize = 8 << 20;

/// Maximum number of names read from a directory.
const MAX_NAMES: usize = 1 << 16;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// An I/O error.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        cause: io::Error,
    },
    /// The content is malformed.
    #[error("{} has an unexpected format: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

impl ReadError {
    fn malformed(path: &Path, what: &'static str) -> Self {
        Self::Malformed { path: path.to_owned(), what }
    }

    fn io(path: &Path, cause: io::Error) -> Self {
        Self::Io { path: path.to_owned(), cause }
    }
}

/// Reads a file of lines unchanged. `None` if the host does not have it.
///
/// # Errors
/// It exists and cannot be read, or exceeds the limit.
pub(super) fn read_lines(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    read_bytes(path, MAX_TEXT)
}

/// Reads a file with a single value, as in sysfs, and trims it. `None` if it does not exist or the driver cannot
/// provide it now; disabled sensors return various errors.
#[must_use]
pub fn read_value(path: &Path) -> Option<String> {
    let bytes = read_bytes(path, 4096).ok()??;
    let text = text(bytes);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Sorted names in a directory. `None` if it does not exist.
///
/// # Errors
/// It exists and cannot be listed.
pub(super) fn list(path: &Path) -> Result<Option<Vec<OsString>>, ReadError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(cause) => return Err(ReadError::io(path, cause)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| ReadError::io(path, cause))?;
        if names.len() == MAX_NAMES {
            return Err(ReadError::malformed(path, "too many directory entries"));
        }
        names.push(entry.file_name());
    }
    names.sort_unstable();
    Ok(Some(names))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn read_bytes(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, ReadError> {
    match read_head(path, limit) {
        Ok((bytes, true)) => Ok(Some(bytes)),
        Ok((_, false)) => Err(ReadError::malformed(path, "the file does not end")),
        Err(error) if is_absent(&error) => Ok(None),
        Err(cause) => Err(ReadError::io(path, cause)),
    }
}

/// Reads the first `limit` bytes of a file whose length another user controls; returns whether that is all.
///
/// # Errors
/// The file cannot be read.
pub fn read_head(path: &Path, limit: usize) -> io::Result<(Vec<u8>, bool)> {
    let file = File::open(path)?;
    let mut bytes = Vec::with_capacity(limit.min(1024) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() <= limit;
    bytes.truncate(limit);
    Ok((bytes, whole))
}

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be read, or is larger (`FileTooLarge`): a truncated file would be wrong.
pub fn read_whole(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let (bytes, whole) = read_head(path, limit)?;
    let too_large = || io::Error::new(ErrorKind::FileTooLarge, format!("the file is larger than {limit} bytes"));
    whole.then_some(bytes).ok_or_else(too_large)
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// See [`read_whole`], or it is not UTF-8.
pub fn read_whole_text(path: &Path, limit: usize) -> io::Result<String> {
    String::from_utf8(read_whole(path, limit)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Identifies a version of a file. Replacing a file changes its inode. The change time is updated by every operation on a
/// file, even if the modification time is reset (`cp -p`) or only permissions change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileVersion {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileVersion {
    /// The version of the file behind `path`; `None` if it is not accessible, which is a version too. Blocks for a `stat`
    /// of a local file, which takes less time than passing it to another thread.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// External names can contain any bytes; invalid UTF-8 is replaced, not rejected.
pub(super) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn no_more_is_read_than_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_head(&path, 5).unwrap(), (b"12345".to_vec(), true));
        assert_eq!(read_head(&path, 4).unwrap(), (b"1234".to_vec(), false));
        assert_eq!(read_whole(&path, 5).unwrap(), b"12345");
        assert_eq!(read_whole_text(&path, 4).unwrap_err().kind(), ErrorKind::FileTooLarge);
        assert_eq!(read_head(Path::new("/dev/zero"), 100).unwrap(), (vec![0; 100], false));
    }

    #[test]
    fn values_are_trimmed_and_absent_ones_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        assert_eq!(read_value(&path), None);
        fs::write(&path, " \n").unwrap();
        assert_eq!(read_value(&path), None);
        fs::write(&path, "42\n").unwrap();
        assert_eq!(read_value(&path).as_deref(), Some("42"));
    }
}
