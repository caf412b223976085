//! Routing: an axum router over the agent. The list in a 404 response and the links of the overview come from the same
//! table.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use tower_http::set_header::SetResponseHeaderLayer;

use super::budget::Budget;
use super::client::Client;
use super::coding::Coding;
use super::dropped::Refusal;
use super::guard::{self, Gate, Names};
use super::overview::{self, Link};
use super::pages::{NoPage, Pages, Wanted};
use super::{App, Content};
use crate::clock::wall_ms;
use crate::config::resolved::Endpoints;
use crate::metrics::catalogue::Section;
use crate::metrics::format::Format;

/// The content of one listener.
pub(super) struct Site {
    served: Served,
    /// The router, and the paths that it was built for.
    current: Mutex<(Endpoints, Router)>,
}

impl Site {
    pub(super) fn new(gate: Gate, app: Arc<dyn App>, budget: Arc<Budget>) -> Self {
        let served = Served {
            app,
            pages: Arc::new(Pages::new(budget)),
            links: Arc::default(),
            gate,
            names: Arc::new(Names::of_this_host()),
        };
        let endpoints = served.app.config().local.endpoints.clone();
        let router = router(&endpoints, served.clone());
        Self { served, current: Mutex::new((endpoints, router)) }
    }

    /// The access control of requests.
    pub(super) const fn gate(&self) -> &Gate {
        &self.served.gate
    }

    /// The router for the current configuration: a reload may have moved pages.
    pub(super) fn router(&self) -> Router {
        let config = self.served.app.config();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = &config.local.endpoints;
        if current.0 != *endpoints {
            *current = (endpoints.clone(), router(endpoints, self.served.clone()));
        }
        current.1.clone()
    }

    /// See [`Pages::forget_shared`].
    pub(super) fn forget_shared(&self) {
        self.served.pages.forget_shared();
    }
}

/// State of the handlers.
#[derive(Clone)]
struct Served {
    app: Arc<dyn App>,
    pages: Arc<Pages>,
    links: Arc<[Link]>,
    gate: Gate,
    names: Arc<Names>,
}

/// A path and its handler for GET and HEAD.
type Route = (Link, MethodRouter<Served>);

/// The configured paths differ from each other and from `/` and `/metrics`, and have no characters with a meaning to
/// the router: the configuration is validated.
fn router(endpoints: &Endpoints, mut served: Served) -> Router {
    let routes = match served.gate.content {
        Content::Metrics => metrics(endpoints, &served),
        Content::Health => health(&served),
    };
    served.links = routes.iter().map(|(link, _)| link.clone()).collect();
    let gate = served.gate.clone();
    let routed = routes.into_iter().fold(Router::new(), |router, (link, method)| router.route(&link.path, method));
    routed
        .fallback(not_found)
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD")], "only GET and HEAD\n")
        })
        .layer(from_fn_with_state(gate, guard::pass))
        .layer(SetResponseHeaderLayer::overriding(CACHE_CONTROL, HeaderValue::from_static("no-store")))
        .with_state(served)
}

/// Path from which the overview's script fetches the last hour.
const LAST_HOUR: &str = "/last-hour";

/// Path from which it fetches single requests.
const REQUESTS: &str = "/requests";

fn metrics(endpoints: &Endpoints, served: &Served) -> Vec<Route> {
    vec![
        route("/", "Overview", by_own_name(get(overview), served)),
        route(
            LAST_HOUR,
            "The last hour of each model, for the plots of the overview",
            by_own_name(get(last_hour), served),
        ),
        route(
            REQUESTS,
            "The oldest requests in flight and the slowest ones of the last hour, for the overview",
            by_own_name(get(requests), served),
        ),
        route("/metrics", "All metrics", page(None)),
        route(&endpoints.models, "Models", page(Some(Section::Models))),
        route(&endpoints.gpu, "GPUs", page(Some(Section::Gpu))),
        route(&endpoints.system, "Host", page(Some(Section::System))),
        route(&endpoints.storage, "Storage", page(Some(Section::Storage))),
        route(&endpoints.services, "Services", page(Some(Section::Services))),
    ]
}

fn health(served: &Served) -> Vec<Route> {
    vec![
        route("/health", "Alive", get("alive\n")),
        route("/ready", "Readiness, with the reason if not ready", get(ready)),
        route("/status", "What is measured, what is not and why", by_own_name(get(status), served)),
    ]
}

fn route(path: &str, title: &'static str, method: MethodRouter<Served>) -> Route {
    (Link { path: path.to_owned(), title }, method)
}

/// Restricts a route to requests under a name of this host, against DNS rebinding. See [`Names`].
fn by_own_name(method: MethodRouter<Served>, served: &Served) -> MethodRouter<Served> {
    method.layer(from_fn_with_state(
        served.clone(),
        async |State(served): State<Served>, request: Request, next: Next| {
            let encrypted = request.extensions().get::<Client>().is_some_and(|client| client.encrypted);
            // Browsers always send the header field.
            let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
            let own = host.is_none_or(|host| served.names.has(host, &served.app.config().local.allowed_hosts));
            if own || encrypted {
                return next.run(request).await;
            }
            served.gate.dropped.refused(served.gate.content, Refusal::Host);
            let text = "unknown host name; use the IP address, or add the name to local_collection.allowed_hosts\n";
            (StatusCode::MISDIRECTED_REQUEST, text).into_response()
        },
    ))
}

