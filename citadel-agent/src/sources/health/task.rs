//! The probes of a port: order of requests, and what is learned from the responses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tracing::{info, warn};

use super::client::{Announce, Body, Client, ClientError, MAX_BODY, MAX_SHARED, Question, Want, listener};
use super::plan::{self, Ask, MODELS, Purpose};
use super::probe::{self, ProbeAnswer, Verdict};
use super::{Heard, ProbeSettings, Shared, random, relay, tls};
use crate::config::resolved::probing::Scheme;
use crate::discovery::ask::{Naming, Said};
use crate::discovery::engine::Engine;
use crate::sources::engine::{Asked, ollama, page};

/// Requests a port's paths periodically.
pub(super) async fn probe_port(
    port: u16,
    settings: ProbeSettings,
    announce: Announce,
    shared: Arc<Semaphore>,
    heard: Arc<Shared>,
) {
    let access = settings.access.clone();
    let client = Client { port, timeout: settings.timeout, access, announce, shared };
    // The ports are not all probed at the same moment or in the same order, but each is soon probed for the first time.
    tokio::time::sleep(settings.interval.min(Duration::from_secs(1)).mul_f64(random())).await;
    let (learned, connector, warned) = Default::default();
    let mut task = Task { client, settings, heard, learned, connector, warned };
    let mut next = Instant::now();
    loop {
        task.follow_restarts();
        if Instant::now() >= next {
            task.round().await;
            next = Instant::now() + task.settings.interval.mul_f64(0.9 + 0.2 * random());
        }
        task.ask_for_name().await;
        tokio::time::sleep_until(task.naming_due().map_or(next, |due| due.min(next)).into()).await;
    }
}

/// How often to check whether a server that names itself was restarted.
const NAME_CHECK: Duration = Duration::from_secs(15);

struct Task {
    client: Client,
    settings: ProbeSettings,
    heard: Arc<Shared>,
    learned: Learned,
    connector: Option<TlsConnector>,
    warned: Warned,
}

/// What is known about a server while it listens on the same socket.
#[derive(Default)]
struct Learned {
    inode: Option<u32>,
    /// Whether it uses TLS, once either has worked.
    tls: Option<bool>,
    by_page: Option<Engine>,
    by_owner: Option<Engine>,
    by_header: Option<Engine>,
    version_asked: bool,
    naming: Naming,
}

impl Learned {
    /// The engine; `by_command` is that of its command line.
    fn engine(&self, by_command: Option<Engine>) -> Option<Engine> {
        self.by_page.or(self.by_owner).or(self.by_header).or(by_command)
    }
}

/// What has been logged, to log it only once.
#[derive(Default)]
struct Warned {
    relay: bool,
    dropped: bool,
    engine: bool,
    key: bool,
    harm: Option<Engine>,
}

impl Task {
    /// Starts over when another server listens.
    fn follow_restarts(&mut self) {
        let inode = listener(self.client.port).map(|listener| listener.inode);
        if self.learned.inode != inode {
            self.learned = Learned { inode, ..Learned::default() };
            let hint = self.hint();
            self.with(|own| own.forget(hint));
        }
    }

