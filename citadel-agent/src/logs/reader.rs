//! Runs `journalctl` as a child process that writes the journal's entries.
//!
//! A child process instead of libsystemd: the agent does not depend on a version of the library and also starts without
//! it, a damaged journal file only ends a process that is restarted, and a child that waits for a receiver uses no
//! memory of the agent, because unread entries stay in the journal.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

use super::child::confine;
use super::entry::{Entry, number};
use super::export::Parser;

/// Bytes read at a time.
const PIECE: usize = 64 << 10;

/// Maximum number of bytes kept of the child's error output.
const WORDS: usize = 512;

/// Pauses before the child is restarted, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(60);

/// Timeout for querying the last entry.
const LAST_ENTRY: Duration = Duration::from_secs(30);

/// Fields needed for selecting and labelling entries, besides those that are always present.
pub const FIELDS: &[&str] = &[
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_FACILITY",
    "SYSLOG_IDENTIFIER",
    "_TRANSPORT",
    "_PID",
    "_UID",
    "_COMM",
    "_SYSTEMD_UNIT",
    "_SYSTEMD_USER_UNIT",
    "UNIT",
    "COREDUMP_UNIT",
    "CONTAINER_NAME",
    "CONTAINER_ID_FULL",
    "_BOOT_ID",
];

/// The journal to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journal {
    /// Path of journalctl.
    pub journalctl: PathBuf,
    /// Its files; `None`: this host's journal.
    pub directory: Option<PathBuf>,
    /// Whether all fields are needed, or only [`FIELDS`].
    pub all_fields: bool,
}

/// Where to start reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Position {
    /// After the entry with this cursor and this time.
    After(String, u64),
    /// At the first entry since this time, in microseconds since 1970.
    Since(u64),
    /// At the end: only new entries.
    End,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("cannot start {}: {error}", program.display())]
    Start { program: PathBuf, error: io::Error },
    #[error("{program} ended: {words}", program = program.display())]
    Ended { program: PathBuf, words: String },
    #[error("cannot read the output of journalctl: {0}")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Damaged(#[from] super::export::Damaged),
}

/// Entries that were deleted before they were read.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Lost {
    /// Their number, of all units; 0 if the journal does not provide it.
    pub entries: u64,
    /// Time between the last entry read and the first remaining one, in microseconds.
    pub us: u64,
}

/// A child that writes entries.
struct Reader {
    /// Kept because dropping it kills the child.
    _child: Child,
    out: ChildStdout,
    words: Rc<RefCell<Vec<u8>>>,
    parser: Parser,
    buffer: Vec<u8>,
    /// The unparsed part of the buffer.
    left: std::ops::Range<usize>,
}

