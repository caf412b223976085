//! The response to `/v1/models`: the listed model, and how often to ask an unnamed server. Pure; the health probes send
//! the requests.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::command::tidy;

/// Maximum number of attempts for a server that does not answer: eventually a minute apart, so about half an hour, the
/// time a large model may take to load.
const MAX_TRIES: u32 = 36;

/// Maximum pause between attempts.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Whether a server has named its model. A restarted server gets a new value and is asked again.
#[derive(Debug, Default)]
pub struct Naming {
    tries: u32,
    next: Option<Instant>,
    done: bool,
}

/// Result of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// The first model in the list.
    Name(String),
    /// A response without a name; another request would not change it.
    Nothing,
    /// No response, or one that means "not yet".
    NotYet,
}

impl Naming {
    /// When to ask next; `None`: never again.
    #[must_use]
    pub fn due(&self, now: Instant) -> Option<Instant> {
        (!self.done).then(|| self.next.unwrap_or(now))
    }

    /// Records the result of a request.
    pub fn note(&mut self, said: &Said, now: Instant) {
        self.tries += 1;
        self.done = *said != Said::NotYet || self.tries >= MAX_TRIES;
        self.next = Some(now + Duration::from_secs(1 << self.tries.min(6)).min(MAX_PAUSE));
    }
}

impl Said {
    /// The meaning of a response: its status and the beginning of its body.
    #[must_use]
    pub fn of(status: u16, body: &[u8]) -> Self {
        match status {
            200 => first_model(body).and_then(|model| tidy(&model.id)).map_or(Self::Nothing, Self::Name),
            // llama.cpp answers 503 while loading.
            429 | 500..=599 => Self::NotYet,
            _ => Self::Nothing,
        }
    }
}

/// A model in a list.
#[derive(PartialEq, Eq, Debug)]
pub struct Listed {
    /// Its name.
    pub id: String,
    /// `owned_by`, in which most engines identify themselves.
    pub owner: Option<String>,
}

/// The first model in the list that `/v1/models` returns (OpenAI's API). Parsed only up to that model: the rest may be
/// missing, because a router's list can exceed the limit of a response.
pub fn first_model(body: &[u8]) -> Option<Listed> {
    let mut found = None;
    // Parsing ends in an error where the body is truncated; what was read until then is used.
    let mut json = serde_json::Deserializer::from_slice(body);
    _ = json.deserialize_map(List(&mut found));
    found
}

/// The object that contains the list.
struct List<'a>(&'a mut Option<Listed>);

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of models")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match (&*key, &self.0) {
                ("data", None) => map.next_value_seed(Models(self.0))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

/// The list.
struct Models<'a>(&'a mut Option<Listed>);

impl<'de> DeserializeSeed<'de> for Models<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Models<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("models")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut models: A) -> Result<(), A::Error> {
        #[derive(serde::Deserialize)]
        struct Model {
            id: String,
            owned_by: Option<serde_json::Value>,
        }
        let owner = |model: &Model| model.owned_by.as_ref()?.as_str().map(str::to_owned);
        *self.0 = models.next_element::<Model>()?.map(|model| Listed { owner: owner(&model), id: model.id });
        while models.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of an answer.
    const READ: usize = 64 << 10;

    #[test]
    fn answers_are_understood() {
        let ok = |body: &str| Said::of(200, body.as_bytes());
        assert_eq!(ok(r#"{"object":"list","data":[{"id":"a/b","x":1},{"id":"c"}]}"#), Said::Name("a/b".to_owned()));
        for body in ["", "{}", "[]", r#"{"data":[]}"#, r#"{"data":[{"id":7}]}"#, r#"{"data":[{"id":"a"#] {
            assert_eq!(ok(body), Said::Nothing, "{body}");
        }
        // A router's list of thousands, of which the beginning is read.
        let model = |n: usize| format!(r#"{{"id":"org/model-{n}","object":"model","owned_by":"someone"}}"#);
        let list: Vec<String> = (0..5000).map(model).collect();
        let answer = format!(r#"{{"object":"list","data":[{}]}}"#, list.join(","));
        assert!(answer.len() > 3 * READ);
        let read = &answer.as_bytes()[..READ];
        assert_eq!(Said::of(200, read), Said::Name("org/model-0".to_owned()));
        assert_eq!(first_model(read).unwrap().owner.as_deref(), Some("someone"));
        let nested = format!(r#"{{"data":{}"#, "[".repeat(60_000));
        assert_eq!(ok(&nested), Said::Nothing);
        assert_eq!(Said::of(503, b"Loading model"), Said::NotYet);
        assert_eq!(Said::of(401, b""), Said::Nothing);
    }

    #[test]
    fn a_server_that_has_answered_is_left_alone() {
        for said in [Said::Name("a".to_owned()), Said::Nothing] {
            let (mut naming, now) = (Naming::default(), Instant::now());
            assert_eq!(naming.due(now), Some(now));
            naming.note(&said, now);
            assert_eq!(naming.due(now), None);
        }
    }

    #[test]
    fn one_that_does_not_answer_is_asked_ever_more_rarely_and_then_no_more() {
        let (mut naming, mut now, mut tries) = (Naming::default(), Instant::now(), 0);
        let begun = now;
        while now < begun + Duration::from_secs(24 * 3600) {
            if naming.due(now).is_some_and(|due| due <= now) {
                tries += 1;
                naming.note(&Said::NotYet, now);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(tries, MAX_TRIES);
    }
}