    /// When to ask for the name, or to check whether to.
    fn naming_due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.settings.name.then(|| self.learned.naming.due(now).unwrap_or(now + NAME_CHECK))
    }

    /// Asks for the model's name, if that is due and the probes have not just done so.
    async fn ask_for_name(&mut self) {
        let now = Instant::now();
        if self.settings.name && self.learned.naming.due(now).is_some_and(|due| due <= now) {
            let ask = Ask { path: MODELS.to_owned(), purpose: Purpose::Models };
            let (answer, body) = self.ask(&ask).await;
            self.note_models(&answer, &body);
        }
    }

    fn note_models(&mut self, answer: &ProbeAnswer, body: &Body) {
        let served = probe::served(answer, &body.bytes);
        let owner = served.as_ref().and_then(|served| served.owner.as_deref());
        self.learned.by_owner = owner.and_then(Engine::of_owner).or(self.learned.by_owner);
        self.with(|own| own.served_model = served.and_then(|served| served.model));
        let now = Instant::now();
        if !self.settings.name || self.learned.naming.due(now).is_none() {
            return;
        }
        let said = match answer.verdict {
            Verdict::Answered { status, .. } => Said::of(status, &body.bytes),
            Verdict::Refused | Verdict::NoKey(_) | Verdict::Failed(_) => Said::NotYet,
        };
        self.learned.naming.note(&said, now);
        match said {
            Said::Name(name) => self.with(|own| own.name = Some(name)),
            Said::Nothing => self.with(|own| own.name = None),
            Said::NotYet => {}
        }
    }

    async fn round(&mut self) {
        let (asks, chosen) = (self.asks(), self.settings.endpoints.is_none());
        for ask in &asks {
            let (answer, body) = self.ask(ask).await;
            self.note(ask, answer, &body);
            self.with(|own| own.judge(&asks, chosen));
        }
        let engine = self.learned.engine(self.hint());
        if chosen && !self.learned.version_asked {
            self.ask_version(engine).await;
        }
        self.warn_of_harm(&asks, engine);
        self.with(|own| {
            own.answers.retain(|path, _| asks.iter().any(|ask| ask.path == *path));
            own.judge(&asks, chosen);
            own.engine.engine = engine;
        });
    }

    fn asks(&self) -> Vec<Ask> {
        plan::asks(self.settings.endpoints.as_deref(), self.learned.engine(self.hint()))
    }

    /// The engine according to the command line.
    fn hint(&self) -> Option<Engine> {
        self.heard.lock().get(&self.client.port).and_then(|own| own.hint)
    }

    fn with<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        change(self.heard.lock().entry(self.client.port).or_default())
    }

    async fn ask(&mut self, ask: &Ask) -> (ProbeAnswer, Body) {
        let begin = Instant::now();
        let want = match ask.purpose {
            Purpose::Metrics if self.settings.relay || self.settings.engine_metrics => Want::Whole,
            Purpose::Models | Purpose::Loaded => Want::Head,
            Purpose::Health | Purpose::Answer | Purpose::Metrics => Want::Nothing,
        };
        let result = self.get(&ask.path, want).await;
        if let Ok(Body { server: Some(server), .. }) = &result {
            self.learned.by_header = Engine::of_header(server).or(self.learned.by_header);
        }
        probe::judge(result, begin.elapsed())
    }

    /// Requests in plain text, over TLS, or, as long as it is unknown which the server uses, both.
    async fn get(&mut self, path: &str, want: Want) -> Result<Body, ClientError> {
        let tls = match self.settings.access.scheme {
            Scheme::Http => Some(false),
            Scheme::Https => Some(true),
            Scheme::Auto => self.learned.tls,
        };
        match tls {
            Some(true) => self.get_encrypted(path, want).await,
            Some(false) => self.client.get(Question { path, want, tls: None }).await,
            None => {
                let plain = self.client.get(Question { path, want, tls: None }).await;
                // A TLS server closes the connection, or answers in plain text that it requires TLS.
                let may_be_tls = match &plain {
                    Ok(answer) => answer.status == 400,
                    Err(error) => error.is_not_http(),
                };
                if !may_be_tls {
                    self.learned.tls = plain.is_ok().then_some(false);
                    return plain;
                }
                let encrypted = self.get_encrypted(path, want).await;
                if matches!(encrypted, Ok(_) | Err(ClientError::Http(_))) {
                    info!(port = self.client.port, "the server uses TLS, probing it over TLS");
                    self.learned.tls = Some(true);
                    return encrypted;
                }
                match encrypted {
                    // It uses TLS, but is not the expected server.
                    Err(error)
                        if self.settings.access.certificate_file.is_some()
                            || self.settings.access.ca_file.is_some() =>
                    {
                        Err(error)
                    }
                    _ => plain,
                }
            }
        }
    }

    async fn get_encrypted(&mut self, path: &str, want: Want) -> Result<Body, ClientError> {
        let connector = match &self.connector {
            Some(connector) => connector.clone(),
            None => self.connector.insert(tls::connector(&self.settings.access).map_err(ClientError::Tls)?).clone(),
        };
        let result = self.client.get(Question { path, want, tls: Some(&connector) }).await;
        if matches!(result, Err(ClientError::Tls(_))) {
            // A certificate may have been renewed, also in the file.
            self.connector = None;
        }
        result
    }

    fn note(&mut self, ask: &Ask, answer: ProbeAnswer, body: &Body) {
        match ask.purpose {
            Purpose::Models => self.note_models(&answer, body),
            Purpose::Metrics => self.note_metrics(&answer, body),
            Purpose::Loaded => {
                let report = if answer.success() { ollama::parse(&body.bytes) } else { None };
                self.keep_engine(Some(Asked {
                    report: report.ok_or(()),
                    size: body.bytes.len(),
                    parse: Duration::ZERO,
                }));
            }
            Purpose::Health | Purpose::Answer => {}
        }
        let key = if let Verdict::NoKey(why) = &answer.verdict { Some(why) } else { None };
        if let (Some(why), false) = (key, self.warned.key) {
            warn!(port = self.client.port, why, "cannot probe the server, so it is unknown whether it is up");
        }
        self.warned.key = key.is_some();
        self.with(|own| own.answers.insert(ask.path.clone(), answer));
    }

    fn note_metrics(&mut self, answer: &ProbeAnswer, body: &Body) {
        if self.settings.relay {
            self.relay(answer, body);
        }
        if !self.settings.engine_metrics {
            return self.keep_engine(None);
        }
        // A response that there is no page is not a failure to read one.
        if matches!(answer.verdict, Verdict::Answered { status, .. } if !(200..300).contains(&status)) {
            let known = self.learned.by_page.is_some();
            return self.keep_engine(known.then_some(Asked { report: Err(()), size: 0, parse: Duration::ZERO }));
        }
        let begin = Instant::now();
        let report = text_of(answer, body).and_then(|text| page::parse(text).map_err(|error| error.to_string()));
        let parse = begin.elapsed();
        match report {
            // A page of something else.
            Ok(None) => self.keep_engine(None),
            Ok(Some(report)) => {
                self.warned.engine = false;
                self.learned.by_page = Some(report.engine);
                self.keep_engine(Some(Asked { report: Ok(report), size: body.bytes.len(), parse }));
            }
            Err(why) => {
                if !std::mem::replace(&mut self.warned.engine, true) {
                    warn!(port = self.client.port, why, "cannot read the engine's metrics");
                }
                self.keep_engine(Some(Asked { report: Err(()), size: body.bytes.len(), parse }));
            }
        }
    }

    fn keep_engine(&self, page: Option<Asked>) {
        self.with(|own| own.engine.page = page);
    }

    fn relay(&mut self, answer: &ProbeAnswer, body: &Body) {
        let port = self.client.port;
        let page = text_of(answer, body).and_then(|text| relay::read(text).map_err(|error| error.to_string()));
        let page = page.and_then(|page| relay::make_room(&mut self.heard.lock(), port, page.size).map(|()| page));
        match &page {
            Ok(page) => {
                if std::mem::replace(&mut self.warned.relay, false) {
                    info!(port, "relaying the model's own metrics again");
                }
                let dropped = !page.dropped.is_empty();
                if dropped && !self.warned.dropped {
                    let families = page.examples();
                    warn!(port, families, "not relaying some families of the model's own metrics");
                }
                self.warned.dropped = dropped;
            }
            Err(why) => {
                if !std::mem::replace(&mut self.warned.relay, true) {
                    warn!(port, why, "not relaying the model's own metrics");
                }
            }
        }
        self.with(|own| own.relayed = Some(page.map_err(|_| ())));
    }

    async fn ask_version(&mut self, engine: Option<Engine>) {
        let Some((path, field)) = plan::version(engine) else { return };
        let begin = Instant::now();
        let (answer, body) = probe::judge(self.get(path, Want::Head).await, begin.elapsed());
        // If it does not answer now, it may later.
        self.learned.version_asked = matches!(answer.verdict, Verdict::Answered { .. });
        let version = probe::version(&answer, &body.bytes, field);
        self.with(|own| own.engine.version = version);
    }

    fn warn_of_harm(&mut self, asks: &[Ask], engine: Option<Engine>) {
        if engine.is_none() || self.warned.harm == engine {
            return;
        }
        for ask in asks {
            if let (Some(why), Some(engine)) = (plan::harm(&ask.path, engine), engine) {
                let (port, path, engine) = (self.client.port, &ask.path, engine.name());
                warn!(port, path, engine, why, "a configured probe causes work on the server");
            }
        }
        self.warned.harm = engine;
    }
}

/// The text of a page.
fn text_of<'a>(answer: &ProbeAnswer, body: &'a Body) -> Result<&'a str, String> {
    match &answer.verdict {
        Verdict::Answered { truncated: true, .. } => Err(format!("the response has more than {MAX_BODY} bytes")),
        Verdict::Answered { .. } if body.no_room => Err(format!(
            "responses of all models are limited to {MAX_SHARED} bytes in total, and this one does not fit"
        )),
        Verdict::Answered { status, .. } if answer.success() => {
            std::str::from_utf8(&body.bytes).map_err(|_| format!("status {status}, not a text response"))
        }
        Verdict::Answered { status, .. } => Err(format!("status {status}")),
        Verdict::Refused => Err("nothing is listening on the port".to_owned()),
        Verdict::Failed(why) | Verdict::NoKey(why) => Err(why.clone()),
    }
}
