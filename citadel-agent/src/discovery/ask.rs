//! The server's own answer: asks `/v1/models` of a server that nothing else names, once, and again only while it does not
//! answer. The connection is announced to the kernel programs, so that it is in none of the model's numbers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde::Deserializer;
use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::command::tidy;
use crate::ebpf::own::OwnConnections;
use crate::host::sock_diag::Listener;

/// How long connecting, and how long the whole answer, may take.
const LIMIT: Duration = Duration::from_secs(1);

/// Longest answer that is read.
const MAX_ANSWER: u64 = 64 << 10;

/// How often a server is asked that does not answer: a minute apart in the end, so for half an hour, which a large model
/// may take to load.
const MAX_TRIES: u32 = 36;

/// Longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// The names that servers have given.
#[derive(Debug, Default)]
pub struct Answers {
    by_port: BTreeMap<u16, Answer>,
}

#[derive(Debug)]
struct Answer {
    /// The listening socket that was asked: a restarted server has another and is asked anew.
    inode: u32,
    /// What it said; until a restarted one says something, what the one before said.
    name: Option<String>,
    tries: u32,
    next: Option<Instant>,
}

/// What came of asking.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    /// The first model of the list.
    Name(String),
    /// An answer without a name, which asking again would not change.
    Nothing,
    /// No answer, or one that says "not yet".
    NotYet,
}

impl Answers {
    /// The name that the server on a port has given.
    #[must_use]
    pub fn name(&self, port: u16) -> Option<&str> {
        self.by_port.get(&port)?.name.as_deref()
    }

    /// Whether it is time to ask this listener.
    #[must_use]
    pub fn is_due(&self, listener: &Listener, now: Instant) -> bool {
        match self.by_port.get(&listener.port) {
            Some(answer) if answer.inode == listener.inode => answer.next.is_some_and(|next| now >= next),
            _ => true,
        }
    }

    /// Notes what came of asking.
    pub fn note(&mut self, listener: &Listener, said: Said, now: Instant) {
        let fresh = Answer { inode: listener.inode, name: None, tries: 0, next: None };
        let answer = self.by_port.entry(listener.port).or_insert(fresh);
        if answer.inode != listener.inode {
            (answer.inode, answer.tries) = (listener.inode, 0);
        }
        answer.tries += 1;
        answer.next = None;
        match said {
            Said::Name(name) => answer.name = Some(name),
            Said::Nothing => answer.name = None,
            Said::NotYet if answer.tries < MAX_TRIES => {
                let pause = Duration::from_secs(1 << answer.tries.min(6));
                answer.next = Some(now + pause.min(MAX_PAUSE));
            }
            Said::NotYet => {}
        }
    }

    /// Forgets the ports that nothing is known of any more.
    pub fn keep(&mut self, is_known: impl Fn(u16) -> bool) {
        self.by_port.retain(|&port, _| is_known(port));
    }
}

/// Asks the server behind a listener of the agent's own network namespace.
#[must_use]
pub fn ask(own: &OwnConnections, listener: &Listener) -> Said {
    match exchange(own, listener.server()) {
        Ok(answer) => parse(&answer),
        Err(error) => {
            tracing::debug!(port = listener.port, %error, "/v1/models is not answered");
            Said::NotYet
        }
    }
}

/// HTTP/1.0, so that the answer ends with the connection and is never chunked.
fn exchange(own: &OwnConnections, server: SocketAddr) -> io::Result<Vec<u8>> {
    let end = Instant::now() + LIMIT;
    let mut connection = own.connect(server, LIMIT)?;
    let stream = connection.stream();
    stream.set_write_timeout(Some(LIMIT))?;
    let version = env!("CARGO_PKG_VERSION");
    let request = format!(
        "GET /v1/models HTTP/1.0\r\nHost: {server}\r\nUser-Agent: citadel-agent/{version}\r\nAccept: application/json\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while (answer.len() as u64) < MAX_ANSWER {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            length => answer.extend_from_slice(&piece[..length]),
        }
        // A server that keeps the connection open all the same.
        if is_whole(&answer) {
            break;
        }
    }
    Ok(answer)
}

/// Status and body, as soon as the head is there.
fn split(answer: &[u8]) -> Option<(u16, Option<usize>, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(answer).ok()? else { return None };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
    Some((response.code?, length, &answer[head..]))
}

fn is_whole(answer: &[u8]) -> bool {
    split(answer).is_some_and(|(_, length, body)| length.is_some_and(|length| body.len() >= length))
}

/// A model of a list.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Listed {
    /// Its name.
    pub(crate) id: String,
    /// `owned_by`, where most engines say who they are.
    pub(crate) owner: Option<String>,
}

