//! Reads the file's text: regular files only, bounded, UTF-8.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::mistakes::{Mistake, Pos};

/// Default location of the configuration file.
pub const DEFAULT_PATH: &str = "/etc/citadel-agent/monitoring-integration.yaml";

/// Maximum size of a configuration file; a typical one has a few kilobytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Returns the text of the file at `path`, or an error about the file as a whole.
pub(super) fn read(path: &Path) -> Result<String, Mistake> {
    let bytes = read_bytes(path).map_err(|message| Mistake { pos: None, path: String::new(), message })?;
    String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))
}

/// Returns the text in `input`, or an error about it as a whole.
pub(super) fn read_from(input: impl Read) -> Result<String, Mistake> {
    let whole = |message| Mistake { pos: None, path: String::new(), message };
    let bytes = read_bounded(input).map_err(whole)?;
    String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!(
            "no such file; specify another with --config, or none: {DEFAULT_PATH} is read if it exists, otherwise \
             the built-in default is used"
        ),
        _ => format!("cannot be read: {error}"),
    };
    // Non-blocking, because opening a FIFO would otherwise wait for its writer and block the whole agent at a reload.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    let kind = file.metadata().map_err(unreadable)?.file_type();
    if kind.is_dir() {
        return Err("is a directory; the configuration must be a file".to_owned());
    }
    if !kind.is_file() {
        return Err("is not a regular file".to_owned());
    }
    read_bounded(file)
}

fn read_bounded(input: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = input.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than the limit of {MAX_FILE_BYTES} bytes"));
    }
    Ok(bytes)
}

fn not_utf8(bytes: &[u8], at: usize) -> Mistake {
    let valid = String::from_utf8_lossy(&bytes[..at]);
    let line = valid.rsplit('\n').next().unwrap_or_default();
    Mistake {
        pos: Some(Pos { line: valid.matches('\n').count() + 1, column: line.chars().count() + 1 }),
        path: String::new(),
        message: format!("byte 0x{:02x} is not UTF-8; save the file as UTF-8", bytes[at]),
    }
}
