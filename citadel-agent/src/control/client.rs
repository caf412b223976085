//! The command line's end.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::{Answer, LONGEST_ANSWER, Order};

/// Why an order did not get through.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens.
    #[error(
        "cannot reach the agent at {}: {error}; is it running, are you root, and does local_collection.control_socket of \
         its configuration say so?", path.display()
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

/// Sends an order to the agent that listens at `path` and waits for the answer.
///
/// # Errors
/// See [`ControlError`].
pub fn send(path: &Path, order: &Order) -> Result<String, ControlError> {
    let unreachable = |error| ControlError::Unreachable { path: path.to_owned(), error };
    let mut stream = UnixStream::connect(path).map_err(unreachable)?;
    match exchange(&mut stream, order).map_err(ControlError::NoAnswer)? {
        Answer::Done(text) => Ok(text),
        Answer::Failed(text) => Err(ControlError::Failed(text)),
    }
}

fn exchange(stream: &mut UnixStream, order: &Order) -> io::Result<Answer> {
    stream.set_read_timeout(Some(order.patience()))?;
    let mut line = serde_json::to_vec(order)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).take(LONGEST_ANSWER as u64).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
