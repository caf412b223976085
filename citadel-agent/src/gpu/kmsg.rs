//! Reads Xid errors from the kernel log.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::{error, warn};

use super::xid::{News, Refusal, Reporter, Xids, parse_record};

/// Maximum record size of the kernel (`CONSOLE_EXT_LOG_MAX` / `PRINTKRB_RECORD_MAX`), with a margin.
const RECORD: usize = 16 * 1024;

/// Opens the log at `path` and skips existing records.
///
/// # Errors
/// It does not exist, or access is denied.
pub(super) fn open(path: &Path) -> io::Result<AsyncFd<File>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.seek(SeekFrom::End(0)) {
        Ok(_) => {}
        // A pipe has no earlier records.
        Err(error) if error.raw_os_error() == Some(libc::ESPIPE) => {}
        Err(error) => return Err(error),
    }
    // SAFETY: a `File` is one descriptor, open as long as the `AsyncFd` owns it, and nothing here replaces it.
    unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }.map_err(|error| error.into_parts().1)
}

/// Counts the log's Xid errors as long as it can be read.
pub(super) async fn follow(log: AsyncFd<File>, xids: Arc<Xids>) {
    let mut buffer = vec![0; RECORD];
    let mut expected = None;
    loop {
        let mut ready = match log.readable().await {
            Ok(ready) => ready,
            Err(error) => return error!(%error, "cannot follow the kernel log; reading Xids only from NVML"),
        };
        match ready.try_io(|log| log.get_ref().read(&mut buffer)) {
            // Spurious readiness.
            Err(_) => {}
            Ok(Ok(0)) => return warn!("the kernel log ended; reading Xids only from NVML"),
            Ok(Ok(length)) => note(&String::from_utf8_lossy(&buffer[..length]), &mut expected, &xids),
            // The kernel overwrote the next records; reading continues with the oldest remaining one.
            Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => {}
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(Err(error)) => return error!(%error, "cannot read the kernel log; reading Xids only from NVML"),
        }
    }
}

/// Processes a record. `expected` is the sequence number of the next one.
fn note(record: &str, expected: &mut Option<u64>, xids: &Xids) {
    let Some(record) = parse_record(record) else { return };
    if let Some(expected) = *expected {
        xids.lose(record.sequence.saturating_sub(expected));
    }
    *expected = Some(record.sequence + 1);
    match record.news {
        News::None => {}
        News::Xid(pci, xid) => match xids.count(Reporter::Kernel, &pci, xid) {
            // A failing GPU can report thousands.
            Ok(count) if count.is_power_of_two() => {
                warn!(pci, xid, count, message = record.message, "Xid in the kernel log");
            }
            Ok(_) => {}
            Err(refusal) => complain_once(xids.refused().get(&refusal).copied().unwrap_or(0), refusal, record.message),
        },
        News::Fallen(pci) => match xids.count_fallen(&pci) {
            Ok(count) => warn!(pci, count, "the kernel reports that a GPU has fallen off the bus"),
            Err(refusal) => complain_once(xids.refused().get(&refusal).copied().unwrap_or(0), refusal, record.message),
        },
        News::Refused(refusal) => complain_once(xids.refuse(refusal), refusal, record.message),
    }
}

/// Logs only the first of each kind, because any user can make the kernel log such lines.
fn complain_once(count: u64, refusal: Refusal, message: &str) {
    if count == 1 {
        let reason = refusal.label();
        warn!(
            reason,
            message,
            "ignored a kernel log line that looks like an Xid but is not from the driver; further ones are only counted"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overwritten_records_are_counted_as_lost() {
        let xids = Xids::default();
        xids.know(["0000:3b:00.0"]);
        let mut expected = None;
        note("4,10,1,-;NVRM: Xid (PCI:0000:3b:00): 79, x", &mut expected, &xids);
        note("6,11,1,-;something else", &mut expected, &xids);
        note("4,20,1,-;NVRM: Xid (PCI:0000:3b:00): 79, x", &mut expected, &xids);
        note("no record", &mut expected, &xids);
        assert_eq!(xids.lines_lost(), 8);
        let counts: Vec<_> = xids.all().into_iter().map(|(pci, xid, count)| (pci, xid.label(), count)).collect();
        assert_eq!(counts, [("0000:3b:00.0".to_owned(), "79".to_owned(), 2)]);
    }
}
