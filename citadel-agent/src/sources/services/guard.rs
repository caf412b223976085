//! The bus connection, restricted to messages of limited size from the bus and systemd.
//!
//! Any user can send signals to any connection of the system bus, up to 32 MiB and with any content: for example that
//! systemd has restarted, or a flood of them. The bus adds the sender's unique name to each.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixStream as StdUnixStream};
use std::sync::{Arc, OnceLock};

use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use zbus::address::Transport;
use zbus::address::transport::UnixSocket;
use zbus::connection::socket::{BoxedSplit, ReadHalf, Split};
use zbus::names::OwnedUniqueName;
use zbus::{Address, Error, Message};

/// The bus's own name on it.
pub(super) const BUS: &str = "org.freedesktop.DBus";

/// Maximum size of a message; systemd's list of ten thousand units is smaller.
const MAX_MESSAGE: u64 = 4 << 20;

/// Size of the fixed part of a header, which contains the size of the rest.
const PRIMARY: usize = 16;

/// systemd's unique name, once known; until then only the bus is trusted.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusted(Arc<OnceLock<OwnedUniqueName>>);

impl Trusted {
    /// Trusts systemd from now on.
    pub(super) fn set(&self, systemd: &OwnedUniqueName) {
        // A connection ends when systemd's name changes.
        _ = self.0.set(systemd.clone());
    }

    fn is_sender_of(&self, message: &Message) -> bool {
        let header = message.header();
        header.sender().is_some_and(|sender| *sender == BUS || self.0.get().is_some_and(|known| **known == *sender))
    }
}

/// The read half.
#[derive(Debug)]
pub(super) struct Guarded {
    inner: OwnedReadHalf,
    trusted: Trusted,
}

impl Guarded {
    /// Connects to a bus on this host.
    pub(super) async fn connect(address: &Address, trusted: Trusted) -> Result<BoxedSplit, Error> {
        let failed = |error: io::Error| Error::InputOutput(Arc::new(error));
        let Transport::Unix(unix) = address.transport() else {
            return Err(Error::Address("the D-Bus address is not a Unix socket".to_owned()));
        };
        let stream = match unix.path() {
            UnixSocket::File(path) => UnixStream::connect(path).await.map_err(failed)?,
            UnixSocket::Abstract(name) => {
                let address = SocketAddr::from_abstract_name(name.as_encoded_bytes()).map_err(failed)?;
                let stream = StdUnixStream::connect_addr(&address).map_err(failed)?;
                stream.set_nonblocking(true).map_err(failed)?;
                UnixStream::from_std(stream).map_err(failed)?
            }
            _ => return Err(Error::Address("the D-Bus address has no path".to_owned())),
        };
        let (inner, write) = stream.into_split();
        Ok(Split::new(Box::new(Self { inner, trusted }), Box::new(write)))
    }

    /// Reads until `buffer` has `length` bytes.
    async fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), Error> {
        let mut have = buffer.len();
        buffer.resize(length.max(have), 0);
        while have < length {
            match self.inner.recvmsg(&mut buffer[have..]).await?.0 {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                read => have += read,
            }
        }
        Ok(())
    }

    /// Reads and discards `length` bytes, starting with those in `buffered`.
    async fn skip(&mut self, buffered: &mut Vec<u8>, length: u64) -> Result<(), Error> {
        let mut left = length - buffered.drain(..buffered.len().min(length as usize)).len() as u64;
        let mut piece = vec![0; 16 << 10];
        while left > 0 {
            let want = piece.len().min(left as usize);
            match self.inner.recvmsg(&mut piece[..want]).await?.0 {
                0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                read => left -= read as u64,
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl ReadHalf for Guarded {
    /// The next message from a trusted sender within the size limit.
    async fn receive_message(
        &mut self,
        seq: u64,
        buffered: &mut Vec<u8>,
        fds: &mut Vec<OwnedFd>,
    ) -> Result<Message, Error> {
        loop {
            self.fill(buffered, PRIMARY).await?;
            let length = message_length(buffered);
            if length > MAX_MESSAGE {
                self.skip(buffered, length).await?;
            } else {
                let message = self.inner.receive_message(seq, buffered, fds).await?;
                if self.trusted.is_sender_of(&message) {
                    return Ok(message);
                }
            }
            // A flood is read as fast as it arrives, but other tasks on this thread get their turn in between.
            tokio::task::yield_now().await;
        }
    }

    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        self.inner.recvmsg(buffer).await
    }
}

/// The size of the message that starts with this header (D-Bus specification, "Message Format"): a header padded to
/// eight bytes, and a body.
fn message_length(head: &[u8]) -> u64 {
    let number = |at: usize| {
        let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
        u64::from(if head[0] == b'B' { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    };
    let (body, fields) = (number(4), number(12));
    (PRIMARY as u64 + fields).next_multiple_of(8) + body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_in_either_order_of_bytes() {
        let message = Message::signal("/a", "org.example.Name", "Changed").unwrap().build(&"hello").unwrap();
        assert_eq!(message_length(message.data()), message.data().len() as u64);
        let mut head = [b'B', 4, 0, 1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 9];
        assert_eq!(message_length(&head), 32 + 3);
        head[0] = b'l';
        assert_eq!(message_length(&head), 16 + (9 << 24) + (3 << 24));
    }
}
