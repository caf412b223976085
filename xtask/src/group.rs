//! Child processes that end with their parent, however that ends.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::process;

/// How long a process has to exit by itself.
const GRACE: Duration = Duration::from_secs(5);

/// Set when the user has asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

/// From now on, Ctrl-C and similar signals only make [`stopping`] true, so that everything is stopped in order.
pub(crate) fn catch_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and lives as long as the program.
        unsafe { libc::signal(signal, on_signal as *const () as libc::sighandler_t) };
    }
}

/// Whether the user has asked to stop.
pub(crate) fn stopping() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// A child in its own process group: Ctrl-C does not reach it, and its children end with it. Stopped on drop.
pub(crate) struct Group {
    name: String,
    log: PathBuf,
    /// The child; standard input and output are piped if the command says so.
    pub(crate) child: Child,
    /// The sudo that it runs under, which is needed to signal it.
    sudo: Option<PathBuf>,
}

impl Group {
    /// Starts `command` with its standard error (and its standard output, unless `piped`) going to `log`.
    pub(crate) fn spawn(name: &str, command: &mut Command, log: PathBuf, piped: bool) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let other = file.try_clone().context("cannot share the log file")?;
        if piped {
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
        } else {
            command.stdin(Stdio::null()).stdout(other);
        }
        let sudo = Some(PathBuf::from(command.get_program())).filter(|program| program.ends_with("sudo"));
        let child = command.stderr(file).process_group(0).spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), log, child, sudo })
    }

    /// Waits until `ready` returns true.
    ///
    /// # Errors
    /// The process has exited, or was not ready within `limit`; the message ends with the process's own output.
    pub(crate) fn wait_until(&mut self, limit: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !ready() {
            self.check()?;
            if stopping() {
                bail!("interrupted");
            }
            if begin.elapsed() > limit {
                bail!("{} is not ready after {} s{}", self.name, limit.as_secs(), self.last_words());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Fails when the process has exited.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))? {
            Some(status) => bail!("{} has ended ({status}){}", self.name, self.last_words()),
            None => Ok(()),
        }
    }

    /// Sends SIGINT, as Ctrl-C would, waits for the exit, and returns what the process printed: its output must be
    /// piped and fit a pipe (64 KiB).
    pub(crate) fn interrupt_for_output(&mut self) -> Result<String> {
        self.signal(libc::SIGINT);
        if !self.ended() {
            bail!("{} did not exit on SIGINT{}", self.name, self.last_words());
        }
        let mut output = self.child.stdout.take().with_context(|| format!("{}'s output is not piped", self.name))?;
        let mut text = String::new();
        output.read_to_string(&mut text).with_context(|| format!("reading {}'s output", self.name))?;
        Ok(text)
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(10)..];
        format!("; log: {}\n{}", self.log.display(), last.join("\n"))
    }

    fn signal(&self, signal: libc::c_int) {
        // The child leads its group, so its PID is the group's ID; a PID fits `pid_t`.
        let group = -(self.child.id() as libc::pid_t);
        if let Some(sudo) = &self.sudo {
            let words = ["-n", "kill", &format!("-{signal}"), "--", &group.to_string()];
            process::succeeds(Command::new(sudo).args(words));
        } else {
            // SAFETY: kill takes two numbers; the child is not reaped yet, so no other group can have its ID.
            unsafe { libc::kill(group, signal) };
        }
    }

    /// Whether it exited within the grace period.
    fn ended(&mut self) -> bool {
        let begin = Instant::now();
        while begin.elapsed() < GRACE {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(20)),
                Ok(Some(_)) | Err(_) => return true,
            }
        }
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.signal(libc::SIGTERM);
        if !self.ended() {
            eprintln!("xtask: {} did not exit; killing it", self.name);
            self.signal(libc::SIGKILL);
            self.ended();
        }
    }
}

/// The log file of a process.
pub(crate) fn log(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.log"))
}
