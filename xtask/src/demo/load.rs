//! A small load of chat completions, like that of a model's clients.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Clients that send requests until told to stop.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients` clients per port; each sends one completion request after the other.
    pub(super) fn start(ports: impl Iterator<Item = u16>, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |port| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                for number in 0_u32.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    if complete(port, Manner::of(number)).is_err() {
                        // The model is gone or slow; the demo notices that itself, and the client just retries.
                        thread::sleep(Duration::from_millis(200));
                    }
                }
            })
        };
        let clients = ports.flat_map(|port| std::iter::repeat_n(port, clients)).map(client).collect();
        Self { stop, clients }
    }

    /// Lets every client finish its current request.
    pub(super) fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            // A client that panicked has nothing left to finish.
            let _ = client.join();
        }
    }
}

/// How a client requests a completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Streamed,
    Whole,
    /// Streamed, and the client disconnects in the middle.
    Aborted,
}

impl Manner {
    /// Of ten requests one is aborted and two are not streamed.
    fn of(number: u32) -> Self {
        match number % 10 {
            4 | 9 => Self::Whole,
            6 => Self::Aborted,
            _ => Self::Streamed,
        }
    }
}

fn complete(port: u16, manner: Manner) -> std::io::Result<()> {
    let stream = manner != Manner::Whole;
    let body = format!(r#"{{"model":"demo","stream":{stream},"messages":[{{"role":"user","content":"Hello"}}]}}"#);
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let head = "POST /v1/chat/completions HTTP/1.1\r\nConnection: close\r\nContent-Type: application/json";
    write!(connection, "{head}\r\nHost: localhost:{port}\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;

    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = connection.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let events = || answer.windows(6).filter(|window| window == b"data: ").count();
        if read == 0 || (manner == Manner::Aborted && events() >= 3) {
            return Ok(());
        }
    }
}