/// The first model in a list, the body that `/v1/models` is answered with (OpenAI's API). It is read as far as that
/// model: what follows may be missing, because a router's list is longer than what is read of an answer.
pub(crate) fn first_model(body: &[u8]) -> Option<Listed> {
    let mut found = None;
    // It ends in an error where the body is cut off, and is then read as far as that.
    let mut json = serde_json::Deserializer::from_slice(body);
    _ = json.deserialize_map(List(&mut found));
    found
}

/// The object with the list in it.
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

/// What an answer says (the list of models of the OpenAI API).
#[must_use]
pub fn parse(answer: &[u8]) -> Said {
    match split(answer) {
        Some((200, _, body)) => {
            let name = first_model(body).and_then(|model| tidy(&model.id));
            name.map_or(Said::Nothing, Said::Name)
        }
        // llama.cpp answers 503 while it loads.
        Some((429 | 500..=599, ..)) => Said::NotYet,
        Some(_) => Said::Nothing,
        None if answer.is_empty() => Said::NotYet,
        None => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    fn listener(inode: u32) -> Listener {
        Listener { port: 11400, address: Ipv4Addr::UNSPECIFIED.into(), inode, reachable: true }
    }

    #[test]
    fn answers_are_understood() {
        let ok = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").into_bytes();
        assert_eq!(
            parse(&ok(r#"{"object":"list","data":[{"id":"a/b","x":1},{"id":"c"}]}"#)),
            Said::Name("a/b".to_owned())
        );
        for body in ["", "{}", "[]", r#"{"data":[]}"#, r#"{"data":[{"id":7}]}"#, r#"{"data":[{"id":"a"#] {
            assert_eq!(parse(&ok(body)), Said::Nothing, "{body}");
        }
        // A router's list of thousands, of which the beginning is read.
        let model = |n: usize| format!(r#"{{"id":"org/model-{n}","object":"model","owned_by":"someone"}}"#);
        let list: Vec<String> = (0..5000).map(model).collect();
        let mut answer = ok(&format!(r#"{{"object":"list","data":[{}]}}"#, list.join(",")));
        assert!(answer.len() as u64 > 3 * MAX_ANSWER);
        answer.truncate(MAX_ANSWER as usize);
        assert_eq!(parse(&answer), Said::Name("org/model-0".to_owned()));
        let nested = format!(r#"{{"data":{}"#, "[".repeat(60_000));
        assert_eq!(parse(&ok(&nested)), Said::Nothing);
        assert_eq!(parse(b"HTTP/1.1 503 Loading model\r\n\r\n"), Said::NotYet);
        assert_eq!(parse(b"HTTP/1.1 401 Unauthorized\r\n\r\n"), Said::Nothing);
        assert_eq!(parse(b"SSH-2.0-OpenSSH\r\n"), Said::Nothing);
        assert_eq!(parse(b""), Said::NotYet);
    }

    #[test]
    fn a_server_that_has_answered_is_left_alone_until_it_restarts() {
        let (mut answers, now) = (Answers::default(), Instant::now());
        assert!(answers.is_due(&listener(1), now));
        answers.note(&listener(1), Said::Name("a".to_owned()), now);
        assert!(!answers.is_due(&listener(1), now + Duration::from_secs(1 << 20)));
        // While the new one says nothing, its series keep their name.
        assert!(answers.is_due(&listener(2), now));
        answers.note(&listener(2), Said::NotYet, now);
        assert_eq!(answers.name(11400), Some("a"));
        answers.note(&listener(2), Said::Nothing, now);
        assert_eq!(answers.name(11400), None);
    }

    #[test]
    fn one_that_does_not_answer_is_asked_ever_more_rarely_and_then_no_more() {
        let (mut answers, mut now, mut tries) = (Answers::default(), Instant::now(), 0);
        let begun = now;
        while now < begun + Duration::from_secs(24 * 3600) {
            if answers.is_due(&listener(1), now) {
                tries += 1;
                answers.note(&listener(1), Said::NotYet, now);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(tries, MAX_TRIES);
    }

    #[test]
    fn a_server_is_asked_over_loopback() {
        for keeps_open in [false, true] {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = server.local_addr().unwrap().port();
            let answering = thread::spawn(move || {
                let (mut stream, _) = server.accept().unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).unwrap();
                let body = r#"{"data":[{"id":"real"}]}"#;
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                (String::from_utf8(request[..length].to_vec()).unwrap(), keeps_open.then_some(stream))
            });
            let asked = Listener { port, ..listener(1) };
            assert_eq!(ask(&OwnConnections::default(), &asked), Said::Name("real".to_owned()));
            assert!(answering.join().unwrap().0.starts_with("GET /v1/models HTTP/1.0\r\n"));
        }
    }

    #[test]
    fn nobody_there_and_a_silent_server_cost_a_bounded_time() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let asked = Listener { port, ..listener(1) };
        assert_eq!(ask(&OwnConnections::default(), &asked), Said::NotYet);
        drop(silent);
        assert_eq!(ask(&OwnConnections::default(), &asked), Said::NotYet);
    }
}
