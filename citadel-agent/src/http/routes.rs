//! Which path answers what. The table also makes the index page and the text of a 404.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode};

use super::{App, overview};
use crate::config::resolved::{Config, Endpoints};
use crate::metrics::catalogue::Section;
use crate::metrics::{self, format::Format};

/// An answer, in memory.
pub(super) type Response = hyper::Response<Full<Bytes>>;

const TEXT: &str = "text/plain; charset=utf-8";

/// What one listener serves.
pub(super) struct Site {
    /// The agent.
    pub(super) app: Arc<dyn App>,
    /// What there is; asked at each request, because a reload may change it.
    pub(super) routes: fn(&Config) -> Vec<Route>,
}

/// One path.
pub(super) struct Route {
    /// The path, without a query.
    pub(super) path: String,
    /// What it is, for a person.
    pub(super) title: &'static str,
    /// What it answers.
    pub(super) serves: Serves,
}

/// What a path answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Serves {
    /// The overview: a page for people, or as JSON what it shows.
    Overview,
    /// A metrics page: everything, or a section.
    Metrics(Option<Section>),
    /// Alive.
    Health,
    /// Ready, or why not.
    Ready,
    /// What is measured and what is not.
    Status,
}

/// Where the configuration names a page's path.
type Path = fn(&Endpoints) -> &String;

/// The pages that have a configured path.
const SECTIONS: [(Path, &str, Section); 5] = [
    (|paths| &paths.models, "Models", Section::Models),
    (|paths| &paths.gpu, "GPUs", Section::Gpu),
    (|paths| &paths.system, "Host", Section::System),
    (|paths| &paths.storage, "Storage", Section::Storage),
    (|paths| &paths.services, "Services", Section::Services),
];

/// The paths of the metrics port.
pub(super) fn metrics(config: &Config) -> Vec<Route> {
    let fixed = [("/", "This overview", Serves::Overview), ("/metrics", "All metrics", Serves::Metrics(None))]
        .map(|(path, title, serves)| Route { path: path.to_owned(), title, serves });
    let sections = SECTIONS.map(|(path, title, section)| {
        let path = path(&config.local.endpoints).clone();
        Route { path, title, serves: Serves::Metrics(Some(section)) }
    });
    fixed.into_iter().chain(sections).collect()
}

/// The paths of the health port.
pub(super) fn health(_: &Config) -> Vec<Route> {
    [
        ("/health", "Alive", Serves::Health),
        ("/ready", "Ready, or why not", Serves::Ready),
        ("/status", "What is measured, what is not and why", Serves::Status),
    ]
    .map(|(path, title, serves)| Route { path: path.to_owned(), title, serves })
    .into()
}

impl Site {
    /// Answers a request. HEAD is answered like GET; hyper leaves the body out.
    pub(super) async fn respond<B>(&self, request: &Request<B>) -> Response {
        let config = self.app.config();
        let routes = (self.routes)(&config);
        let Some(route) = routes.iter().find(|route| route.path == request.uri().path()) else {
            return not_found(&routes);
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match route.serves {
            Serves::Overview => {
                self.app.refresh(None, UNASKED).await;
                self.overview(&config, &routes, request.headers())
            }
            Serves::Metrics(section) => {
                self.app.refresh(section, patience(request.headers())).await;
                self.metrics(section, request.headers())
            }
            Serves::Health => text(StatusCode::OK, "alive\n"),
            Serves::Ready => match self.app.ready() {
                Ok(()) => text(StatusCode::OK, "ready\n"),
                Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
            },
            Serves::Status => {
                let body = format!("{:#}\n", self.app.status());
                answer(StatusCode::OK, "application/json", body)
            }
        }
    }

    fn metrics(&self, section: Option<Section>, headers: &HeaderMap) -> Response {
        // A field that occurs more than once is one list: RFC 9110, section 5.3.
        let fields: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let format = Format::negotiate(&fields.join(","));
        let page = match self.app.collect(section) {
            Ok(page) => page,
            Err(error) => return failed(&error),
        };
        match metrics::encode(page, format) {
            Ok(page) => answer(StatusCode::OK, format.content_type(), page),
            Err(error) => failed(&error),
        }
    }

    fn overview(&self, config: &Config, routes: &[Route], headers: &HeaderMap) -> Response {
        let overview = match self.app.collect(None) {
            Ok(page) => overview::overview(config, routes, &page),
            Err(error) => return failed(&error),
        };
        // The page's own script asks for this, and nothing else; a browser that opens the page asks for HTML first.
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if accept.starts_with("application/json") {
            return answer(StatusCode::OK, "application/json", overview.to_string());
        }
        answer(StatusCode::OK, "text/html; charset=utf-8", overview::html(&overview))
    }
}

/// How long a page may wait for its sources where the client does not say: half of Prometheus' default.
const UNASKED: Duration = Duration::from_secs(5);

/// The longest that a page waits, whatever the client says: the answer itself has its own limit.
const LONGEST: Duration = Duration::from_secs(20);

/// How long a page may wait for its sources: what Prometheus says that it waits for the page, less what encoding and sending
/// it may take.
fn patience(headers: &HeaderMap) -> Duration {
    let timeout =
        headers.get("x-prometheus-scrape-timeout-seconds").and_then(|value| value.to_str().ok()?.parse().ok());
    let Some(timeout) = timeout.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok()) else {
        return UNASKED;
    };
    let margin = Duration::from_millis(500).min(timeout / 2);
    (timeout - margin).min(LONGEST)
}

fn not_found(routes: &[Route]) -> Response {
    let mut body = String::from("not found; there is:\n");
    for route in routes {
        _ = writeln!(body, "{}  {}", route.path, route.title);
    }
    text(StatusCode::NOT_FOUND, body)
}

/// No page can be made: why, here and in the log. (The errors' texts name their causes.)
fn failed(error: &impl Error) -> Response {
    tracing::error!(%error, "no page can be made");
    text(StatusCode::INTERNAL_SERVER_ERROR, format!("no page can be made: {error}\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    answer(status, TEXT, body)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let body = body.into();
    let length = body.len();
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Said here because hyper could not know it at HEAD.
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