impl Journal {
    fn start(&self, position: &Position, follow: bool) -> Result<Reader, ReadError> {
        let mut arguments: Vec<OsString> = ["--quiet", "--no-pager", "--output=export"].map(Into::into).into();
        if follow {
            arguments.push("--follow".into());
        }
        match position {
            Position::After(cursor, _) => arguments.extend(["--no-tail".into(), format!("--cursor={cursor}").into()]),
            Position::Since(us) => {
                let (seconds, rest) = (us / 1_000_000, us % 1_000_000);
                arguments.extend(["--no-tail".into(), format!("--since=@{seconds}.{rest:06}").into()]);
            }
            Position::End if follow => arguments.push("--lines=0".into()),
            Position::End => arguments.push("--lines=1".into()),
        }
        if let Some(directory) = &self.directory {
            let mut argument = OsString::from("--directory=");
            argument.push(directory);
            arguments.push(argument);
        }
        let failed = |error| ReadError::Start { program: self.journalctl.clone(), error };
        let mut command = Command::new(&self.journalctl);
        confine(&mut command);
        let mut child = command
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let (Some(out), Some(errors)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed(io::ErrorKind::BrokenPipe.into()));
        };
        let words = Rc::default();
        tokio::task::spawn_local(listen(errors, Rc::clone(&words)));
        // Not with --output-fields: journalctl builds the set of names for each entry, which costs more than writing all fields.
        let parser = Parser::wanting((!self.all_fields).then_some(FIELDS));
        Ok(Reader { _child: child, out, words, parser, buffer: vec![0; PIECE], left: 0..0 })
    }

    /// The last entry of the journal; `None` if it is empty.
    ///
    /// # Errors
    /// It cannot be read; returns the reason.
    pub async fn last(&self) -> Result<Option<Entry>, String> {
        let read = async {
            let mut reader = self.start(&Position::End, false)?;
            reader.next(self).await
        };
        match timeout(LAST_ENTRY, read).await {
            Ok(Ok(entry)) => Ok(Some(entry)),
            Ok(Err(ReadError::Ended { words, .. })) if words.is_empty() => Ok(None),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no output from {} for 30 s", self.journalctl.display())),
        }
    }

    /// The place after the last entry of the journal. By that entry rather than by the clock, which may be set back.
    ///
    /// # Errors
    /// It cannot be read, and why.
    pub async fn end(&self) -> Result<Position, String> {
        Ok(self.last().await?.map_or(Position::Since(0), |entry| Position::After(entry.cursor, entry.time_us)))
    }
}

/// Reads the child's error output to the end, and keeps its start.
async fn listen(mut errors: ChildStderr, words: Rc<RefCell<Vec<u8>>>) {
    let mut piece = [0; 1024];
    while let Ok(count) = errors.read(&mut piece).await
        && count > 0
    {
        let mut words = words.borrow_mut();
        let room = WORDS.saturating_sub(words.len()).min(count);
        words.extend_from_slice(&piece[..room]);
    }
}

impl Reader {
    /// The next entry. Cancel safe: dropping the future loses nothing.
    async fn next(&mut self, journal: &Journal) -> Result<Entry, ReadError> {
        loop {
            let mut bytes = &self.buffer[self.left.clone()];
            let found = self.parser.next(&mut bytes)?;
            self.left.start = self.left.end - bytes.len();
            match found.map(Entry::of) {
                Some(Some(entry)) => return Ok(entry),
                // journalctl writes no entry without a cursor.
                Some(None) => return Err(super::export::Damaged.into()),
                None => {}
            }
            let count = self.out.read(&mut self.buffer).await?;
            self.left = 0..count;
            if count == 0 {
                // The rest of its error output may still be on its way.
                tokio::task::yield_now().await;
                let words = String::from_utf8_lossy(&self.words.borrow()).trim().to_owned();
                return Err(ReadError::Ended { program: journal.journalctl.clone(), words });
            }
        }
    }
}

/// Follows the journal from a position on, whatever happens to the child.
pub struct Follower {
    journal: Journal,
    position: Position,
    reader: Option<Reader>,
    /// Whether the next entry is the first one of a child that starts after a cursor.
    first: bool,
    /// When the child is restarted.
    again: Instant,
    pause: Duration,
    problem: Option<String>,
    lost: Lost,
}

impl Follower {
    /// Starts nothing before [`Self::next`].
    #[must_use]
    pub fn new(journal: Journal, position: Position) -> Self {
        Self {
            journal,
            position,
            reader: None,
            first: false,
            again: Instant::now(),
            pause: FIRST_PAUSE,
            problem: None,
            lost: Lost::default(),
        }
    }

    /// The current position.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Why no entries come, if there is a problem.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Entries found to be lost since the last call.
    pub fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// Stops the child until the next entry is needed: during a long pause its view of the journal's files would become
    /// stale.
    pub fn rest(&mut self) {
        self.reader = None;
    }

