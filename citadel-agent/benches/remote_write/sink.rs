//! A receiver that accepts and discards everything, or is down.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

pub(crate) struct Sink {
    pub(crate) addr: SocketAddr,
    pub(crate) open: Arc<AtomicBool>,
    pub(crate) bytes: Arc<AtomicU64>,
}

impl Sink {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let addr = listener.local_addr().expect("an address");
        let (open, bytes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
        let (door, count) = (Arc::clone(&open), Arc::clone(&bytes));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (door, count) = (Arc::clone(&door), Arc::clone(&count));
                thread::spawn(move || take(stream, &door, &count));
            }
        });
        Self { addr, open, bytes }
    }

    pub(crate) fn received(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

fn take(mut stream: TcpStream, open: &AtomicBool, bytes: &AtomicU64) {
    while let Some((head, body)) = request(&mut stream) {
        if !open.load(Ordering::SeqCst) {
            return;
        }
        bytes.fetch_add(body.len() as u64, Ordering::SeqCst);
        // The largest possible number: nobody counts here.
        let written =
            if head.contains("write.v2") { "X-Prometheus-Remote-Write-Samples-Written: 2000\r\n" } else { "" };
        if stream.write_all(format!("HTTP/1.1 204 No Content\r\n{written}\r\n").as_bytes()).is_err() {
            return;
        }
    }
}

/// A request's head, in lower case, and its body.
pub(crate) fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}
