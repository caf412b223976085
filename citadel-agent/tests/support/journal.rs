//! A real journal in a directory, written by systemd-journal-remote as entries come, and read by the journalctl of this machine.

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, thread};

use citadel_agent::logs::export::Fields;

use super::child::Running;

/// systemd's program that writes journals from entries.
pub fn journal_remote() -> PathBuf {
    let places = ["/usr/lib/systemd/systemd-journal-remote", "/lib/systemd/systemd-journal-remote"];
    let found = places.iter().map(Path::new).find(|path| path.exists());
    found.expect("systemd-journal-remote is needed: apt-get install systemd-journal-remote").to_owned()
}

/// systemd-journal-remote, which writes what it receives to this file, once it listens; and where it takes entries.
pub fn journal_remote_at(file: &Path) -> (Running, String) {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    (journal_remote_on(port, file), format!("http://127.0.0.1:{port}/upload"))
}

/// The same on this port.
pub fn journal_remote_on(port: u16, file: &Path) -> Running {
    let remote = Command::new(journal_remote())
        .arg(format!("--listen-http=127.0.0.1:{port}"))
        .arg("--split-mode=none")
        .arg("--output")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut remote = Running(remote);
    let begin = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(remote.0.try_wait().unwrap().is_none(), "systemd-journal-remote has ended");
        assert!(begin.elapsed() < Duration::from_secs(20), "systemd-journal-remote does not listen");
        thread::sleep(Duration::from_millis(20));
    }
    remote
}

/// A journal that grows.
pub struct Journal {
    pub folder: PathBuf,
    child: Child,
    /// Microseconds since the epoch, of the last entry.
    pub time_us: u64,
    written: u64,
}

impl Journal {
    /// An empty one in `folder`, which is made.
    pub fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let child = Command::new(journal_remote())
            .arg("--output")
            .arg(folder.join("system.journal"))
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        Self { folder: folder.to_owned(), child, time_us: now.as_micros() as u64, written: 0 }
    }

    /// Writes an entry with these fields.
    pub fn write(&mut self, fields: &[(&str, &[u8])]) {
        self.time_us += 10;
        self.written += 1;
        let mut entry = Fields::default();
        let times = [self.time_us.to_string(), self.written.to_string()];
        entry.push("__REALTIME_TIMESTAMP", times[0].as_bytes());
        entry.push("__MONOTONIC_TIMESTAMP", times[1].as_bytes());
        entry.push("_BOOT_ID", b"0123456789abcdef0123456789abcdef");
        let mut bytes = Vec::new();
        fields.iter().filter(|(_, value)| value.len() < 200_000).for_each(|(name, value)| entry.push(name, value));
        entry.write(&mut bytes);
        // What the agent's own writer would cut.
        bytes.pop();
        for (name, value) in fields.iter().filter(|(_, value)| value.len() >= 200_000) {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(&bytes).unwrap();
        stdin.flush().unwrap();
    }

    /// Writes a line of a unit.
    pub fn line(&mut self, unit: &str, message: &str) {
        self.write(&[
            ("_SYSTEMD_UNIT", unit.as_bytes()),
            ("PRIORITY", b"6"),
            ("_PID", b"4711"),
            ("MESSAGE", message.as_bytes()),
        ]);
    }

    /// Waits until `journalctl` sees so many entries.
    pub fn wait_for(&self, entries: usize) {
        let begin = Instant::now();
        loop {
            let mut command = Command::new("journalctl");
            command.arg("--directory").arg(&self.folder).args(["--output=cat", "--output-fields=PRIORITY", "--quiet"]);
            let output = command.output().expect("journalctl is part of systemd");
            let seen = output.stdout.iter().filter(|&&byte| byte == b'\n').count();
            if seen >= entries {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "journalctl sees {seen} of {entries} entries");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