/// A metrics page: everything, or a section.
fn page(section: Option<Section>) -> MethodRouter<Served> {
    get(async move |State(served): State<Served>, headers: HeaderMap| -> Result<Response, Failure> {
        // A repeated field is one list: RFC 9110, section 5.3.
        let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let format = Format::negotiate(&accept.join(","));
        let wanted = Wanted { section, format, coding: Coding::negotiate(&headers) };
        let body = served.pages.page(&*served.app, wanted, patience(&headers)).await?;
        Ok(coded(format.content_type(), wanted.coding, body))
    })
}

async fn overview(State(served): State<Served>, headers: HeaderMap) -> Result<Response, Failure> {
    served.app.refresh(None, UNASKED).await;
    let page = served.app.collect(None).map_err(NoPage::from)?;
    let alerts = served.app.active_alerts();
    let history = served.app.history();
    let overview = overview::overview(&served.app.config(), &served.links, &page, &history, &alerts);
    // Only the page's own script requests this; a browser that opens the page prefers HTML.
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (content_type, body) = if accept.starts_with("application/json") {
        (JSON, overview.to_string())
    } else {
        ("text/html; charset=utf-8", overview::html(&overview))
    };
    let coding = Coding::negotiate(&headers);
    let body = served.pages.body(body.into_bytes(), coding).map_err(NoPage::from)?;
    Ok(coded(content_type, coding, body))
}

/// The last hour of each model, for the plots of the overview.
async fn last_hour(State(served): State<Served>, headers: HeaderMap) -> Result<Response, Failure> {
    let hour = overview::last_hour(&served.app.history(), wall_ms());
    let coding = Coding::negotiate(&headers);
    let body = served.pages.body(hour.to_string().into_bytes(), coding).map_err(NoPage::from)?;
    Ok(coded(JSON, coding, body))
}

/// Single requests of each model.
async fn requests(State(served): State<Served>, headers: HeaderMap) -> Result<Response, Failure> {
    let app = Arc::clone(&served.app);
    // The kernel goes through all connections.
    let requests = tokio::task::spawn_blocking(move || app.requests()).await.unwrap_or_default();
    let coding = Coding::negotiate(&headers);
    let text = serde_json::to_vec(&requests).unwrap_or_default();
    let body = served.pages.body(text, coding).map_err(NoPage::from)?;
    Ok(coded(JSON, coding, body))
}

async fn ready(State(served): State<Served>) -> Response {
    match served.app.ready() {
        Ok(()) => "ready\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn status(State(served): State<Served>) -> Response {
    ([(CONTENT_TYPE, JSON)], format!("{:#}\n", served.app.status())).into_response()
}

async fn not_found(State(served): State<Served>) -> Response {
    let mut body = String::from("not found; available paths:\n");
    for link in &*served.links {
        _ = writeln!(body, "{}  {}", link.path, link.title);
    }
    (StatusCode::NOT_FOUND, body).into_response()
}

const JSON: &str = "application/json";

fn coded(content_type: &'static str, coding: Coding, body: Bytes) -> Response {
    let mut response = ([(CONTENT_TYPE, content_type)], body).into_response();
    if let Some(name) = coding.name() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

/// No page can be created; the reason is sent and logged.
struct Failure(NoPage);

impl From<NoPage> for Failure {
    fn from(error: NoPage) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let Self(error) = self;
        tracing::error!(%error, "cannot create the page");
        (StatusCode::INTERNAL_SERVER_ERROR, format!("cannot create the page: {error}\n")).into_response()
    }
}

/// How long a page waits for its sources if the client does not say: half of Prometheus' default timeout.
const UNASKED: Duration = Duration::from_secs(5);

/// Upper limit of that time, whatever the client says: sending the response has a limit of its own.
const LONGEST: Duration = Duration::from_secs(20);

/// How long a page waits for its sources: the scrape timeout sent by Prometheus, less a margin for encoding and
/// sending.
fn patience(headers: &HeaderMap) -> Duration {
    let timeout =
        headers.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(timeout) = timeout.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok()) else {
        return UNASKED;
    };
    let margin = Duration::from_millis(500).min(timeout / 2);
    (timeout - margin).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_waits_a_little_less_than_prometheus_does() {
        let patience = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("X-Prometheus-Scrape-Timeout-Seconds", HeaderValue::from_static(value));
            patience(&headers).as_millis()
        };
        for (value, milliseconds) in [("10", 9500), ("10.000000", 9500), ("0.4", 200), ("3600", 20_000), ("0", 0)] {
            assert_eq!(patience(value), milliseconds, "{value}");
        }
        for value in ["", "soon", "-1", "NaN", "inf", "1e400"] {
            assert_eq!(patience(value), UNASKED.as_millis(), "{value}");
        }
        assert_eq!(super::patience(&HeaderMap::new()), UNASKED);
    }
}
