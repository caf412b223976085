//! Small files of the kernel, read whole: `/proc`, `/sys`, and what looks like them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Larger than any file that is read here: `/proc/stat` of 8,192 CPUs has 1 MB.
pub const MAX_TEXT: usize = 8 << 20;

/// Most names that are taken from one directory.
const MAX_NAMES: usize = 1 << 16;

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The kernel refused.
    #[error("cannot read {}: {cause}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        cause: io::Error,
    },
    /// It has something else than is documented.
    #[error("{} is not as the kernel documents it: {what}", path.display())]
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

/// Reads a file of lines as it is. `None`: this host has no such file.
///
/// # Errors
/// When it is there and cannot be read, or is larger than any such file.
pub(super) fn read_lines(path: &Path) -> Result<Option<Vec<u8>>, ReadError> {
    read_bytes(path, MAX_TEXT)
}

/// Reads a file that holds one value, as in sysfs, without the white space around it. `None`: there is none, or the driver
/// cannot say it now; sensors that are switched off answer with all kinds of errors.
#[must_use]
pub fn read_value(path: &Path) -> Option<String> {
    let bytes = read_bytes(path, 4096).ok()??;
    let text = text(bytes);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Names in a directory, in order. `None`: there is no such directory.
///
/// # Errors
/// When it is there and cannot be listed.
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
            return Err(ReadError::malformed(path, "it has more entries than any directory of the kernel"));
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
        Ok((_, false)) => Err(ReadError::malformed(path, "it has no end")),
        Err(error) if is_absent(&error) => Ok(None),
        Err(cause) => Err(ReadError::io(path, cause)),
    }
}

/// Reads the first `limit` bytes of a file whose length another user decides, and whether that is all of it.
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
/// The file cannot be read, or is larger (`FileTooLarge`): the beginning of it would be a wrong answer.
pub fn read_whole(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    let (bytes, whole) = read_head(path, limit)?;
    let too_large = || io::Error::new(ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes"));
    whole.then_some(bytes).ok_or_else(too_large)
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// As [`read_whole`], or it is not UTF-8.
pub fn read_whole_text(path: &Path, limit: usize) -> io::Result<String> {
    String::from_utf8(read_whole(path, limit)?).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// Names that come from outside may hold any bytes; what is no UTF-8 is marked, not refused.
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
