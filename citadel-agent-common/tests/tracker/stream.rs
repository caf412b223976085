//! What the events of a stream mean, read from its whole body, byte by byte, without a look at the tracker.

use citadel_agent_common::http::events::LOOK;

/// What a byte shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Seen {
    /// An event has output.
    Output,
    /// An event without ended.
    Other,
    /// The stream cannot be read.
    Unread,
}

/// What a stream's body shows.
#[derive(Default)]
pub(crate) struct Stream {
    /// Which byte shows what, in order.
    pub(crate) seen: Vec<(usize, Seen)>,
    /// The server said that it failed.
    pub(crate) failed: bool,
    flows: bool,
    event: Event,
}

/// The event under way.
#[derive(Clone, Copy, Default)]
struct Event {
    start: usize,
    has_data: bool,
    known: bool,
    output: bool,
    part: bool,
    /// A line of JSON is an event by itself.
    line: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Delta,
    Arguments,
    Response,
    Error,
}

const TEXTS: [&[u8]; 9] = [
    b"ontent\":",
    b"\"text\":",
    b"soning\":",
    b"inking\":",
    b"l_json\":",
    b"output\":",
    b"\"data\":",
    b"4_json\":",
    b"efusal\":",
];
const PARTS: [&[u8]; 3] = [b"tem_id\":", b"\"item\":", b"\"part\":"];
const FORMS: [&[u8]; 5] = [b"hoices\":", b"\"type\":", b"\"done\":", b"\"stop\":", b"\"usage\":"];

impl Stream {
    /// Reads a body, or as much of it as has come.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut stream = Self::default();
        let mut at = 0;
        while at < body.len() {
            let length = body[at..].iter().position(|&byte| byte == b'\n').map_or(body.len() - at, |end| end + 1);
            if !stream.line(at, &body[at..at + length]) {
                break;
            }
            at += length;
        }
        stream
    }

    /// A line, or its beginning; `false` if nothing is read after it.
    fn line(&mut self, at: usize, line: &[u8]) -> bool {
        let complete = line.ends_with(b"\n");
        let stop = line.iter().take(8).position(|byte| b":{\n".contains(byte));
        let goes_on = match stop.map(|stop| &line[..=stop]) {
            None => line.len() < 8 || self.strange(at + 7),
            Some(b"\n" | b"\r\n") => return self.end(at + line.len() - 1),
            Some(name) if name.ends_with(b"\n") => true,
            Some(b"data:") => {
                self.event.has_data = true;
                self.data(at, line, 5)
            }
            Some(b"{") => {
                (self.event.has_data, self.event.line) = (true, true);
                self.data(at, line, 1)
            }
            Some(b"event:") => {
                let name = line.strip_suffix(b"\n").map(|name| name.strip_suffix(b"\r").unwrap_or(name));
                if name.is_some_and(|name| name.ends_with(b"error") || name.ends_with(b"failed")) {
                    (self.failed, self.event.known) = (true, true);
                }
                true
            }
            Some(b":" | b"id:" | b"retry:") => true,
            Some(name) => self.strange(at + name.len() - 1),
        };
        goes_on && (!complete || !self.event.line || self.end(at + line.len() - 1))
    }

    fn strange(&mut self, at: usize) -> bool {
        if !self.flows {
            self.seen.push((at, Seen::Unread));
        }
        self.flows
    }

    fn end(&mut self, at: usize) -> bool {
        let event = std::mem::replace(&mut self.event, Event { start: at + 1, ..Event::default() });
        if !event.has_data {
            return true;
        }
        if !(event.known || self.failed || self.flows) {
            return self.strange(at);
        }
        if !event.output {
            self.seen.push((at, Seen::Other));
        }
        true
    }

    /// JSON from `from` on in the line that begins at `at`.
    fn data(&mut self, at: usize, line: &[u8], from: usize) -> bool {
        if self.event.output {
            return true;
        }
        // The key whose value comes, and whether its first byte has come: a quote, or else a brace.
        let (mut key, mut value) = (None, None);
        for i in from..line.len() {
            if at + i - self.event.start >= LOOK as usize {
                return self.event.known || self.strange(at + i);
            }
            let (byte, upto) = (line[i], &line[..=i]);
            if byte == b'\n' {
                self.event.known |= upto.ends_with(b"[DONE]\n") || upto.ends_with(b"DONE]\r\n");
                break;
            }
            if let Some(first) = value {
                value = None;
                if byte != if first == b'{' { b'}' } else { b'"' } {
                    self.seen.push((at + i, Seen::Output));
                    (self.event.output, self.flows) = (true, true);
                    return true;
                }
            } else if let Some(kind) = key {
                if byte == b' ' {
                    continue;
                }
                key = None;
                match (kind, byte) {
                    (Kind::Error, b'"' | b'{') => {
                        self.failed = true;
                        return true;
                    }
                    (Kind::Response, b'{') => self.event.part = true,
                    (Kind::Delta, b'"') => value = Some(byte),
                    (Kind::Text | Kind::Response | Kind::Arguments, b'"') if !self.event.part => value = Some(byte),
                    (Kind::Arguments, b'{') if !self.event.part => value = Some(byte),
                    _ => {}
                }
            } else if upto.ends_with(b"\":") {
                let ends = |keys: &[&[u8]]| keys.iter().any(|key| upto.ends_with(key));
                key = match () {
                    () if ends(&TEXTS) => Some(Kind::Text),
                    () if ends(&[b"\"delta\":"]) => Some(Kind::Delta),
                    () if ends(&[b"uments\":"]) => Some(Kind::Arguments),
                    () if ends(&[b"sponse\":"]) => Some(Kind::Response),
                    () if ends(&[b"\"error\":"]) => Some(Kind::Error),
                    () => None,
                };
                self.event.part |= ends(&PARTS);
                self.event.known |= key.is_some() || ends(&PARTS) || ends(&FORMS);
            }
        }
        true
    }
}
