//! `citadel-agent trace` while it runs.

use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;

use serde_json::Value;

use super::{Agent, SOON, binary};

/// The command, which prints JSON; it ends with the value.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Agent {
    /// Starts the command with these options; all requests from now on are recorded.
    ///
    /// # Panics
    /// If it cannot be run, or says something else than that.
    #[must_use]
    #[track_caller]
    pub fn trace(&self, options: &[&str]) -> Trace {
        let mut command = Command::new(binary());
        command.arg("trace").arg("--config").arg(self.config_path()).args(["--format", "json"]).args(options);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run citadel-agent trace");
        let (lines, complaints) = (passed_on(child.stdout.take()), passed_on(child.stderr.take()));
        let said = complaints.recv_timeout(SOON).expect("the command says that it records");
        assert!(said.starts_with("recording all requests"), "{said}");
        Trace { child, lines, complaints }
    }

    /// The answer to an order on the control socket.
    ///
    /// # Panics
    /// If the agent does not answer with data.
    #[must_use]
    #[track_caller]
    pub fn order(&self, order: &Value) -> Value {
        let mut stream = UnixStream::connect(self.dir.path().join("control")).expect("connect to the control socket");
        stream.set_read_timeout(Some(SOON)).expect("set a read timeout");
        writeln!(stream, "{}", serde_json::json!({"version": 1, "order": order})).expect("send an order");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("read the answer");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON: {error}: {line}"));
        assert!(answer["data"].is_array() || answer["data"].is_object(), "{answer:#}");
        answer["data"].take()
    }
}

/// The lines of a pipe.
fn passed_on(pipe: Option<impl std::io::Read + Send + 'static>) -> Receiver<String> {
    let (pass, lines) = channel();
    let pipe = BufReader::new(pipe.expect("it is a pipe"));
    // Until the command ends, or the test.
    thread::spawn(move || pipe.lines().map_while(Result::ok).try_for_each(|line| pass.send(line)));
    lines
}

impl Trace {
    /// The next request.
    ///
    /// # Panics
    /// If none comes soon.
    #[must_use]
    #[track_caller]
    pub fn next(&self) -> Value {
        match self.lines.recv_timeout(SOON) {
            Ok(line) => serde_json::from_str(&line).unwrap_or_else(|error| panic!("no JSON: {error}: {line}")),
            Err(RecvTimeoutError::Timeout) => panic!("no further request after {SOON:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the command ended: {:?}", self.complaints.try_iter().last()),
        }
    }

    /// What it has complained about.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.try_iter().collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // It may have ended by itself.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
