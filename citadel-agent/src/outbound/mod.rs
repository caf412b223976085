//! HTTP clients for everything that the agent sends: remote write, alerts and logs, one client per destination.
//!
//! reqwest with rustls: HTTP/2 if the server offers it over TLS, one connection kept alive, IPv6 and IPv4 addresses
//! tried in parallel ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305)), names resolved for each connection.
//! Redirects are not followed. `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` apply as for curl, but never for
//! this host itself.

pub mod backoff;
mod tls;

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::Url;
use reqwest::redirect::Policy;
use tracing::{info, warn};

use crate::config::resolved::Access;
use crate::credentials;
use crate::host::files::FileVersion;

/// Connect timeout, for all addresses together.
const CONNECT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept.
const IDLE: Duration = Duration::from_secs(90);

/// After a failure, a client older than this is recreated, because the host's CAs may have changed.
const OLD: Duration = Duration::from_secs(600);

/// Maximum length of a receiver's message in the log.
const WORDS: usize = 1024;

/// Maximum length of a response that is read; a longer one closes the connection.
const MAX_ANSWER: usize = 64 << 10;

/// A URL that requests cannot be sent to. The configuration rejects these.
#[derive(Debug, thiserror::Error)]
#[error("cannot send to URL {url}")]
pub struct UrlError {
    /// The URL.
    pub url: String,
}

/// A client for one receiver.
pub struct Client {
    url: Url,
    access: Access,
    timeout: Duration,
    made: Option<Made>,
    #[cfg(test)]
    resolver: Option<std::sync::Arc<tests::Names>>,
}

/// A client, and the versions of the files that it was created from.
struct Made {
    client: reqwest::Client,
    at: Instant,
    versions: [Option<FileVersion>; 3],
}

/// The outcome of a request, including failures.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status; `None` if there was no response: connection failed, timeout, truncated response.
    pub status: Option<u16>,
    /// The response text if it was not a success, or the error.
    pub words: String,
    /// `Retry-After`.
    pub retry_after: Option<Duration>,
    /// The header fields.
    pub headers: HeaderMap,
    /// The beginning of the response body, unmodified.
    pub body: Vec<u8>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

impl Client {
    /// A client for the receiver at `url`, with a timeout per request.
    ///
    /// # Errors
    /// See [`UrlError`].
    pub fn new(url: &str, access: &Access, timeout: Duration) -> Result<Self, UrlError> {
        let wrong = || UrlError { url: url.to_owned() };
        let parsed: Url = url.parse().map_err(|_| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
            return Err(wrong());
        }
        Ok(Self {
            url: parsed,
            access: access.clone(),
            timeout,
            made: None,
            #[cfg(test)]
            resolver: None,
        })
    }

    /// Posts `body` with these header fields in addition to the common ones.
    pub async fn post(&mut self, own: &[(HeaderName, &'static str)], body: impl Into<Bytes>) -> Reply {
        match self.exchange(own, body.into()).await {
            Ok(reply) => reply,
            Err(error) => {
                self.made = self.made.take().filter(|made| made.at.elapsed() < OLD);
                Reply {
                    status: None,
                    words: chain(error.as_ref()),
                    retry_after: None,
                    headers: HeaderMap::new(),
                    body: Vec::new(),
                }
            }
        }
    }

    /// Gets another path on the same server with the same credentials; `None` if it fails or is longer than `limit`
    /// bytes.
    pub async fn get(&mut self, path: &str, limit: usize) -> Option<Vec<u8>> {
        let headers = self.headers(&[]).ok()?;
        let url = self.url.join(path).ok()?;
        let mut response = self.client().ok()?.get(url).headers(headers).send().await.ok()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.ok()? {
            body.extend_from_slice(&chunk);
            if body.len() > limit {
                return None;
            }
        }
        response.status().is_success().then_some(body)
    }

    async fn exchange(&mut self, own: &[(HeaderName, &'static str)], body: Bytes) -> Result<Reply, Error> {
        let headers = self.headers(own)?;
        let limit = self.timeout;
        let url = self.url.clone();
        let request = self.client()?.post(url).headers(headers).body(body);
        let failed = |error: reqwest::Error| -> Error {
            match error.is_timeout() && !error.is_connect() {
                true => format!("no response within {}", humantime::format_duration(limit)).into(),
                // The URL may contain confidential parts.
                false => error.without_url().into(),
            }
        };
        let mut response = request.send().await.map_err(failed)?;
        let status = response.status();
        let mut reply = Reply {
            status: Some(status.as_u16()),
            words: String::new(),
            retry_after: response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now())),
            headers: std::mem::take(response.headers_mut()),
            body: Vec::new(),
        };
        // With a 2xx the data has been stored, even if the rest of the response fails.
        let body = &mut reply.body;
        while body.len() < MAX_ANSWER {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk[..chunk.len().min(MAX_ANSWER - body.len())]),
                Ok(None) => break,
                Err(error) if !status.is_success() => {
                    reply.words = format!("{} (body truncated: {})", words_of(body), error.without_url());
                    return Ok(reply);
                }
                Err(_) => break,
            }
        }
        if !status.is_success() {
            reply.words = words_of(&reply.body);
        }
        Ok(reply)
    }

