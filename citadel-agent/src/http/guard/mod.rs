//! Access control of the listeners: TLS, credentials, rate limit. Configured by the web configuration file, which is checked for
//! changes as requests arrive, so that renewed certificates and changed passwords need no restart.

mod bucket;
mod host;
mod login;
mod tls;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio_rustls::TlsAcceptor;

use self::bucket::Bucket;
use self::login::{Login, Verdict};
use super::Content;
use super::client::Client;
use super::dropped::{Dropped, Refusal};
use crate::config::ConfigErrors;
use crate::config::web::{self, Web};
use crate::credentials::FileError;
use crate::host::files::FileVersion;

pub(super) use self::host::Names;
pub use self::tls::TlsError;

/// Minimum time between two checks for changed files.
const LOOK: Duration = Duration::from_secs(1);

/// Why the web configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// It has mistakes.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// A file that it names cannot be used, or TLS cannot be set up as it says.
    #[error("{}: tls_server_config: {error}", file.display())]
    Tls {
        /// The web configuration file.
        file: PathBuf,
        /// Why.
        error: TlsError,
    },
}

impl From<FileError> for TlsError {
    fn from(error: FileError) -> Self {
        Self::File(error.to_string())
    }
}

/// The requirements of both listeners, according to the current files.
#[derive(Debug)]
pub struct Guard(Mutex<Current>);

#[derive(Debug)]
struct Current {
    /// The web configuration file; `None` if there are no requirements.
    file: Option<PathBuf>,
    demands: Arc<Demands>,
    /// Versions of the files that `demands` was loaded from.
    versions: Vec<Option<FileVersion>>,
    /// Versions of files that could not be used, so that the error is logged once.
    refused: Option<Vec<Option<FileVersion>>>,
    looked: Instant,
}

/// A valid web configuration.
#[derive(Debug)]
pub struct Prepared(Current);

impl Prepared {
    /// Describes who can read the pages.
    #[must_use]
    pub fn access(&self) -> &'static str {
        access(self.0.demands.web.as_ref())
    }

    /// Whether anyone who can reach a port can read the pages.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.0.demands.web.as_ref().is_some_and(Web::asks_who)
    }
}

impl Guard {
    /// Loads `file`; without one, there are no requirements.
    ///
    /// # Errors
    /// The file, or one that it names, cannot be used.
    pub fn prepare(file: Option<&Path>) -> Result<Prepared, GuardError> {
        let (demands, versions) = match file {
            None => (Demands::default(), Vec::new()),
            Some(file) => {
                // Each version is taken before its file is read, so that a change in between is noticed.
                let own = FileVersion::of(file);
                let web = web::load(file)?;
                let versions = std::iter::once(own).chain(web.files().map(FileVersion::of)).collect();
                (Demands::new(file, web)?, versions)
            }
        };
        let file = file.map(Path::to_owned);
        Ok(Prepared(Current { file, demands: Arc::new(demands), versions, refused: None, looked: Instant::now() }))
    }

    /// Creates the guard of new listeners.
    #[must_use]
    pub fn new(Prepared(current): Prepared) -> Self {
        Self(Mutex::new(current))
    }

    /// Replaces the requirements.
    pub fn replace(&self, Prepared(current): Prepared) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// The current requirements.
    pub(super) fn demands(&self) -> Arc<Demands> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= LOOK {
            current.look();
        }
        Arc::clone(&current.demands)
    }
}

fn access(web: Option<&Web>) -> &'static str {
    match web {
        None => "anyone who can reach the ports can read the pages, unencrypted",
        Some(web) => match (web.tls.is_on(), web.asks_who()) {
            (true, true) => "the pages require TLS and credentials",
            (true, false) => "the pages require TLS; anyone who can reach the ports can read them",
            (false, true) => "the pages require a password, which clients send unencrypted: set tls_server_config",
            (false, false) => "anyone who can reach the ports can read the pages, unencrypted",
        },
    }
}

/// Versions of the web configuration file and of the files that it names.
fn versions(file: &Path, web: &Web) -> Vec<Option<FileVersion>> {
    std::iter::once(file).chain(web.files()).map(FileVersion::of).collect()
}

