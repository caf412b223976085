//! Runs a program that can hang or produce too much output.

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Polling interval for the exit of a program that has closed its output.
const POLL: Duration = Duration::from_millis(5);

/// Outcome.
#[derive(Debug)]
pub(super) enum Run {
    /// It exited; its standard output. The exit status is part of the output.
    Ended(Vec<u8>),
    /// It was killed but still exists, blocked in the kernel.
    Hangs(Child),
}

/// Runs `command` for at most `within`, with at most `limit` bytes of output.
///
/// # Errors
/// It cannot be started, takes too long or writes too much; it is then killed.
pub(super) fn run(command: &mut Command, within: Duration, limit: usize) -> io::Result<Run> {
    let deadline = Instant::now() + within;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let output = match child.stdout.take() {
        Some(stdout) => read(stdout, deadline, limit),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let ended = output.is_ok() && wait(&mut child, deadline)?;
    if !ended {
        child.kill()?;
        // A second is enough to exit, unless it is blocked in the kernel.
        if !wait(&mut child, Instant::now() + Duration::from_secs(1))? {
            return Ok(Run::Hangs(child));
        }
        output?;
        return Err(io::ErrorKind::TimedOut.into());
    }
    output.map(Run::Ended)
}

/// Whether the program exited before the deadline.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<bool> {
    loop {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}

/// Reads until the end.
fn read(mut stdout: ChildStdout, deadline: Instant, limit: usize) -> io::Result<Vec<u8>> {
    let mut output = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).as_millis();
        let mut poll = libc::pollfd { fd: stdout.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: the argument is one valid entry.
        match unsafe { libc::poll(&raw mut poll, 1, i32::try_from(left).unwrap_or(i32::MAX)) } {
            0 => return Err(io::ErrorKind::TimedOut.into()),
            ready if ready < 0 => return Err(io::Error::last_os_error()),
            _ => {}
        }
        match stdout.read(&mut buffer)? {
            0 => return Ok(output),
            count => output.extend_from_slice(&buffer[..count]),
        }
        if output.len() > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, within: Duration, limit: usize) -> io::Result<Run> {
        run(Command::new("/bin/sh").args(["-c", script]), within, limit)
    }

    #[test]
    fn output_comes_back_whatever_the_exit_status() {
        let Run::Ended(output) = shell("echo hello; exit 4", Duration::from_secs(10), 100).unwrap() else {
            panic!("a shell that hangs")
        };
        assert_eq!(output, b"hello\n");
    }

    #[test]
    fn what_takes_too_long_or_says_too_much_is_ended() {
        let begin = Instant::now();
        assert_eq!(shell("exec sleep 60", Duration::from_millis(50), 100).unwrap_err().kind(), io::ErrorKind::TimedOut);
        let closed = shell("exec >&-; exec sleep 60", Duration::from_millis(50), 100);
        assert_eq!(closed.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let endless = shell("while :; do echo yes; done", Duration::from_secs(50), 100_000);
        assert_eq!(endless.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert!(begin.elapsed() < Duration::from_secs(40), "they were waited for");
        let absent = run(&mut Command::new("/nonexistent/program"), Duration::from_secs(1), 1);
        assert_eq!(absent.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
