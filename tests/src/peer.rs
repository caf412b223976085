//! Both ends of a TCP connection, scripted with blocking calls, each of which tells when it happened.
//!
//! `TCP_NODELAY` is set on both ends, so every write is a segment of its own (up to the loopback's 64 KiB).

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, listen, socket_with, sockopt};

use crate::http::{answer, get};
use crate::truth::{Stamp, pause};

/// How long a script waits for the other side before it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection. All its steps panic, naming the step, when the connection does not let them happen.
#[derive(Debug)]
pub struct Peer {
    stream: TcpStream,
    /// Bytes that came together with those that an earlier step asked for.
    ahead: Vec<u8>,
    /// Payload written so far, in bytes.
    pub sent: u64,
    /// Payload read so far, in bytes.
    pub received: u64,
}

/// Bytes that a step has read, and when.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// From the begin of the wait to the return of the read that brought the last of them.
    pub at: Stamp,
}

impl Peer {
    /// Connects to a server of this host.
    ///
    /// # Panics
    /// If nobody listens there.
    #[must_use]
    pub fn connect(address: impl ToSocketAddrs) -> Self {
        Self::over(TcpStream::connect(address).expect("connect to the scripted server"))
    }

    /// Takes over a connected stream.
    ///
    /// # Panics
    /// If its options cannot be set.
    #[must_use]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a read timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a write timeout");
        Self { stream, ahead: Vec::new(), sent: 0, received: 0 }
    }

    /// The port of this end.
    ///
    /// # Panics
    /// If the socket has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.stream.local_addr().expect("ask for the socket's address").port()
    }

    /// Writes all bytes, with as few calls as the socket buffer allows.
    ///
    /// # Panics
    /// If the connection is gone.
    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> Stamp {
        self.try_write(bytes).expect("write to the other side")
    }

    /// Writes all bytes to a peer that may be gone.
    ///
    /// # Errors
    /// Those of the socket: a reset or closed connection.
    pub fn try_write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<Stamp> {
        let bytes = bytes.as_ref();
        let (result, stamp) = Stamp::of(|| self.stream.write_all(bytes));
        result.map(|()| {
            self.sent += bytes.len() as u64;
            stamp
        })
    }

    /// Writes byte by byte, pausing `ms` after each; the stamps of the first and the last byte.
    ///
    /// # Panics
    /// If the connection is gone or `bytes` is empty.
    #[track_caller]
    pub fn dribble(&mut self, bytes: impl AsRef<[u8]>, ms: u64) -> (Stamp, Stamp) {
        let mut stamps = Vec::new();
        for byte in bytes.as_ref() {
            stamps.push(self.write([*byte]));
            pause(ms);
        }
        (stamps[0], stamps[stamps.len() - 1])
    }

    /// Reads until `done` says how many of the bytes seen so far it wants.
    fn fill_until(&mut self, done: impl Fn(&[u8]) -> Option<usize>) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; 64 * 1024];
        loop {
            if let Some(wanted) = done(&self.ahead) {
                return Ok(self.ahead.drain(..wanted).collect());
            }
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    self.received += n as u64;
                    self.ahead.extend_from_slice(&piece[..n]);
                }
            }
        }
    }

    #[track_caller]
    fn read_until(&mut self, what: &str, done: impl Fn(&[u8]) -> Option<usize>) -> Heard {
        let (bytes, at) = Stamp::of(|| self.fill_until(done));
        match bytes {
            Ok(bytes) => Heard { bytes, at },
            Err(error) => {
                panic!("waiting for {what}: {error}; so far {:?}", String::from_utf8_lossy(&self.ahead))
            }
        }
    }

    /// Takes exactly `n` bytes from the socket and leaves the rest in it, where [`Self::read`] takes what there is.
    ///
    /// # Panics
    /// If the connection ends first, or bytes were read ahead.
    #[track_caller]
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        assert!(self.ahead.is_empty(), "bytes were read ahead");
        let mut bytes = vec![0; n];
        self.stream.read_exact(&mut bytes).expect("take from the socket");
        self.received += n as u64;
        bytes
    }

    /// Reads exactly `n` bytes.
    ///
    /// # Panics
    /// If the connection ends first.
    #[track_caller]
    pub fn read(&mut self, n: usize) -> Heard {
        self.read_until(&format!("{n} bytes"), |seen| (seen.len() >= n).then_some(n))
    }

    /// Reads up to and including `end`.
    ///
    /// # Panics
    /// If the connection ends first.
    #[track_caller]
    pub fn read_through(&mut self, end: impl AsRef<[u8]>) -> Heard {
        let end = end.as_ref();
        let what = format!("{:?}", String::from_utf8_lossy(end));
        self.read_until(&what, |seen| Some(seen.windows(end.len()).position(|window| window == end)? + end.len()))
    }

    /// Reads a message head: through the blank line.
    ///
    /// # Panics
    /// If the connection ends first.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        String::from_utf8_lossy(&self.read_through("\r\n\r\n").bytes).into_owned()
    }

    /// Reads a message with a `Content-Length`, or without a body.
    ///
    /// # Panics
    /// If the connection ends first.
    #[track_caller]
    pub fn read_message(&mut self) -> Heard {
        let head = self.read_through("\r\n\r\n");
        let text = String::from_utf8_lossy(&head.bytes).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(0, |value| value.trim().parse().expect("a number after Content-Length"));
        let body = self.read(length);
        Heard { bytes: [head.bytes, body.bytes].concat(), at: head.at.stretched_to(body.at) }
    }

    /// Sends a request and reads an answer of `length` bytes; when it asked.
    ///
    /// # Panics
    /// If the connection ends first.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>, length: usize) -> Stamp {
        let asked = self.write(request);
        self.read(length);
        asked
    }

    /// Waits until bytes come (`true`) or the other side closes (`false`).
    pub fn has_more(&mut self) -> bool {
        !self.ahead.is_empty() || self.stream.peek(&mut [0]).is_ok_and(|n| n > 0)
    }

    /// Reads what still comes until the other side closes or resets the connection.
    pub fn read_to_end(&mut self) -> Heard {
        let mut bytes = std::mem::take(&mut self.ahead);
        let ahead = bytes.len();
        // A reset ends the connection as well as a FIN does; what came before it is kept.
        let (_, at) = Stamp::of(|| self.stream.read_to_end(&mut bytes));
        self.received += (bytes.len() - ahead) as u64;
        Heard { bytes, at }
    }

    /// Sends FIN and goes on reading.
    ///
    /// # Panics
    /// If the connection is gone.
    pub fn finish_writing(&self) {
        self.stream.shutdown(Shutdown::Write).expect("half-close");
    }

    /// Closes the connection: FIN if everything that came was read, else the kernel sends RST.
    pub fn close(self) {
        drop(self);
    }

    /// Resets the connection (`SO_LINGER` of zero, then close).
    ///
    /// # Panics
    /// If the option cannot be set.
    pub fn reset(self) {
        set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("set SO_LINGER");
    }
}

