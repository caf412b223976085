//! What a web configuration file demands: TLS, certificates of clients, passwords, a rate; and names of the host.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use citadel_agent::http::{Content, Guard, Limits};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::support::Server;
use super::support::client::{PATIENCE, Response, connect, get, parse};
use super::{SHORT, fake};

/// A folder with a web configuration file and what it names, and the CA of all certificates.
struct Folder {
    dir: TempDir,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Folder {
    /// `text` is the web configuration file. There are `server.pem`, `server.key` and `ca.pem` beside it.
    fn new(text: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = Self { dir: TempDir::new().unwrap(), authority };
        folder.issue("server", "localhost");
        folder.write("ca.pem", &folder.authority.pem());
        folder.write("web.yml", text);
        folder
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("web.yml")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(name)).unwrap()
    }

    /// A certificate for `name`, in the files of `file`.
    fn issue(&self, file: &str, name: &str) {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.authority).unwrap();
        self.write(&format!("{file}.pem"), &certificate.pem());
        self.write(&format!("{file}.key"), &key.serialize_pem());
    }

    fn server(&self, content: Content) -> Server {
        Server::guarded(content, fake(), Limits::default(), Some(&self.file()))
    }

    /// A request by TLS, with the certificate in the files of `identity`. `None`: there is no connection.
    fn get(&self, addr: SocketAddr, identity: Option<&str>, path: &str) -> Option<(Response, Vec<u8>)> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(name) => {
                let certificate = CertificateDer::from_pem_slice(&self.read(&format!("{name}.pem"))).unwrap();
                let key = PrivateKeyDer::from_pem_slice(&self.read(&format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(vec![certificate], key).unwrap()
            }
        };
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), connect(addr));
        write!(stream, "GET {path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n").ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let shown = stream.conn.peer_certificates()?[0].to_vec();
        Some((parse(&bytes), shown))
    }
}

const TLS: &str = "tls_server_config: { cert_file: server.pem, key_file: server.key }\n";

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn pages_come_over_tls_and_not_in_the_clear() {
    let folder = Folder::new(TLS);
    let server = folder.server(Content::Metrics);
    let (answer, _) = folder.get(server.addr, None, "/metrics").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("citadel_model_requests_total"));
    // The name is the certificate's matter there.
    assert_eq!(folder.get(server.addr, None, "/").unwrap().0.status, 200);

    let clear = get(server.addr, "/metrics", "");
    assert_eq!(clear.status, 400);
    assert_eq!(clear.text(), "Client sent an HTTP request to an HTTPS server.\n");
    assert_eq!(server.refused("tls"), 1);
}

#[test]
fn a_handshake_that_does_not_end_takes_no_longer_than_a_request_may() {
    let folder = Folder::new(TLS);
    let limits = Limits { request: SHORT, ..Limits::default() };
    let server = Server::guarded(Content::Metrics, fake(), limits, Some(&folder.file()));
    let mut stream = connect(server.addr);
    // The beginning of a record.
    stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    assert!(super::is_closed(&mut stream, PATIENCE));
    assert_eq!(server.dropped("request_timeout"), 1);
    assert_eq!(folder.get(server.addr, None, "/metrics").unwrap().0.status, 200);
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_never() {
    let folder = Folder::new(TLS);
    let server = folder.server(Content::Metrics);
    let shown = || folder.get(server.addr, None, "/metrics").map(|(_, certificate)| certificate);
    let first = shown().unwrap();
    folder.issue("server", "localhost");
    until("the new certificate", || shown().is_some_and(|now| now != first));
    let second = shown().unwrap();
    folder.write("server.key", "no key");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(shown().unwrap(), second);
    folder.issue("server", "localhost");
    until("the third certificate", || shown().is_some_and(|now| now != second && now != first));
}

#[test]
fn only_clients_with_a_certificate_of_the_ca_and_one_of_the_names_get_in() {
    let text = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n  client_ca_file: ca.pem\n  \
                client_auth_type: RequireAndVerifyClientCert\n  client_allowed_sans: [prometheus.example, 192.0.2.7]\n";
    let folder = Folder::new(text);
    for (file, name) in [("right", "prometheus.example"), ("address", "192.0.2.7"), ("other", "grafana.example")] {
        folder.issue(file, name);
    }
    let stranger = Folder::new(TLS);
    stranger.issue("right", "prometheus.example");
    for file in ["right.pem", "right.key"] {
        folder.write(&format!("stranger-{file}"), &String::from_utf8(stranger.read(file)).unwrap());
    }
    let server = folder.server(Content::Metrics);
    for right in ["right", "address"] {
        assert_eq!(folder.get(server.addr, Some(right), "/metrics").unwrap().0.status, 200, "{right}");
    }
    for wrong in [None, Some("other"), Some("stranger-right")] {
        assert!(folder.get(server.addr, wrong, "/metrics").is_none(), "{wrong:?}");
    }
    // The client may know of it before the server has counted it.
    until("three refusals", || server.refused("tls") == 3);
}

fn users(password: &str) -> String {
    // The lowest cost, so that the test is quick.
    let hash = bcrypt::hash_with_result(password, 4).unwrap().format_for_version(bcrypt::Version::TwoY);
    format!("basic_auth_users: {{ alice: {hash} }}\n")
}

fn login(name: &str, password: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{password}")))
}

#[test]
fn everything_but_health_needs_the_password_and_a_changed_one_holds_at_once() {
    let folder = Folder::new(&users("secret"));
    let (metrics, health) = (folder.server(Content::Metrics), folder.server(Content::Health));
    for path in ["/", "/metrics", "/metrics/models", "/nothing"] {
        let refused = get(metrics.addr, path, "");
        assert_eq!(refused.status, 401, "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Basic realm=\"citadel-agent\", charset=\"UTF-8\""));
        assert!(!refused.text().contains("metrics"), "it tells what there is: {}", refused.text());
        assert_eq!(get(metrics.addr, path, &login("alice", "Secret")).status, 401, "{path}");
    }
    assert_eq!(metrics.refused("credentials"), 8);
    for path in ["/", "/metrics", "/metrics/models"] {
        assert_eq!(get(metrics.addr, path, &login("alice", "secret")).status, 200, "{path}");
    }
    assert_eq!(get(health.addr, "/health", "").status, 200);
    for path in ["/ready", "/status"] {
        assert_eq!(get(health.addr, path, "").status, 401, "{path}");
    }

    folder.write("web.yml", &users("changed"));
    until("the new password", || get(metrics.addr, "/metrics", &login("alice", "changed")).status == 200);
    assert_eq!(get(metrics.addr, "/metrics", &login("alice", "secret")).status, 401);
    // A file that is emptied lets nobody in.
    folder.write("web.yml", "");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(get(metrics.addr, "/metrics", "").status, 401);
    assert_eq!(get(metrics.addr, "/metrics", &login("alice", "changed")).status, 200);
}

