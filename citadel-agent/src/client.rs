//! One receiver over HTTP: a connection that is kept, one request at a time.
//!
//! hyper's client without a pool above it, because one request in flight is the rule for all who send: remote write and
//! alerts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::resolved::Access;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// So much of what a receiver says is kept: the beginning says what is wrong.
const WORDS: usize = 1024;

/// What comes after that is still read, so that the connection can be kept.
const MAX_ANSWER: usize = 64 << 10;

/// A URL that no request can be sent to. The configuration takes none of these.
#[derive(Debug, thiserror::Error)]
#[error("{url} is not a URL that anything can be sent to")]
pub struct UrlError {
    /// It.
    pub url: String,
}

/// Why there is no TLS: an outage like any other, for the file may come yet.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    /// The CAs cannot be had.
    #[error("cannot read CA certificates from {from}: {error}")]
    Roots { from: String, error: String },
    /// TLS cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// A receiver.
pub struct Client {
    uri: Uri,
    host: String,
    port: u16,
    /// Whether it is https.
    encrypted: bool,
    /// The CAs to trust; `None`: the host's.
    ca_file: Option<PathBuf>,
    /// TLS, once it was needed.
    tls: Option<TlsConnector>,
    credentials: Credentials,
    timeout: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// What came back for a request; that nothing did is an answer too.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status; `None` when there was none: no connection, time over, an answer cut off.
    pub status: Option<u16>,
    /// What it said when it was no success, or what went wrong.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The header fields.
    pub headers: HeaderMap,
}

/// What says who we are. Files are read for each request, so that a new token needs no reload.
enum Credentials {
    None,
    Basic { username: String, password_file: PathBuf },
    Bearer { token_file: PathBuf },
}

impl Client {
    /// A client for the receiver at `url`; a request may take so long.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn new(url: &str, access: &Access, timeout: Duration) -> Result<Self, UrlError> {
        let wrong = || UrlError { url: url.to_owned() };
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        let encrypted = uri.scheme_str() == Some("https");
        // A URL has an IPv6 address in brackets, and the resolver wants none.
        let host = uri.host().ok_or_else(wrong)?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let credentials = match (&access.username, &access.password_file, &access.bearer_token_file) {
            (Some(username), Some(file), _) => {
                Credentials::Basic { username: username.clone(), password_file: file.clone() }
            }
            (_, _, Some(file)) => Credentials::Bearer { token_file: file.clone() },
            _ => Credentials::None,
        };
        Ok(Self {
            uri,
            host,
            port,
            encrypted,
            ca_file: access.ca_file.clone(),
            tls: None,
            credentials,
            timeout,
            connection: None,
        })
    }

    /// Posts `body` under these header fields, besides those that every request has, and gives what came back.
    pub async fn post(&mut self, own: &[(HeaderName, &'static str)], body: impl Into<Bytes>) -> Reply {
        let nothing = |words: String| Reply { status: None, words, retry_after: None, headers: HeaderMap::new() };
        let headers = match self.headers(own) {
            Ok(headers) => headers,
            Err(error) => return nothing(error.to_string()),
        };
        let body = body.into();
        let limit = self.timeout;
        let exchange = async {
            // A kept connection may have been closed by the other side just now; that says nothing about the receiver.
            let kept = self.connection.is_some();
            match self.exchange(&headers, &body).await {
                Err(_) if kept => self.exchange(&headers, &body).await,
                result => result,
            }
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                self.connection = None;
                nothing(chain(error.as_ref()))
            }
            Err(_) => {
                self.connection = None;
                nothing(format!("no answer within {}", humantime::format_duration(limit)))
            }
        }
    }

    async fn exchange(&mut self, headers: &HeaderMap, body: &Bytes) -> Result<Reply, Error> {
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.ready().await.is_err()
        {
            kept = None;
        }
        let mut connection = match kept {
            Some(connection) => connection,
            None => tokio::time::timeout(CONNECT, self.connect()).await.map_err(|_| "cannot connect in time")??,
        };
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut request = Request::builder().method(Method::POST).uri(target).body(Full::new(body.clone()))?;
        *request.headers_mut() = headers.clone();
        let response = connection.send_request(request).await?;
        let (head, rest) = response.into_parts();
        let mut reply = Reply {
            status: Some(head.status.as_u16()),
            words: String::new(),
            retry_after: head.headers.get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now())),
            headers: head.headers,
        };
        // With a 2xx what was sent is there, whatever becomes of the rest; and what a 2xx says is not read.
        match Limited::new(rest, MAX_ANSWER).collect().await {
            Ok(words) => {
                self.connection = Some(connection);
                if !head.status.is_success() {
                    reply.words = words_of(&words.to_bytes());
                }
            }
            Err(_) if head.status.is_success() => {}
            Err(error) => reply.words = format!("(its words were cut off: {error})"),
        }
        Ok(reply)
    }

    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        if !self.encrypted {
            return handshake(stream).await;
        }
        let connector = match &self.tls {
            Some(connector) => connector.clone(),
            None => self.tls.insert(tls(self.ca_file.as_deref())?).clone(),
        };
        handshake(connector.connect(ServerName::try_from(self.host.clone())?, stream).await?).await
    }

    fn headers(&self, own: &[(HeaderName, &'static str)]) -> io::Result<HeaderMap> {
        let mut headers = HeaderMap::with_capacity(6);
        let authority = self.uri.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(io::Error::other)?);
        headers.extend(own.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("citadel-agent/", env!("CARGO_PKG_VERSION"))));
        let secret = |path: &Path| {
            let text = fs::read_to_string(path);
            text.map_err(|error| io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display())))
        };
        let authorization = match &self.credentials {
            Credentials::None => return Ok(headers),
            Credentials::Basic { username, password_file } => {
                let password = secret(password_file)?;
                let pair = format!("{username}:{}", password.trim_end_matches(['\r', '\n']));
                format!("Basic {}", BASE64_STANDARD.encode(pair))
            }
            Credentials::Bearer { token_file } => format!("Bearer {}", secret(token_file)?.trim()),
        };
        let mut value = HeaderValue::from_str(&authorization)
            .map_err(|_| io::Error::other("the credentials hold what no header can"))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(headers)
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Begins HTTP/1.1 on `stream`; a task of its own moves the bytes, and ends with the connection.
async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, Error> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move { _ = connection.await });
    Ok(sender)
}

/// TLS that trusts the CAs in `file`, or the host's.
fn tls(file: Option<&Path>) -> Result<TlsConnector, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(file) => {
            let wrong = |error: &dyn std::fmt::Display| TlsError::Roots {
                from: file.display().to_string(),
                error: error.to_string(),
            };
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| wrong(&error))? {
                roots.add(certificate.map_err(|error| wrong(&error))?)?;
            }
            if roots.is_empty() {
                return Err(wrong(&"it holds no certificate"));
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            // Stores hold certificates that no library takes; what matters is that there are any.
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                let error = found.errors.first().map_or_else(|| "there are none".to_owned(), ToString::to_string);
                return Err(TlsError::Roots { from: "this host's store".to_owned(), error });
            }
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Seconds, or a date ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

/// What a receiver said, on one line and not too long.
fn words_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(WORDS)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error and what caused it.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 10:00:00 GMT").unwrap();
        let parse = |text| retry_after(&HeaderValue::from_static(text), now);
        assert_eq!(parse("120"), Some(Duration::from_secs(120)));
        assert_eq!(parse("Tue, 24 Nov 2026 10:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(parse("Tue, 24 Nov 2026 09:59:00 GMT"), None);
        assert_eq!(parse("-1"), None);
        assert_eq!(parse("soon"), None);
    }
}