impl AsFd for Peer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A listening socket whose connections play scripts.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
}

impl Server {
    /// Listens on a free port of 127.0.0.1.
    #[must_use]
    pub fn bind() -> Self {
        Self::bind_to((Ipv4Addr::LOCALHOST, 0))
    }

    /// Listens on an address.
    ///
    /// # Panics
    /// If it is taken.
    #[must_use]
    pub fn bind_to(address: impl ToSocketAddrs) -> Self {
        Self { listener: TcpListener::bind(address).expect("bind the scripted server") }
    }

    /// Listens on a port that the agent discovers without being told.
    ///
    /// # Panics
    /// If all are taken.
    #[must_use]
    pub fn bind_discovered() -> Self {
        Self::bind_discovered_with(Ipv4Addr::LOCALHOST.into(), |_| {})
    }

    /// Likewise, on an address of its own, after `options` has set the socket up.
    ///
    /// # Panics
    /// If all are taken.
    #[must_use]
    pub fn bind_discovered_with(address: IpAddr, options: impl FnOnce(BorrowedFd<'_>)) -> Self {
        let free = |port: &u16| TcpListener::bind((address, *port)).is_ok();
        let port = (11400..=11500).find(free).expect("a free port in 11400-11500");
        Self::bind_with(SocketAddr::new(address, port), options)
    }

    /// Listens on an address after `options` has set the socket up; IPv6 sockets take IPv4 too.
    ///
    /// # Panics
    /// If the address is taken or an option is refused.
    #[must_use]
    pub fn bind_with(address: SocketAddr, options: impl FnOnce(BorrowedFd<'_>)) -> Self {
        let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        // The agent is started by this process, and must not hold the socket too.
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP)).expect("make a socket");
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, false).expect("take IPv4 as well");
        }
        // As std does: connections of an earlier test may still be in TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true).expect("take an address whose connections have ended");
        options(socket.as_fd());
        bind(&socket, &address).expect("bind the scripted server");
        listen(&socket, 128).expect("listen");
        Self { listener: socket.into() }
    }

    /// The port.
    ///
    /// # Panics
    /// Never, for a bound socket.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.listener.local_addr().expect("the listener is bound").port()
    }

    /// Connects a client over IPv4 loopback.
    #[must_use]
    pub fn connect(&self) -> Peer {
        Peer::connect((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Accepts one connection in a thread, which plays `script` on it; what the script returns is the truth.
    ///
    /// # Panics
    /// If the listener cannot be shared with the thread.
    pub fn serve<T: Send + 'static>(&self, script: impl FnOnce(Peer) -> T + Send + 'static) -> Playing<T> {
        let listener = self.listener.try_clone().expect("share the listener");
        Playing(thread::spawn(move || {
            let (stream, _) = listener.accept().expect("accept a connection");
            script(Peer::over(stream))
        }))
    }

    /// Lets a client send so many requests on a connection of their own, and answers them.
    ///
    /// # Panics
    /// If the connection does not let that happen.
    pub fn exchange(&self, requests: usize) {
        let response = answer("200 OK", "{}");
        let playing = self.answer_each(vec![(0, response.clone()); requests]);
        let mut client = self.connect();
        for _ in 0..requests {
            client.ask(get("/v1/models"), response.len());
        }
        playing.truth();
    }

    /// Accepts one connection and answers its requests in turn, each after so many milliseconds; when it answered.
    ///
    /// # Panics
    /// If the listener cannot be shared with the thread.
    pub fn answer_each(&self, answers: Vec<(u64, String)>) -> Playing<Vec<Stamp>> {
        self.serve(move |mut peer| {
            let answer_one = |(ms, answer): (u64, String)| {
                peer.read_message();
                pause(ms);
                peer.write(answer)
            };
            answers.into_iter().map(answer_one).collect()
        })
    }

    /// Accepts `connections` one after the other and answers each request on them alike until the client closes.
    ///
    /// # Panics
    /// If the listener cannot be shared with the thread.
    pub fn answer_all(&self, connections: usize, answer: String) -> Playing<()> {
        let listener = self.listener.try_clone().expect("share the listener");
        Playing(thread::spawn(move || {
            for _ in 0..connections {
                let (stream, _) = listener.accept().expect("accept a connection");
                let mut peer = Peer::over(stream);
                while peer.has_more() {
                    peer.read_message();
                    peer.write(&answer);
                }
            }
        }))
    }
}

impl From<TcpListener> for Server {
    fn from(listener: TcpListener) -> Self {
        Self { listener }
    }
}

/// A script that plays in its own thread.
#[derive(Debug)]
pub struct Playing<T>(JoinHandle<T>);

impl<T> Playing<T> {
    /// Waits for the script's end and takes its truth.
    ///
    /// # Panics
    /// With the script's own panic, if it failed.
    pub fn truth(self) -> T {
        self.0.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}
