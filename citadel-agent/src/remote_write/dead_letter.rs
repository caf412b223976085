//! Requests on which a receiver fails while accepting others: kept unchanged for `remote-write replay`.

use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::encode::Protocol;
use crate::state_file;

/// Maximum number of files; the oldest is deleted first.
const FILES: usize = 32;

/// Maximum total size in bytes.
pub(super) const BYTES: u64 = 16 << 20;

/// Suffix of their names.
const SUFFIX: &str = ".pb.snappy";

/// A request that was set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct DeadLetter {
    /// Its file.
    pub(super) path: PathBuf,
    /// The destination that failed on it.
    pub(super) destination: String,
    pub(super) protocol: Protocol,
    /// Number of its samples.
    pub(super) samples: u64,
}

/// The files in `folder`, oldest first; empty if it does not exist.
///
/// # Errors
/// The directory cannot be read.
pub(super) fn list(folder: &Path) -> io::Result<Vec<DeadLetter>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut letters: Vec<_> = paths.into_iter().filter_map(parse).collect();
    letters.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(letters)
}

/// Parses a file's name; `None` if it is another file.
fn parse(path: PathBuf) -> Option<DeadLetter> {
    let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?;
    let (_, rest) = name.split_once('-')?;
    let (samples, rest) = rest.split_once('-')?;
    let of = |protocol: Protocol| Some((rest.strip_suffix(protocol.name())?.strip_suffix('.')?.to_owned(), protocol));
    let (destination, protocol) = of(Protocol::V1).or_else(|| of(Protocol::V2))?;
    Some(DeadLetter { destination, protocol, samples: samples.parse().ok()?, path })
}

/// Writes `body`, the request for `range`, to `folder`, and returns the file's name.
///
/// # Errors
/// I/O errors.
pub(super) fn write(
    folder: &Path,
    destination: &str,
    range: &Range<u64>,
    protocol: Protocol,
    body: &[u8],
) -> io::Result<PathBuf> {
    state_file::create_folder(folder)?;
    let (first, samples, version) = (range.start, range.end - range.start, protocol.name());
    let path = folder.join(format!("{first:020}-{samples}-{destination}.{version}{SUFFIX}"));
    state_file::create(&path)?.write_all(body)?;
    keep_bounds(folder)?;
    Ok(path)
}

fn keep_bounds(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // For a link, the metadata of the link itself. Only regular files are ours.
        let found = entry.metadata()?;
        if found.is_file() {
            files.push((entry.path(), found.len()));
        }
    }
    // Names start with the number of the first sample, so they sort by age.
    files.sort_unstable();
    let (mut count, mut bytes) = (files.len(), files.iter().map(|(_, length)| length).sum::<u64>());
    for (path, length) in files {
        if count <= FILES && bytes <= BYTES {
            break;
        }
        fs::remove_file(path)?;
        count -= 1;
        bytes -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_within_the_bounds() {
        let dir = tempfile::TempDir::new().unwrap();
        let names = || {
            let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        for first in 0..40 {
            write(dir.path(), "prometheus", &(first..first + 1), Protocol::V2, b"body").unwrap();
        }
        assert_eq!(names().len(), FILES);
        assert!(names()[0].to_str().unwrap().starts_with("00000000000000000008-1-prometheus"));
        write(dir.path(), "prometheus", &(50..60), Protocol::V1, &vec![0; BYTES as usize]).unwrap();
        assert_eq!(names(), ["00000000000000000050-10-prometheus.1.0.pb.snappy"]);
        fs::write(dir.path().join("notes.txt"), "somebody else's").unwrap();
        let letters = list(dir.path()).unwrap();
        assert_eq!(letters.len(), 1);
        let DeadLetter { destination, protocol, samples, .. } = &letters[0];
        assert_eq!((destination.as_str(), *protocol, *samples), ("prometheus", Protocol::V1, 10));
        assert_eq!(list(&dir.path().join("none")).unwrap(), []);
    }
    #[test]
    fn what_else_is_in_the_folder_neither_stops_it_nor_is_touched() {
        for (what, make) in state_file::tests::INTRUDERS {
            let dir = tempfile::TempDir::new().unwrap();
            let letter = |first: u64| write(dir.path(), "prometheus", &(first..first + 1), Protocol::V2, b"body");
            let path = letter(7).unwrap();
            fs::remove_file(&path).unwrap();
            make(&path);
            assert_eq!(letter(7).is_ok(), what != "a directory", "{what}");
            make(&dir.path().join("other"));
            letter(8).unwrap();
            assert_eq!(dir.path().join("other").symlink_metadata().is_ok(), what != "bytes", "{what}");
        }
    }
}