    /// The next entry. Cancel safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Entry {
        loop {
            if self.reader.is_none() {
                sleep_until(self.again).await;
                match self.journal.start(&self.position, true) {
                    Ok(reader) => {
                        self.reader = Some(reader);
                        self.first = matches!(self.position, Position::After(..));
                    }
                    Err(error) => self.failed(&error),
                }
            }
            let Some(reader) = &mut self.reader else { continue };
            match reader.next(&self.journal).await {
                Err(error) => self.failed(&error),
                Ok(entry) => {
                    if self.problem.take().is_some() {
                        info!("reading the journal again");
                    }
                    self.pause = FIRST_PAUSE;
                    if std::mem::take(&mut self.first) && self.is_known(&entry) {
                        continue;
                    }
                    self.position = Position::After(entry.cursor.clone(), entry.time_us);
                    return entry;
                }
            }
        }
    }

    /// Whether the first entry of a child is the one that was read last. If not, that one has been deleted, and
    /// possibly others.
    fn is_known(&mut self, entry: &Entry) -> bool {
        let Position::After(cursor, time_us) = &self.position else { return false };
        if is_same(cursor, &entry.cursor) {
            return true;
        }
        let between = match (number(cursor), number(&entry.cursor)) {
            (Some((journal, last)), Some((same, first))) if journal == same => first.checked_sub(last + 1),
            _ => None,
        };
        if between != Some(0) {
            let us = entry.time_us.saturating_sub(*time_us);
            let lost = humantime::format_duration(Duration::from_secs(us / 1_000_000)).to_string();
            warn!(
                lost,
                entries = between,
                "the journal deleted entries before they were read; raise SystemMaxUse in journald.conf"
            );
            self.lost.us += us;
            self.lost.entries += between.unwrap_or(0);
        }
        false
    }

    fn failed(&mut self, error: &ReadError) {
        self.reader = None;
        let words = error.to_string();
        // A cursor that systemd rejected would be rejected again.
        if let (Position::After(_, time_us), ReadError::Ended { words, .. }) = (&self.position, error)
            && words.contains("cursor")
        {
            self.position = Position::Since(*time_us);
        }
        if self.problem.replace(words.clone()).is_none() {
            warn!(error = words, "cannot read the journal, retrying");
        }
        self.again = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}

/// Whether two cursors identify the same entry: the sequence number differs if it was copied into another file.
fn is_same(a: &str, b: &str) -> bool {
    let entry = |cursor: &str| cursor.find(";b=").map(|at| cursor[at..].to_owned());
    a == b || entry(a).is_some_and(|entry_a| entry(b) == Some(entry_a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_copied_is_the_same() {
        let at = |s: &str, x: &str| format!("s={s};i=1;b=2;m=3;t=4;x={x}");
        assert!(is_same(&at("a", "1"), &at("b", "1")));
        assert!(!is_same(&at("a", "1"), &at("a", "2")));
        assert!(is_same("x", "x") && !is_same("x", "y"));
    }

    #[test]
    fn what_is_between_two_entries_that_are_not_neighbours_is_lost() {
        let journal = Journal { journalctl: "journalctl".into(), directory: None, all_fields: false };
        for (position, first, lost) in [
            ("s=a;i=9;b=1;m=1;t=1;x=1", "s=a;i=a;b=1;m=2;t=2;x=2", Lost::default()),
            ("s=a;i=9;b=1;m=1;t=1;x=1", "s=a;i=ff;b=1;m=2;t=2;x=2", Lost { entries: 245, us: 5_000_000 }),
            ("s=a;i=9;b=1;m=1;t=1;x=1", "s=b;i=1;b=2;m=2;t=2;x=2", Lost { entries: 0, us: 5_000_000 }),
        ] {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let _guard = runtime.enter();
            let mut follower = Follower::new(journal.clone(), Position::After(position.to_owned(), 1_000_000));
            let entry =
                Entry { cursor: first.to_owned(), time_us: 6_000_000, fields: super::super::export::Fields::default() };
            assert!(!follower.is_known(&entry));
            assert_eq!(follower.take_lost(), lost, "{first}");
            assert_eq!(follower.take_lost(), Lost::default());
        }
    }
}
