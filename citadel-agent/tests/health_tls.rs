//! Health probes of a server that speaks TLS.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::config::resolved::probing::{Access, Own, Scheme};
use citadel_agent::metrics::catalogue::Section;
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::health::Probes;
use citadel_agent::sources::{self, Health, Origin};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::origin::{Nothing, text};
use support::text::parse;

/// A server with TLS, and with the certificate `pem`.
struct Server {
    port: u16,
    pem: String,
    /// Requests that came, decrypted.
    requests: Arc<Mutex<Vec<String>>>,
    /// Connections that were no TLS.
    plain: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(vec!["model.test".to_owned()]).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], PrivateKeyDer::Pkcs8(signing_key.serialize_der().into()))
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (requests, plain) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (log, strangers) = (Arc::clone(&requests), Arc::clone(&plain));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
                let (log, strangers) = (Arc::clone(&log), Arc::clone(&strangers));
                thread::spawn(move || {
                    let mut stream = StreamOwned::new(connection, stream);
                    let (mut head, mut piece) = (String::new(), [0; 4096]);
                    while !head.ends_with("\r\n\r\n") {
                        match stream.read(&mut piece) {
                            Ok(length) if length > 0 => head += &String::from_utf8_lossy(&piece[..length]),
                            // As a server does that was spoken to in the clear.
                            _ => {
                                strangers.fetch_add(1, Ordering::SeqCst);
                                return;
                            }
                        }
                    }
                    log.lock().unwrap().push(head);
                    _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
                    stream.conn.send_close_notify();
                    _ = stream.flush();
                });
            }
        });
        Self { port, pem: cert.pem(), requests, plain }
    }

    /// The probes of this server.
    fn probes(&self, access: Access) -> Probes {
        let mut models = Config::default().models;
        models.health_interval = Duration::from_millis(50);
        models.own.insert(self.port.to_string(), Own { access, ..Own::default() });
        let mut probes = Probes::new(&models, Arc::new(|_, _| Ok(Box::new(()))));
        probes.set_ports(&[self.port].into());
        probes
    }
}

/// `citadel_model_up`, once there have been some rounds.
async fn up(server: &Server, access: Access) -> Option<f64> {
    let probes = server.probes(access);
    let begin = Instant::now();
    loop {
        let mut nothing = Nothing::default();
        let mut origin = Origin { probes: Some(&probes), ..nothing.origin() };
        let page = sources::collect(Some(Section::Models), &mut origin, &mut Health::default());
        let page = parse(&text(page, Format::Text));
        let (model, port) = (format!("port-{}", server.port), server.port.to_string());
        let up = page.value("citadel_model_up", &[("model", model.as_str()), ("port", port.as_str())]);
        let asked = page.samples.keys().filter(|(name, _)| name == "citadel_model_probe_success").count();
        if up.is_some() && asked >= 2 {
            return up;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no answer");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_healthy_server_with_tls_is_up_and_soon_left_alone_in_the_clear() {
    let server = Server::start();
    assert_eq!(up(&server, Access::default()).await, Some(1.0));
    // One question in the clear, and then never again.
    assert_eq!(server.plain.load(Ordering::SeqCst), 1);
    assert_eq!(up(&server, Access { scheme: Scheme::Https, ..Access::default() }).await, Some(1.0));
    assert_eq!(server.plain.load(Ordering::SeqCst), 1);
    // Somebody who says that it is none is believed.
    assert_eq!(up(&server, Access { scheme: Scheme::Http, ..Access::default() }).await, Some(0.0));
}

#[tokio::test]
async fn a_certificate_that_is_named_is_the_only_one_that_is_taken() {
    let (server, other) = (Server::start(), Server::start());
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        fs::write(&path, pem).unwrap();
        Some(path)
    };
    let pinned = |certificate_file| Access { scheme: Scheme::Https, certificate_file, ..Access::default() };
    assert_eq!(up(&server, pinned(file("own.pem", &server.pem))).await, Some(1.0));
    assert_eq!(up(&server, pinned(file("other.pem", &other.pem))).await, Some(0.0));
    assert_eq!(up(&server, pinned(file("empty.pem", ""))).await, Some(0.0));
    assert_eq!(up(&server, pinned(Some(directory.path().join("none.pem")))).await, Some(0.0));
    let auto = Access { certificate_file: file("other.pem", &other.pem), ..Access::default() };
    assert_eq!(up(&server, auto).await, Some(0.0));
}

#[tokio::test]
async fn a_key_is_sent_to_nobody_whose_certificate_is_not_verified() {
    let server = Server::start();
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    fs::write(&key, "s3cret").unwrap();
    let access = Access { scheme: Scheme::Https, api_key_file: Some(key), ..Access::default() };
    assert_eq!(up(&server, access.clone()).await, Some(0.0));
    assert!(server.requests.lock().unwrap().is_empty());
    let certificate = directory.path().join("own.pem");
    fs::write(&certificate, &server.pem).unwrap();
    assert_eq!(up(&server, Access { certificate_file: Some(certificate), ..access }).await, Some(1.0));
    assert!(server.requests.lock().unwrap().iter().all(|head| head.contains("authorization: Bearer s3cret")));
}
