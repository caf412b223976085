//! A server in a process of its own, and its clients.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use citadel_agent_tests::tools::{fixture, program};
use citadel_agent_tests::truth::pause;
use rustix::net::sockopt::set_socket_recv_buffer_size;

/// What clients do besides what they always do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    Reads = 0,
    /// Closes the connection at the first bytes of the answer.
    HangsUp = 1,
    /// Takes its answer in small bites, with little room for what it has not read.
    ReadsSlowly = 2,
}

/// A server in a process of its own, and its clients.
pub(crate) struct Model {
    pub(crate) port: u16,
    server: Child,
    commands: ChildStdin,
    habit: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Model {
    pub(crate) fn start(port: u16, folder: &Path) -> Self {
        // Above everything else that this machine does, as far as the machine's load is not what is planted.
        let mut command = Command::new("nice");
        command.args(["-n", "-10"]).arg(program("python3", "python3")).arg("-S").arg(fixture("planted.py"));
        command.arg(port.to_string()).arg(folder.join(port.to_string()));
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start the server");
        let mut line = String::new();
        BufReader::new(server.stdout.take().expect("its output")).read_line(&mut line).expect("read its output");
        assert_eq!(line, "ready\n");
        let commands = server.stdin.take().expect("its input");
        Self { port, server, commands, habit: Arc::default(), stop: Arc::default(), clients: Vec::new() }
    }

    /// The process that listens.
    pub(crate) fn pid(&self) -> u32 {
        self.server.id()
    }

    /// Starts clients, each with about three requests a second.
    pub(crate) fn load(&mut self, clients: u64) {
        for client in 0..clients {
            let (port, habit, stop) = (self.port, Arc::clone(&self.habit), Arc::clone(&self.stop));
            self.clients.push(thread::spawn(move || {
                let mut chance = Chance(u64::from(port) << 8 | client);
                while !stop.load(Ordering::Relaxed) {
                    // A connection that the server or the network ends is none of the client's business here.
                    _ = session(port, &habit, &stop, &mut chance);
                }
            }));
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        self.commands.write_all(format!("{line}\n").as_bytes()).expect("tell the server");
    }

    pub(crate) fn behave(&self, habit: Habit) {
        self.habit.store(habit as u32, Ordering::Relaxed);
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        _ = self.server.kill();
        _ = self.server.wait();
        self.clients.drain(..).for_each(|client| _ = client.join());
    }
}

const REQUEST: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n";

/// A request that the server never answers; it is given up with the value.
pub(crate) fn hanging_request(port: u16) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    stream.write_all(format!("{REQUEST}x-hang: 1\r\n\r\n{{}}").as_bytes()).expect("send a request");
    stream
}

/// Pauses of different lengths: clients in step would miss what a server does at regular times.
struct Chance(u64);

impl Chance {
    fn pause(&mut self) {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pause(100 + (self.0 >> 33) % 300);
    }
}

/// Requests over one connection, one after the other, about three a second, as long as the client's habit stays.
fn session(port: u16, habit: &AtomicU32, stop: &AtomicBool, chance: &mut Chance) -> io::Result<()> {
    chance.pause();
    let now = habit.load(Ordering::Relaxed);
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    if now == Habit::ReadsSlowly as u32 {
        set_socket_recv_buffer_size(&stream, 16 * 1024)?;
    }
    while !stop.load(Ordering::Relaxed) && habit.load(Ordering::Relaxed) == now {
        stream.write_all(format!("{REQUEST}\r\n{{}}").as_bytes())?;
        let (mut tail, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            if now == Habit::HangsUp as u32 {
                // The rest of the answer is still to come.
                return Ok(());
            }
            if now == Habit::ReadsSlowly as u32 && !stop.load(Ordering::Relaxed) {
                pause(10);
            }
            tail.extend(&buffer[..count]);
            let keep = tail.len().saturating_sub(5);
            if tail.ends_with(b"0\r\n\r\n") || tail.starts_with(b"HTTP/1.1 503") {
                break;
            }
            if !tail.starts_with(b"HTTP") || tail.len() > 500 {
                tail.drain(..keep);
            }
        }
        chance.pause();
    }
    Ok(())
}
