//! What an answer means. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::{Body, ClientError};
use crate::discovery::ask::first_model;
use crate::printable::without_hidden;

/// What came of asking a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    /// From before the connection until the last byte that was read.
    pub(super) took: Duration,
}

/// How it went.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The server answered.
    Answered {
        /// The HTTP status; a redirect is an answer, and is not followed.
        status: u16,
        /// Whether the body had more than is read.
        truncated: bool,
    },
    /// Nobody listens.
    Refused,
    /// It did not answer, or nothing that is HTTP; why.
    Failed(String),
}

impl Answer {
    /// Whether the status says that all is well.
    pub(super) fn success(&self) -> bool {
        matches!(self.verdict, Verdict::Answered { status: 200..=299, .. })
    }
}

/// Takes a result apart: what is kept of it, and its body.
pub(super) fn judge(result: Result<Body, ClientError>, took: Duration) -> (Answer, Body) {
    match result {
        Ok(body) => {
            (Answer { verdict: Verdict::Answered { status: body.status, truncated: body.truncated }, took }, body)
        }
        Err(error) if error.is_refusal() => (Answer { verdict: Verdict::Refused, took }, Body::default()),
        Err(error) => (Answer { verdict: Verdict::Failed(error.to_string()), took }, Body::default()),
    }
}

/// Whether the model is up: `/health` says so. A server that has no such page (404) is up if any other path is well; so is one
/// that was not asked for it.
pub(super) fn is_up(answers: &BTreeMap<String, Answer>) -> Option<bool> {
    let has_none = |answer: &&Answer| matches!(answer.verdict, Verdict::Answered { status: 404, .. });
    match answers.get("/health") {
        Some(health) if !has_none(&health) => Some(health.success()),
        _ if answers.is_empty() => None,
        _ => Some(answers.values().any(Answer::success)),
    }
}

/// Longest name of a model that is exported.
const MAX_NAME: usize = 256;

/// The first model of the list that `/v1/models` answers with (OpenAI's API).
pub(super) fn served_model(answer: &Answer, body: &[u8]) -> Option<String> {
    let name = answer.success().then(|| first_model(body))??;
    let name = without_hidden(&name);
    (!name.is_empty() && name.len() <= MAX_NAME).then(|| name.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16) -> Answer {
        Answer { verdict: Verdict::Answered { status, truncated: false }, took: Duration::ZERO }
    }

    fn up(answers: &[(&str, Answer)]) -> Option<bool> {
        is_up(&answers.iter().map(|(path, answer)| ((*path).to_owned(), answer.clone())).collect())
    }

    #[test]
    fn health_decides_and_without_it_any_path() {
        let failed = Answer { verdict: Verdict::Failed("refused".to_owned()), took: Duration::ZERO };
        assert_eq!(up(&[]), None);
        assert_eq!(up(&[("/health", answered(200)), ("/metrics", answered(500))]), Some(true));
        assert_eq!(up(&[("/health", answered(503)), ("/metrics", answered(200))]), Some(false));
        assert_eq!(up(&[("/health", answered(302)), ("/metrics", answered(200))]), Some(false));
        assert_eq!(up(&[("/health", failed.clone()), ("/metrics", answered(200))]), Some(false));
        assert_eq!(up(&[("/health", answered(404)), ("/v1/models", answered(200))]), Some(true));
        assert_eq!(up(&[("/v1/models", failed), ("/metrics", answered(404))]), Some(false));
    }

    #[test]
    fn the_served_model_is_the_first_of_the_list() {
        let name = |body: &str| served_model(&answered(200), body.as_bytes());
        assert_eq!(name(r#"{"object":"list","data":[{"id":"a/b"},{"id":"c"}]}"#).as_deref(), Some("a/b"));
        assert_eq!(name(r#"{"data":[{"id":"a\u202eb"},{"#).as_deref(), Some("ab"), "read as far as the first name");
        for body in ["", "[]", r#"{"data":[]}"#, r#"{"data":[{"id":7}]}"#, r#"{"data":[{"id":""}]}"#] {
            assert_eq!(name(body), None, "{body}");
        }
        assert_eq!(served_model(&answered(500), br#"{"data":[{"id":"a"}]}"#), None);
    }
}