    /// The client, recreated if one of its files has changed. If that fails, the previous one is kept, because a
    /// renewal may be in progress.
    fn client(&mut self) -> Result<&reqwest::Client, Error> {
        let Access { ca_file, cert_file, key_file, .. } = &self.access;
        let versions = [ca_file, cert_file, key_file].map(|file| file.as_deref().and_then(FileVersion::of));
        let current = self.made.as_ref().is_some_and(|made| made.versions == versions);
        if !current {
            match (self.make(), self.made.take()) {
                (Ok(client), before) => {
                    if before.is_some() {
                        info!(host = self.url.host_str(), "reloaded changed CA or client certificates");
                    }
                    self.made = Some(Made { client, at: Instant::now(), versions });
                }
                (Err(error), Some(before)) => {
                    let error = chain(error.as_ref());
                    warn!(
                        host = self.url.host_str(),
                        error, "cannot reload CA or client certificates, using the previous ones"
                    );
                    self.made = Some(Made { versions, ..before });
                }
                (Err(error), None) => return Err(error),
            }
        }
        self.made.as_ref().map(|made| &made.client).ok_or_else(|| "no HTTP client".into())
    }

    fn make(&self) -> Result<reqwest::Client, Error> {
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(tls::config(&self.access, self.url.scheme() == "https")?)
            .user_agent(concat!("citadel-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .referer(false)
            .connect_timeout(CONNECT)
            .timeout(self.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(1);
        let builder = if is_this_host(&self.url) { builder.no_proxy() } else { builder };
        #[cfg(test)]
        let builder = match &self.resolver {
            Some(resolver) => builder.dns_resolver(std::sync::Arc::clone(resolver)),
            None => builder,
        };
        Ok(builder.build()?)
    }

    fn headers(&self, own: &[(HeaderName, &'static str)]) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::with_capacity(6);
        for (name, value) in &self.access.headers {
            headers.insert(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
        }
        headers.extend(own.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))));
        let secret = |path: &Path| credentials::text(path);
        let Access { username, password_file, bearer_token_file, .. } = &self.access;
        // Read for each request, so that a new token needs no reload.
        let authorization = match (username, password_file, bearer_token_file) {
            (Some(username), Some(file), _) => {
                let password = secret(file)?;
                let pair = format!("{username}:{}", password.trim_end_matches(['\r', '\n']));
                format!("Basic {}", BASE64_STANDARD.encode(pair))
            }
            (_, _, Some(file)) => format!("Bearer {}", secret(file)?.trim()),
            _ => return Ok(headers),
        };
        let mut value = HeaderValue::from_str(&authorization).map_err(|_| {
            io::Error::other("the credentials contain characters that are not allowed in a header field")
        })?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        Ok(headers)
    }
}

/// Whether this is an address of the host itself, which no proxy can reach.
fn is_this_host(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Seconds, or a date ([RFC 9110, 10.2.3](https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3)).
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

/// The response text as one line of limited length.
fn words_of(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(WORDS)]);
    text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// An error with its causes.
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
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::Arc;

    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use socket2::{Domain, Socket, Type};

    use super::*;

    /// A resolver that knows one answer.
    #[derive(Debug)]
    pub(super) struct Names(Vec<SocketAddr>);

    impl Resolve for Names {
        fn resolve(&self, _: Name) -> Resolving {
            let addrs: Addrs = Box::new(self.0.clone().into_iter());
            Box::pin(std::future::ready(Ok(addrs)))
        }
    }

    /// An address with this port whose host answers nothing: a listener whose queue is full.
    fn dead(port: u16) -> (Vec<Socket>, SocketAddr) {
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let listener = socket();
        listener.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port)).into()).unwrap();
        listener.listen(0).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..4 {
            let filler = socket();
            filler.set_nonblocking(true).unwrap();
            _ = filler.connect(&addr);
            sockets.push(filler);
        }
        (sockets, addr.as_socket().unwrap())
    }

    /// Answers one request with this, and says what it was.
    fn server(answer: &'static str) -> (SocketAddr, std::thread::JoinHandle<String>) {
        use std::io::{Read as _, Write as _};
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"hello") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(head).unwrap()
        });
        (addr, thread)
    }

    fn post(client: &mut Client) -> Reply {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(client.post(&[], "hello"))
    }

    #[test]
    fn a_name_whose_first_address_is_dead_is_reached_by_the_second() {
        let (alive, _) = server("HTTP/1.1 204 So\r\n\r\n");
        let (_sockets, dead) = dead(alive.port());
        let mut client =
            Client::new(&format!("http://receiver.test:{}/", dead.port()), &Access::default(), 2 * CONNECT).unwrap();
        client.resolver = Some(Arc::new(Names(vec![dead, alive])));
        let begin = Instant::now();
        assert_eq!(post(&mut client).status, Some(204));
        assert!(begin.elapsed() >= CONNECT / 4, "the first address is dead");
    }

    #[test]
    fn redirects_are_answers_and_configured_headers_are_sent() {
        let (addr, thread) = server("HTTP/1.1 307 So\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 2\r\n\r\nno");
        let headers = [("x-scope-orgid".to_owned(), "tenant 1".to_owned())].into();
        let access = Access { headers, ..Access::default() };
        let mut client = Client::new(&format!("http://{addr}/a?b=c"), &access, CONNECT).unwrap();
        let reply = post(&mut client);
        assert_eq!((reply.status, reply.words.as_str()), (Some(307), "no"));
        let request = thread.join().unwrap().to_lowercase();
        assert!(request.starts_with("post /a?b=c http/1.1\r\n"), "{request}");
        assert!(request.contains("\r\nx-scope-orgid: tenant 1\r\n"), "{request}");
        assert!(request.contains("\r\nuser-agent: citadel-agent/"), "{request}");
    }

    #[test]
    fn what_goes_wrong_is_told_without_the_url() {
        let url = "http://user:secret@127.0.0.1:1/";
        let reply = post(&mut Client::new(url, &Access::default(), CONNECT).unwrap());
        assert_eq!(reply.status, None);
        assert!(reply.words.to_lowercase().contains("refused") && !reply.words.contains("secret"), "{}", reply.words);
        assert!(Client::new("ftp://a/", &Access::default(), CONNECT).is_err());
    }

    #[test]
    fn no_proxy_stands_between_the_agent_and_its_own_host() {
        for (url, own) in [
            ("http://localhost:1/", true),
            ("http://127.9.0.1/", true),
            ("http://[::1]:9090/", true),
            ("http://localhost.example/", false),
            ("http://192.0.2.1/", false),
            ("http://[2001:db8::1]/", false),
        ] {
            assert_eq!(is_this_host(&url.parse().unwrap()), own, "{url}");
        }
    }

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
