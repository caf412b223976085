//! TLS to a receiver: a CA of one's own, and nobody else's.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::sending::{Sending, counting};
use tempfile::TempDir;

/// A CA, and a receiver with a certificate of it for `name`, which takes everything.
fn receiver(name: &str) -> (SocketAddr, String) {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let chain: Vec<CertificateDer<'static>> = vec![certificate.der().clone()];
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || answer(StreamOwned::new(connection, stream)));
        }
    });
    (addr, authority.pem())
}

fn answer(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>) {
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            if stream.read_exact(&mut byte).is_err() {
                return;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
        stream.read_exact(&mut vec![0; length]).unwrap();
        let taken = "HTTP/1.1 204 No Content\r\nX-Prometheus-Remote-Write-Samples-Written: 100000\r\n\r\n";
        stream.write_all(taken.as_bytes()).unwrap();
    }
}

fn sending(addr: SocketAddr, host: &str, ca: &str) -> (TempDir, Sending) {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, ca).unwrap();
    let url = format!("https://{host}:{}/write", addr.port());
    let sending = Sending::to(&url, &format!("      ca_file: {}", file.display()), counting());
    (dir, sending)
}

#[test]
fn a_receiver_with_a_certificate_of_the_configured_ca_is_trusted_by_name_and_by_address() {
    for (name, host) in [("localhost", "localhost"), ("127.0.0.1", "127.0.0.1")] {
        let (addr, ca) = receiver(name);
        let (_dir, sending) = sending(addr, host, &ca);
        let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 3);
        assert_eq!(numbers.rejected, 0);
    }
}

#[test]
fn nobody_else_gets_a_sample() {
    let (addr, _) = receiver("localhost");
    let (_, strange_ca) = receiver("localhost");
    let (other_addr, ca) = receiver("other.test");
    for (addr, ca) in [(addr, strange_ca), (other_addr, ca)] {
        let (_dir, sending) = sending(addr, "localhost", &ca);
        sending.wait("failure", |numbers| numbers.requests.iter().any(|(code, count)| code == "none" && *count >= 1));
        thread::sleep(Duration::from_millis(300));
        let numbers = sending.numbers();
        assert_eq!(numbers.acknowledged, 0);
        assert!(numbers.pending > 0, "it waits for a receiver that can be trusted");
    }
}

#[test]
fn a_ca_that_is_not_there_is_an_outage_that_ends_when_it_comes() {
    let (addr, ca) = receiver("localhost");
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("ca.pem");
    let url = format!("https://localhost:{}/write", addr.port());
    let sending = Sending::to(&url, &format!("      ca_file: {}", file.display()), counting());
    sending.wait("failure", |numbers| numbers.requests.iter().any(|(code, _)| code == "none") && numbers.pending >= 3);
    fs::write(&file, ca).unwrap();
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 5);
    assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0));
}
