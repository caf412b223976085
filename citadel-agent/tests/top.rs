//! `citadel-agent top` on a terminal: it draws, and gives the terminal back as it was.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use citadel_agent::clock::wall_ms;
use citadel_agent::control::{self, Answer, Control, Order, Orders};
use citadel_agent::explain::explain;
use citadel_agent::history::{History, Subject};
use citadel_agent::metrics::catalogue::models::{REQUESTS, REQUESTS_IN_FLIGHT};
use citadel_agent::metrics::family::{Page, Value};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// What a terminal is told at the end: the first screen, and the cursor.
const RESTORED: [&str; 2] = ["\x1b[?1049l", "\x1b[?25h"];

struct Desk(History);

impl Orders for Desk {
    fn carry_out(&self, order: &Order) -> Answer {
        match order {
            Order::History { subject, from_ms, to_ms, step_ms } => {
                let subject = subject.as_deref().and_then(Subject::parse);
                let series = self.0.series(subject.as_ref(), *from_ms, *to_ms, step_ms.unwrap_or(i64::MAX));
                Answer::Data(serde_json::to_value(series).unwrap())
            }
            Order::Explain { from_ms, to_ms, against, .. } => {
                Answer::Data(serde_json::to_value(explain(&self.0, None, *from_ms, *to_ms, *against)).unwrap())
            }
            _ => Answer::Failed("no".to_owned()),
        }
    }
}

/// A control socket behind which one model had 20 requests in 10 s.
fn served(folder: &TempDir) -> Control {
    let history = History::default();
    for (requests, ago) in [(0u64, 10_000), (10, 5000), (20, 0)] {
        let mut page = Page::default();
        page.add(&REQUESTS, ["phi3", "11403", "chat_completions", "200"], Value::Integer(requests));
        page.add(&REQUESTS_IN_FLIGHT, ["phi3", "11403"], Value::Integer(3));
        history.take(&page, wall_ms() - ago);
    }
    control::serve(&folder.path().join("control"), Arc::new(Desk(history))).unwrap()
}

struct Terminal {
    master: File,
    slave: OwnedFd,
    /// All that was written to it so far.
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Terminal {
    fn open() -> Self {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both numbers and the size outlive the call; name and settings may be null.
        let result = unsafe {
            libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        // SAFETY: openpty has just opened them, and nobody else has them.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let (send, output) = mpsc::channel();
        let mut reader = master.try_clone().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                if send.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { master, slave, output, seen: String::new() }
    }

    fn start(&self, folder: &TempDir) -> Child {
        let config = folder.path().join("config.yaml");
        let socket = folder.path().join("control");
        std::fs::write(&config, format!("local_collection: {{control_socket: {}}}\n", socket.display())).unwrap();
        let end = || self.slave.try_clone().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
        command.args(["top", "--config"]).arg(config).env("TERM", "xterm").env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
    }

    /// Waits until all of this was written.
    fn wait_for(&mut self, wanted: &[&str]) {
        while !wanted.iter().all(|wanted| self.seen.contains(wanted)) {
            let bytes =
                self.output.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{wanted:?} not in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }

    /// Whether lines are edited and echoed by the terminal, as a shell wants it.
    fn is_cooked(&self) -> bool {
        // SAFETY: a termios of zeros is valid, and outlives the call that fills it.
        let settings = unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            assert_eq!(libc::tcgetattr(self.slave.as_fd().as_raw_fd(), &raw mut settings), 0);
            settings
        };
        settings.c_lflag & (libc::ICANON | libc::ECHO) == libc::ICANON | libc::ECHO
    }
}

#[tokio::test]
async fn the_terminal_is_given_back_after_a_key_and_after_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let _control = served(&folder);
    // The socket is served here meanwhile.
    tokio::task::spawn_blocking(move || {
        for signal in [None, Some(libc::SIGTERM), Some(libc::SIGHUP)] {
            start_and_end(&folder, signal);
        }
    })
    .await
    .unwrap();
}

/// Ends it by the key `q`, or by a signal.
fn start_and_end(folder: &TempDir, signal: Option<i32>) {
    let mut terminal = Terminal::open();
    assert!(terminal.is_cooked());
    let mut child = terminal.start(folder);
    terminal.wait_for(&["\x1b[?1049h", "MODEL", "phi3", "2.00"]);
    assert!(!terminal.is_cooked());
    if let Some(signal) = signal {
        // SAFETY: a signal to a child that has not been waited for.
        let result = unsafe { libc::kill(child.id().cast_signed(), signal) };
        assert_eq!(result, 0);
    } else {
        terminal.master.write_all(b"q").unwrap();
    }
    terminal.wait_for(&RESTORED);
    assert!(child.wait().unwrap().success(), "{signal:?}");
    assert!(terminal.is_cooked(), "{signal:?}");
}
