//! TLS to a receiver: a CA of one's own, and nobody else's.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::sending::{Sending, counting};
use tempfile::TempDir;

/// A CA.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of `authority` for `name`, and its key.
fn issued(authority: &CertifiedIssuer<'static, KeyPair>, name: &str) -> (Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap(), key)
}

/// A CA, and a receiver with a certificate of it for `name`, which takes everything.
fn receiver(name: &str) -> (SocketAddr, String) {
    let authority = authority();
    (serve(&authority, name, false, &[]), authority.pem())
}

/// TLS of a server that asks for certificates of its own CA where `mutual`, and offers these protocols.
fn server_config(
    authority: &CertifiedIssuer<'static, KeyPair>,
    name: &str,
    mutual: bool,
    protocols: &[&str],
) -> Arc<ServerConfig> {
    let (certificate, key) = issued(authority, name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if mutual {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

fn serve(authority: &CertifiedIssuer<'static, KeyPair>, name: &str, mutual: bool, protocols: &[&str]) -> SocketAddr {
    let config = server_config(authority, name, mutual, protocols);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            thread::spawn(move || answer(StreamOwned::new(connection, stream)));
        }
    });
    addr
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

/// A renewed CA: what was read first no longer matches, and no reload is needed.
#[test]
fn a_ca_file_is_read_again_when_it_changes() {
    let (addr, ca) = receiver("localhost");
    let (_, strange) = receiver("localhost");
    let (dir, sending) = sending(addr, "localhost", &strange);
    sending.wait("failure", |numbers| numbers.requests.iter().any(|(code, _)| code == "none"));
    // As certificate managers do it: another file under the same name.
    let new = dir.path().join("new.pem");
    fs::write(&new, ca).unwrap();
    fs::rename(&new, dir.path().join("ca.pem")).unwrap();
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 5);
    assert_eq!((numbers.rejected, numbers.dropped.len()), (0, 0));
    // Half a renewal changes nothing: what was read before goes on.
    fs::write(dir.path().join("ca.pem"), "-----BEGIN CERT").unwrap();
    let before = sending.numbers().acknowledged;
    sending.wait("acknowledgement", |numbers| numbers.acknowledged >= before + 5);
}

#[test]
fn a_receiver_that_asks_for_a_certificate_gets_the_configured_one() {
    let authority = authority();
    let addr = serve(&authority, "localhost", true, &[]);
    let (_dir, without) = sending(addr, "localhost", &authority.pem());
    without.wait("failure", |numbers| numbers.requests.iter().any(|(code, _)| code == "none"));
    assert_eq!(without.numbers().acknowledged, 0);

    let dir = TempDir::new().unwrap();
    let (certificate, key) = issued(&authority, "agent.test");
    let path = |name: &str| dir.path().join(name).display().to_string();
    for (name, pem) in [("ca", authority.pem()), ("cert", certificate.pem()), ("key", key.serialize_pem())] {
        fs::write(path(name), pem).unwrap();
    }
    let more =
        format!("      ca_file: {}\n      cert_file: {}\n      key_file: {}", path("ca"), path("cert"), path("key"));
    let sending = Sending::to(&format!("https://localhost:{}/write", addr.port()), &more, counting());
    let numbers = sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 3);
    assert_eq!(numbers.rejected, 0);
}

#[test]
fn http_2_is_spoken_where_the_receiver_offers_it() {
    let authority = authority();
    let config = server_config(&authority, "localhost", false, &["h2"]);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            listener.set_nonblocking(true).unwrap();
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(config);
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let stream = acceptor.accept(stream).await.unwrap();
                let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
                    assert_eq!(request.version(), hyper::Version::HTTP_2);
                    request.into_body().collect().await?;
                    let response = hyper::Response::builder()
                        .status(204)
                        .header("X-Prometheus-Remote-Write-Samples-Written", "100000")
                        .body(Empty::<Bytes>::new());
                    Ok::<_, hyper::Error>(response.unwrap())
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    let (_dir, sending) = sending(addr, "localhost", &authority.pem());
    sending.wait("acknowledgement", |numbers| numbers.acknowledged >= 3);
}
