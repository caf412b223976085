//! Follows the kernel's log for Xid errors.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{error, warn};

use super::xid::{Teller, Xids, parse_record};

/// Longest record that the kernel hands out (`CONSOLE_EXT_LOG_MAX` / `PRINTKRB_RECORD_MAX`), and room.
const RECORD: usize = 16 * 1024;

/// Opens the log at `path` and leaves what is in it already.
///
/// # Errors
/// There is none, or it may not be read.
pub(super) fn open(path: &Path) -> io::Result<AsyncFd<File>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.seek(SeekFrom::End(0)) {
        Ok(_) => {}
        // A pipe has no earlier records.
        Err(error) if error.raw_os_error() == Some(libc::ESPIPE) => {}
        Err(error) => return Err(error),
    }
    // SAFETY: a `File` is one descriptor, open for as long as the `AsyncFd` owns it, and nothing here replaces it.
    unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Counts the log's Xid errors, for as long as it can be read.
pub(super) async fn follow(log: AsyncFd<File>, xids: Arc<Xids>) {
    let mut buffer = vec![0; RECORD];
    let mut expected = None;
    loop {
        let mut ready = match log.readable().await {
            Ok(ready) => ready,
            Err(error) => return error!(%error, "the kernel's log cannot be followed: Xids come from NVML alone"),
        };
        match ready.try_io(|log| log.get_ref().read(&mut buffer)) {
            // Not ready after all.
            Err(_) => {}
            Ok(Ok(0)) => return warn!("the kernel's log has ended: Xids come from NVML alone"),
            Ok(Ok(length)) => note(&String::from_utf8_lossy(&buffer[..length]), &mut expected, &xids),
            // The kernel overwrote what was next; reading goes on with the oldest that is left.
            Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {}
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(Err(error)) => return error!(%error, "the kernel's log cannot be read: Xids come from NVML alone"),
        }
    }
}

/// Takes one record. `expected` is the number that should be next.
fn note(record: &str, expected: &mut Option<u64>, xids: &Xids) {
    let Some(record) = parse_record(record) else { return };
    if let Some(expected) = *expected {
        xids.lose(record.sequence.saturating_sub(expected));
    }
    *expected = Some(record.sequence + 1);
    if let Some((pci, xid)) = record.xid {
        warn!(pci, xid, message = record.message, "Xid in the kernel's log");
        xids.count(Teller::Kernel, &pci, xid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_records_are_counted_as_lost() {
        let xids = Xids::default();
        let mut expected = None;
        note("4,10,1,-;NVRM: Xid (PCI:0000:3b:00): 79, x", &mut expected, &xids);
        note("6,11,1,-;something else", &mut expected, &xids);
        note("4,20,1,-;NVRM: Xid (PCI:0000:3b:00): 79, x", &mut expected, &xids);
        note("no record", &mut expected, &xids);
        assert_eq!(xids.lines_lost(), 8);
        assert_eq!(xids.all(), [("0000:3b:00.0".to_owned(), 79, 2)]);
    }
}