impl Current {
    fn look(&mut self) {
        self.looked = Instant::now();
        let Some(file) = &self.file else { return };
        let now = match &self.demands.web {
            Some(web) => versions(file, web),
            None => return,
        };
        if now == self.versions || self.refused.as_ref() == Some(&now) {
            return;
        }
        match Guard::prepare(Some(file)) {
            Ok(Prepared(new)) => {
                tracing::info!(file = %file.display(), "web configuration reloaded");
                *self = new;
            }
            Err(error) => {
                tracing::error!("cannot reload the web configuration, keeping the current one: {error}");
                self.refused = Some(now);
            }
        }
    }
}

/// Requirements, ready to be applied to requests.
#[derive(Debug, Default)]
pub(super) struct Demands {
    web: Option<Web>,
    /// Set if the listeners use TLS.
    pub(super) tls: Option<Tls>,
    login: Option<Arc<Login>>,
    rates: Option<[Mutex<Bucket>; 2]>,
    headers: HeaderMap,
}

/// TLS of the listeners.
pub(super) struct Tls(pub(super) TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Demands {
    /// The requirements in `web`, which came from `file`.
    fn new(file: &Path, web: Web) -> Result<Self, GuardError> {
        let tls = tls::acceptor(&web.tls).map_err(|error| GuardError::Tls { file: file.to_owned(), error })?;
        let rate = web.rate_limit.clone();
        let bucket = || Mutex::new(Bucket::new(rate.burst as f64, rate.interval));
        // Names and values have been validated.
        let headers =
            web.http.headers.iter().filter_map(|(name, value)| {
                Some((HeaderName::try_from(name).ok()?, HeaderValue::from_str(value).ok()?))
            });
        Ok(Self {
            tls: tls.map(Tls),
            login: (!web.users.is_empty()).then(|| Arc::new(Login::new(web.users.clone()))),
            rates: (!rate.interval.is_zero()).then(|| [bucket(), bucket()]),
            headers: headers.collect(),
            web: Some(web),
        })
    }

    fn within_rate(&self, content: Content) -> bool {
        let Some(rates) = &self.rates else { return true };
        rates[content as usize].lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }
}

/// Access control of one listener.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) guard: Arc<Guard>,
    pub(super) content: Content,
    pub(super) dropped: Arc<Dropped>,
}

/// Always open: load balancers have no credentials, and the path reveals only that the agent is running.
const OPEN: (Content, &str) = (Content::Health, "/health");

/// Middleware that forwards or refuses a request.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let demands = gate.guard.demands();
    let mut response = match gate.admit(&demands, Asked::of(&request)).await {
        Ok(()) => next.run(request).await,
        Err((refusal, response)) => {
            gate.dropped.refused(gate.content, refusal);
            response
        }
    };
    response.headers_mut().extend(demands.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    response
}

impl Gate {
    /// Counts a failed TLS handshake.
    pub(super) fn refused_handshake(&self) {
        self.dropped.refused(self.content, Refusal::Tls);
    }

    async fn admit(&self, demands: &Demands, asked: Asked) -> Result<(), (Refusal, Response)> {
        if (self.content, asked.path.as_str()) == OPEN {
            return Ok(());
        }
        if !demands.within_rate(self.content) {
            return Err((Refusal::RateLimit, wait("too many requests\n", 1)));
        }
        let Some(login) = &demands.login else { return Ok(()) };
        match login.verify(asked.credentials.as_ref().map(HeaderValue::as_bytes), asked.client).await {
            Verdict::Right => Ok(()),
            Verdict::Wrong => Err((Refusal::Credentials, unauthorized())),
            Verdict::TooMany(seconds) => {
                Err((Refusal::Credentials, wait("too many attempts with wrong credentials\n", seconds)))
            }
        }
    }
}

/// The parts of a request that decide. (A request itself cannot be held across an await: its body is not `Sync`.)
struct Asked {
    path: String,
    credentials: Option<HeaderValue>,
    client: Option<IpAddr>,
}

impl Asked {
    fn of(request: &Request) -> Self {
        Self {
            path: request.uri().path().to_owned(),
            credentials: request.headers().get(AUTHORIZATION).cloned(),
            client: request.extensions().get::<Client>().map(|client| client.network),
        }
    }
}

fn unauthorized() -> Response {
    let challenge = [(WWW_AUTHENTICATE, r#"Basic realm="citadel-agent", charset="UTF-8""#)];
    (StatusCode::UNAUTHORIZED, challenge, "user name and password required\n").into_response()
}

fn wait(text: &'static str, seconds: u64) -> Response {
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())], text).into_response()
}
