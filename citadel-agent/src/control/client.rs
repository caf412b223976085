//! The client side, used by the command line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Answer, LONGEST_ANSWER, Order, Request, VERSION};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody is listening.
    #[error(
        "cannot connect to the agent at {}: {error}; check that it is running, that you are root or in the group \
         citadel-agent, and local_collection.control_socket in its configuration", path.display()
    )]
    Unreachable {
        /// Path of the socket.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// The connection failed before the answer.
    #[error("the agent did not answer: {0}")]
    NoAnswer(io::Error),
    /// The agent refused or failed.
    #[error("{0}")]
    Failed(String),
}

/// A connection to the running agent, for any number of requests. The agent closes it after a minute of silence.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the agent at `path`.
    ///
    /// # Errors
    /// See [`ControlError::Unreachable`].
    pub fn open(path: &Path) -> Result<Self, ControlError> {
        let unreachable = |error| ControlError::Unreachable { path: path.to_owned(), error };
        Ok(Self { stream: BufReader::new(UnixStream::connect(path).map_err(unreachable)?) })
    }

    /// Sends an order and waits for the answer.
    ///
    /// # Errors
    /// See [`ControlError`]; after [`ControlError::Failed`] the connection can still be used.
    pub fn ask(&mut self, order: &Order) -> Result<Answer, ControlError> {
        match self.exchange(order).map_err(ControlError::NoAnswer)? {
            Answer::Failed(text) => Err(ControlError::Failed(text)),
            answer => Ok(answer),
        }
    }

    /// Sends an order whose answer is data of type `T`.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn data<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T, ControlError> {
        match self.ask(order)? {
            Answer::Data(data) => serde_json::from_value(data).map_err(|error| ControlError::NoAnswer(error.into())),
            answer => Err(ControlError::NoAnswer(io::Error::other(format!("unexpected answer {answer:?}")))),
        }
    }

    fn exchange(&mut self, order: &Order) -> io::Result<Answer> {
        self.stream.get_ref().set_read_timeout(Some(order.patience()))?;
        let mut line = serde_json::to_vec(&Request { version: VERSION, order: order.clone() })?;
        line.push(b'\n');
        // If the agent has too many clients it says so and closes, so writing may fail although there is an answer.
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = String::new();
        let read = (&mut self.stream).take(LONGEST_ANSWER as u64).read_line(&mut answer);
        if answer.is_empty() {
            sent?;
            read?;
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection without an answer"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Sends one order to the agent at `path` and waits for its message.
///
/// # Errors
/// See [`ControlError`].
pub fn send(path: &Path, order: &Order) -> Result<String, ControlError> {
    match Connection::open(path)?.ask(order)? {
        Answer::Done(text) | Answer::Failed(text) => Ok(text),
        Answer::Data(data) => Ok(data.to_string()),
    }
}
