//! The command line's end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::{Answer, LONGEST_ANSWER, Order, Request, VERSION};

/// Why a request did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "cannot reach the agent at {}: {error}; is it running, are you root or in the group citadel-agent, and does \
         local_collection.control_socket of its configuration say so?", path.display()
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It did not answer as it should.
    #[error("the agent did not answer: {0}")]
    NoAnswer(io::Error),
    /// It answered that it could not.
    #[error("{0}")]
    Failed(String),
}

/// A connection to the running agent, for as many requests as are wanted. The agent closes one that is silent for a minute.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects to the agent that listens at `path`.
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
    /// See [`ControlError`]; [`ControlError::Failed`] leaves the connection usable.
    pub fn ask(&mut self, order: &Order) -> Result<Answer, ControlError> {
        match self.exchange(order).map_err(ControlError::NoAnswer)? {
            Answer::Failed(text) => Err(ControlError::Failed(text)),
            answer => Ok(answer),
        }
    }

    /// Sends an order whose answer is data of this type.
    ///
    /// # Errors
    /// See [`ControlError`].
    pub fn data<T: DeserializeOwned>(&mut self, order: &Order) -> Result<T, ControlError> {
        match self.ask(order)? {
            Answer::Data(data) => serde_json::from_value(data).map_err(|error| ControlError::NoAnswer(error.into())),
            answer => Err(ControlError::NoAnswer(io::Error::other(format!("no data, but {answer:?}")))),
        }
    }

    fn exchange(&mut self, order: &Order) -> io::Result<Answer> {
        self.stream.get_ref().set_read_timeout(Some(order.patience()))?;
        let mut line = serde_json::to_vec(&Request { version: VERSION, order: order.clone() })?;
        line.push(b'\n');
        // Where the agent has no place for us it says so and closes, so that writing may fail while there is an answer.
        let sent = self.stream.get_mut().write_all(&line);
        let mut answer = String::new();
        let read = (&mut self.stream).take(LONGEST_ANSWER as u64).read_line(&mut answer);
        if answer.is_empty() {
            sent?;
            read?;
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
        }
        Ok(serde_json::from_str(&answer)?)
    }
}

/// Sends one order to the agent that listens at `path` and waits for the answer in words.
///
/// # Errors
/// See [`ControlError`].
pub fn send(path: &Path, order: &Order) -> Result<String, ControlError> {
    match Connection::open(path)?.ask(order)? {
        Answer::Done(text) | Answer::Failed(text) => Ok(text),
        Answer::Data(data) => Ok(data.to_string()),
    }
}
