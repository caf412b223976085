//! The meaning of a response. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Body, ClientError};
use super::plan::{Ask, Purpose};
use crate::discovery::ask::first_model;
use crate::printable::without_hidden;

/// The result of requesting a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProbeAnswer {
    pub(super) verdict: Verdict,
    /// From before connecting until the last byte read.
    pub(super) took: Duration,
}

/// The outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The server responded.
    Answered {
        /// HTTP status; a redirect is a response and is not followed.
        status: u16,
        /// Whether the body exceeded the limit.
        truncated: bool,
    },
    /// No process is listening.
    Refused,
    /// Not requested, because the configured key cannot be read; the reason.
    NoKey(String),
    /// No response, or not HTTP; the reason.
    Failed(String),
}

/// The state of a model according to its probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum HealthState {
    /// It reports that it is healthy.
    Up,
    /// It does not.
    Down,
    /// It answers 401 or 403, or its configured key cannot be read: its health is unknown.
    Unauthorised,
}

impl HealthState {
    /// Every state with its label value.
    pub(super) const NAMES: [(Self, &'static str); 3] =
        [(Self::Up, "up"), (Self::Down, "down"), (Self::Unauthorised, "unauthorised")];
}

impl ProbeAnswer {
    /// Whether the status indicates success.
    pub(super) fn success(&self) -> bool {
        matches!(self.status(), Some(200..=299))
    }

    fn status(&self) -> Option<u16> {
        match self.verdict {
            Verdict::Answered { status, .. } => Some(status),
            _ => None,
        }
    }

    fn is_unauthorised(&self) -> bool {
        matches!(self.status(), Some(401 | 403)) || matches!(self.verdict, Verdict::NoKey(_))
    }

    /// The server reports that it has no such path: it responds.
    fn has_no_such_path(&self) -> bool {
        matches!(self.status(), Some(404 | 405 | 501))
    }
}

/// Splits a result into the part to keep and the body.
pub(super) fn judge(result: Result<Body, ClientError>, took: Duration) -> (ProbeAnswer, Body) {
    match result {
        Ok(body) => {
            (ProbeAnswer { verdict: Verdict::Answered { status: body.status, truncated: body.truncated }, took }, body)
        }
        Err(error) if error.is_refusal() => (ProbeAnswer { verdict: Verdict::Refused, took }, Body::default()),
        Err(error @ ClientError::Key(_)) => {
            (ProbeAnswer { verdict: Verdict::NoKey(error.to_string()), took }, Body::default())
        }
        Err(error) => (ProbeAnswer { verdict: Verdict::Failed(error.to_string()), took }, Body::default()),
    }
}

/// The state of the model; `None` until the deciding path was requested.
///
/// The health path decides. If the server has none (404), or none is requested, any successful path makes it up. If the
/// agent chose the paths (`chosen`), a server that has none of them is up as long as it responds: more cannot be known.
pub(super) fn state(asks: &[Ask], answers: &BTreeMap<String, ProbeAnswer>, chosen: bool) -> Option<HealthState> {
    if let Some(ask) = asks.iter().find(|ask| ask.purpose == Purpose::Health) {
        let health = answers.get(&ask.path)?;
        if health.is_unauthorised() {
            return Some(HealthState::Unauthorised);
        }
        if health.status() != Some(404) {
            return Some(if health.success() { HealthState::Up } else { HealthState::Down });
        }
    }
    let of_plan = || asks.iter().filter_map(|ask| answers.get(&ask.path));
    of_plan().next()?;
    Some(if of_plan().any(ProbeAnswer::success) {
        HealthState::Up
    } else if of_plan().any(ProbeAnswer::is_unauthorised) {
        HealthState::Unauthorised
    } else if chosen && of_plan().all(ProbeAnswer::has_no_such_path) {
        HealthState::Up
    } else {
        HealthState::Down
    })
}

/// Maximum length of an exported model name or version.
const MAX_NAME: usize = 256;

/// The list of models (OpenAI's API).
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Served {
    /// The first model.
    pub(super) model: Option<String>,
    /// Its owner, in which most engines identify themselves.
    pub(super) owner: Option<String>,
}

/// Parses the response to `/v1/models`.
pub(super) fn served(answer: &ProbeAnswer, body: &[u8]) -> Option<Served> {
    let first = answer.success().then(|| first_model(body))??;
    Some(Served { model: name(&first.id), owner: first.owner })
}

/// The version in a field of the returned JSON object.
pub(super) fn version(answer: &ProbeAnswer, body: &[u8], field: &str) -> Option<String> {
    let object: serde_json::Value = answer.success().then(|| serde_json::from_slice(body).ok())??;
    name(object.get(field)?.as_str()?)
}

fn name(name: &str) -> Option<String> {
    let name = without_hidden(name);
    (!name.is_empty() && name.len() <= MAX_NAME).then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::super::plan::asks;
    use super::*;
    use crate::discovery::engine::Engine;

    fn answered(status: u16) -> ProbeAnswer {
        ProbeAnswer { verdict: Verdict::Answered { status, truncated: false }, took: Duration::ZERO }
    }

    fn failed() -> ProbeAnswer {
        ProbeAnswer { verdict: Verdict::Failed("reset".to_owned()), took: Duration::ZERO }
    }

    fn map(answers: &[(&str, ProbeAnswer)]) -> BTreeMap<String, ProbeAnswer> {
        answers.iter().map(|(path, answer)| ((*path).to_owned(), answer.clone())).collect()
    }

    /// Of a server whose paths the operator has listed.
    fn listed(answers: &[(&str, ProbeAnswer)]) -> Option<HealthState> {
        let paths: Vec<_> = answers.iter().map(|(path, _)| (*path).to_owned()).collect();
        state(&asks(Some(&paths), None), &map(answers), false)
    }

    #[test]
    fn health_decides_and_without_it_any_path() {
        assert_eq!(listed(&[]), None);
        assert_eq!(listed(&[("/health", answered(200)), ("/metrics", answered(500))]), Some(HealthState::Up));
        assert_eq!(listed(&[("/health", answered(503)), ("/metrics", answered(200))]), Some(HealthState::Down));
        assert_eq!(listed(&[("/health", answered(302)), ("/metrics", answered(200))]), Some(HealthState::Down));
        assert_eq!(listed(&[("/health", failed()), ("/metrics", answered(200))]), Some(HealthState::Down));
        assert_eq!(listed(&[("/health", answered(404)), ("/v1/models", answered(200))]), Some(HealthState::Up));
        assert_eq!(listed(&[("/v1/models", failed()), ("/metrics", answered(404))]), Some(HealthState::Down));
    }

    #[test]
    fn a_server_that_wants_a_key_is_neither_up_nor_down() {
        for status in [401, 403] {
            assert_eq!(
                listed(&[("/health", answered(status)), ("/metrics", answered(200))]),
                Some(HealthState::Unauthorised)
            );
            let answers = [("/v1/models", answered(status)), ("/metrics", answered(404))];
            assert_eq!(listed(&answers), Some(HealthState::Unauthorised));
            assert_eq!(state(&asks(None, None), &map(&answers), true), Some(HealthState::Unauthorised));
        }
        // Only the model's own paths are guarded (vLLM's --api-key): its health is known.
        assert_eq!(listed(&[("/health", answered(200)), ("/v1/models", answered(401))]), Some(HealthState::Up));
    }

    #[test]
    fn of_an_unknown_server_the_port_alone_may_have_to_do() {
        let of = |answers: &[(&str, ProbeAnswer)]| state(&asks(None, None), &map(answers), true);
        assert_eq!(of(&[("/v1/models", answered(200))]), Some(HealthState::Up));
        assert_eq!(of(&[("/v1/models", answered(404)), ("/metrics", answered(404))]), Some(HealthState::Up));
        assert_eq!(of(&[("/v1/models", answered(500)), ("/metrics", answered(404))]), Some(HealthState::Down));
        assert_eq!(of(&[("/v1/models", failed()), ("/metrics", failed())]), Some(HealthState::Down));
        assert_eq!(of(&[]), None);
        // Once it is known, its own path for health decides, also before that was asked.
        let vllm = asks(None, Some(Engine::Vllm));
        assert_eq!(state(&vllm, &map(&[("/v1/models", answered(200))]), true), None);
        assert_eq!(
            state(&vllm, &map(&[("/health", answered(503)), ("/v1/models", answered(200))]), true),
            Some(HealthState::Down)
        );
    }

    #[test]
    fn the_served_model_is_the_first_of_the_list() {
        let of = |body: &str| served(&answered(200), body.as_bytes());
        let first = of(r#"{"object":"list","data":[{"id":"a/b","owned_by":"vllm"},{"id":"c"}]}"#).unwrap();
        assert_eq!((first.model.as_deref(), first.owner.as_deref()), (Some("a/b"), Some("vllm")));
        let cut = of(r#"{"data":[{"id":"a\u202eb"},{"#).unwrap();
        assert_eq!(cut.model.as_deref(), Some("ab"), "read as far as the first name");
        for body in ["", "[]", r#"{"data":[]}"#, r#"{"data":[{"id":7}]}"#] {
            assert_eq!(of(body), None, "{body}");
        }
        assert_eq!(of(r#"{"data":[{"id":"","owned_by":7}]}"#), Some(Served { model: None, owner: None }));
        assert_eq!(served(&answered(500), br#"{"data":[{"id":"a"}]}"#), None);
        assert_eq!(version(&answered(200), br#"{"version":"0.32.0"}"#, "version").as_deref(), Some("0.32.0"));
        assert_eq!(version(&answered(200), b"{\"version\":\"0\\u202e1\"}", "version").as_deref(), Some("01"));
        assert_eq!(version(&answered(404), br#"{"version":"0.32.0"}"#, "version"), None);
    }
}