#[test]
fn who_guesses_is_told_to_wait_and_who_is_known_is_not() {
    let folder = Folder::new(&users("secret"));
    let server = folder.server(Content::Metrics);
    assert_eq!(get(server.addr, "/metrics", &login("alice", "secret")).status, 200);
    let statuses: Vec<_> =
        (0..15).map(|i| get(server.addr, "/metrics", &login("alice", &i.to_string())).status).collect();
    assert!(statuses[..10].iter().all(|status| *status == 401), "{statuses:?}");
    let refused = get(server.addr, "/metrics", &login("alice", "guess"));
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("6")));
    assert_eq!(get(server.addr, "/metrics", &login("alice", "secret")).status, 200);
}

#[test]
fn more_requests_than_the_rate_allows_are_refused() {
    let folder = Folder::new(
        "rate_limit: { interval: 1h, burst: 3 }\nhttp_server_config: { headers: { X-Frame-Options: deny } }\n",
    );
    let (metrics, health) = (folder.server(Content::Metrics), folder.server(Content::Health));
    let statuses: Vec<_> = (0..5).map(|_| get(metrics.addr, "/metrics", "").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    assert_eq!(metrics.refused("rate_limit"), 2);
    assert_eq!(get(metrics.addr, "/metrics", "").header("x-frame-options"), Some("deny"));
    assert!((0..10).all(|_| get(health.addr, "/health", "").status == 200));
}

#[test]
fn a_page_elsewhere_cannot_read_this_one_through_a_browser() {
    let (metrics, health) = (
        Server::start(Content::Metrics, fake(), Limits::default()),
        Server::start(Content::Health, fake(), Limits::default()),
    );
    let ask = |addr, path: &str, host: &str| {
        let mut stream = connect(addr);
        write!(stream, "GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n").unwrap();
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        parse(&bytes)
    };
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (addr, path) in [(metrics.addr, "/"), (health.addr, "/status")] {
        let answer = ask(addr, path, "Host: rebound.example:8000\r\n");
        assert_eq!(answer.status, 421, "{path}");
        assert!(answer.text().contains("local_collection.allowed_hosts"), "{}", answer.text());
        for own in ["Host: 127.0.0.1:8000\r\n", "Host: localhost\r\n", &format!("Host: {name}:8000\r\n")] {
            assert_eq!(ask(addr, path, own).status, 200, "{path} {own}");
        }
    }
    assert_eq!((metrics.refused("host"), health.refused("host")), (1, 1));
    // A scraper may know the host by any name, and so may a load balancer.
    assert_eq!(ask(metrics.addr, "/metrics", "Host: rebound.example\r\n").status, 200);
    assert_eq!(ask(health.addr, "/health", "Host: rebound.example\r\n").status, 200);
}

#[test]
fn a_file_that_cannot_be_used_is_said_with_what_is_wrong() {
    let folder = Folder::new("tls_server_config: { cert_file: server.pem, key_file: none.key }\n");
    let error = || Guard::prepare(Some(&folder.file())).unwrap_err().to_string();
    assert!(
        error().contains("web.yml: tls_server_config: cannot read ") && error().contains("none.key"),
        "{}",
        error()
    );
    folder.write("web.yml", "tls_server_config: { cert_file: ca.pem, key_file: server.key }\n");
    assert!(error().contains("tls_server_config"), "{}", error());
    folder
        .write("web.yml", "tls_server_config: { cert_file: server.pem, key_file: server.key, cipher_suites: [RC4] }\n");
    assert!(error().contains("there is no RC4; there are: TLS_ECDHE_"), "{}", error());
    folder.write("web.yml", "basic_auth_users:\n  alice: secret\n");
    assert!(error().contains("web.yml:2:10: basic_auth_users.alice: is not a bcrypt hash"), "{}", error());
}
