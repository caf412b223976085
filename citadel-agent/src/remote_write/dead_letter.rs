//! What one receiver fails on and takes nothing else of: the request as it was, for a person to look at or post again.

use std::fs;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::encode::Protocol;
use crate::state_file;

/// Most files; the oldest goes first.
const FILES: usize = 32;

/// Most bytes of them together.
const BYTES: u64 = 16 << 20;

/// Writes `body`, the request for `range`, into `folder`, and gives the file's name.
///
/// # Errors
/// The disk refuses.
pub(super) fn write(
    folder: &Path,
    destination: &str,
    range: &Range<u64>,
    protocol: Protocol,
    body: &[u8],
) -> io::Result<PathBuf> {
    state_file::create_folder(folder)?;
    let version = match protocol {
        Protocol::V1 => "1.0",
        Protocol::V2 => "2.0",
    };
    let path =
        folder.join(format!("{:020}-{}-{destination}.{version}.pb.snappy", range.start, range.end - range.start));
    state_file::create(&path)?.write_all(body)?;
    keep_bounds(folder)?;
    Ok(path)
}

fn keep_bounds(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // Of a link it is the link's own. What is no file is none of ours.
        let found = entry.metadata()?;
        if found.is_file() {
            files.push((entry.path(), found.len()));
        }
    }
    // Names begin with the number of the first sample: this is their age.
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
