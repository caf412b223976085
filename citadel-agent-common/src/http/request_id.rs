//! The ID that a client gave its request: the trace ID of `traceparent` (W3C Trace Context, section 3.2), else `X-Request-Id`.

use super::text::{keep, lower, prefix};
use super::{Payload, Text, launder};
use crate::trace::{Details, ID, flag};

/// Lines, or parts of 64 bytes of longer ones, that are searched: at least 4 KiB of most heads.
const PARTS: u32 = 96;

/// Length of a trace ID, and where it is in `traceparent`: after the version.
const TRACE_ID: u32 = 32;
const VERSION: u32 = 3;

/// A name that is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Name {
    TraceParent,
    RequestId,
}

impl Name {
    /// With the colon.
    const fn length(self) -> u32 {
        match self {
            Self::TraceParent => 12,
            Self::RequestId => 13,
        }
    }

    /// That of a line.
    #[inline(always)]
    fn of(line: &Text) -> Option<Self> {
        let (first, second) = (lower(line.at::<0>()), line.at::<8>());
        if first == prefix(b"tracepar") && lower(second) & keep(4) == prefix(b"ent:") {
            Some(Self::TraceParent)
        } else if first == prefix(b"x-reques") && lower(second) & keep(5) == prefix(b"t-id:") {
            Some(Self::RequestId)
        } else {
            None
        }
    }
}

impl Details {
    /// Searches the head of a request, which begins this payload of `len` bytes, for its ID. One that is not in it as a whole is not
    /// found.
    #[inline(always)]
    pub fn find_id<P: Payload>(&mut self, payload: &mut P, len: u32) {
        self.id_len = 0;
        self.id_kind = 0;
        let (mut at, mut begins) = (0, false);
        for _ in 0..PARTS {
            at = launder(&mut self.scratch, at);
            if at >= len {
                return;
            }
            let Some(text) = payload.text(at) else { return };
            let part = text.line_length();
            if begins {
                if text.is_blank_line() {
                    return;
                }
                if let Some(name) = Name::of(text) {
                    let value = at + text.skip_blanks(name.length());
                    self.keep_id(payload, name, value, len);
                    if self.id_kind != 0 {
                        return;
                    }
                }
            }
            begins = part != 0;
            at += if begins { part } else { Text::LINE };
        }
    }

    /// Keeps the ID in a line of which the value begins `at`.
    #[inline(always)]
    fn keep_id<P: Payload>(&mut self, payload: &mut P, name: Name, at: u32, len: u32) {
        let Some(text) = payload.text(at) else { return };
        let line = text.line_length();
        match name {
            Name::TraceParent => {
                let dash = |at: u32| text.word(at) as u8 == b'-';
                if at + VERSION + TRACE_ID < len && dash(VERSION - 1) && dash(VERSION + TRACE_ID) {
                    self.id[0] = text.at::<3>();
                    self.id[1] = text.at::<11>();
                    self.id[2] = text.at::<19>();
                    self.id[3] = text.at::<27>();
                    self.id_len = TRACE_ID;
                    self.id_kind = flag::TRACE_ID;
                }
            }
            Name::RequestId => {
                // The beginning of one that is longer; without the line's end.
                let length = if line == 0 { ID as u32 } else { line - 1 };
                if at + length >= len {
                    return;
                }
                macro_rules! keep {
                    ($($word:literal)+) => { $(self.id[$word] = text.at::<{ $word * 8 }>();)+ };
                }
                keep!(0 1 2 3 4 5 6 7);
                self.id_len = length;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    /// A payload, and what comes after it in memory.
    struct Bytes(Vec<u8>, Text);

    impl Payload for Bytes {
        fn text(&mut self, offset: u32) -> Option<&Text> {
            for (i, byte) in self.1.0.iter_mut().enumerate() {
                *byte = self.0.get(offset as usize + i).copied().unwrap_or(b'x');
            }
            Some(&self.1)
        }
    }

    fn id_in(head: &str) -> Option<(String, bool)> {
        let mut details = Details::NONE;
        details.find_id(&mut Bytes(head.as_bytes().to_vec(), Text::EMPTY), head.len() as u32);
        let bytes: Vec<u8> = details.id.iter().flat_map(|word| word.to_le_bytes()).collect();
        let id = String::from_utf8(bytes[..details.id_len as usize].to_vec()).unwrap();
        (details.id_len > 0).then(|| (String::from(id.trim_end()), details.id_kind == flag::TRACE_ID))
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn found(id: &str, trace: bool) -> Option<(String, bool)> {
        Some((String::from(id), trace))
    }

    #[test]
    fn an_id_is_found_wherever_it_is_in_the_head() {
        let long = String::from("X-Long: ") + &"y".repeat(700) + "\r\n";
        for before in ["", "Host: a\r\n", "Cookie: x-request-id: no\r\nX-Request-Ids: no\r\n", &long] {
            for after in ["", "Accept: */*\r\n"] {
                let head = |line: &str| {
                    std::format!("POST /v1/x HTTP/1.1\r\n{before}{line}\r\n{after}\r\nx-request-id: body\r\n")
                };
                assert_eq!(id_in(&head("X-Request-ID: abc-1")), found("abc-1", false), "{before:?}");
                assert_eq!(id_in(&head("x-request-id:abc-1 ")), found("abc-1", false));
                assert_eq!(id_in(&head(&std::format!("traceparent: {PARENT}"))), found(TRACE, true));
                assert_eq!(id_in(&head("Accept-Language: de")), None, "not from the body");
            }
        }
    }

    #[test]
    fn a_trace_id_counts_more_and_a_long_id_is_cut() {
        let both = std::format!("GET / HTTP/1.1\r\nX-Request-Id: a\r\nTraceparent: {PARENT}\r\n\r\n");
        assert_eq!(id_in(&both), found(TRACE, true));
        let long = std::format!("GET / HTTP/1.1\r\nX-Request-Id: {}\r\n\r\n", "z".repeat(100));
        assert_eq!(id_in(&long), found(&"z".repeat(64), false));
    }

    #[test]
    fn what_is_not_there_as_a_whole_is_not_found() {
        let head = std::format!("GET / HTTP/1.1\r\ntraceparent: {PARENT}\r\n");
        let value = head.find(PARENT).unwrap();
        for end in 0..head.len() {
            let expected = if end >= value + 36 { found(TRACE, true) } else { None };
            assert_eq!(id_in(&head[..end]), expected, "{end}");
        }
        let head = "GET / HTTP/1.1\r\nx-request-id: abcdef\r\n";
        for end in 0..head.len() {
            let expected = if end + 1 == head.len() + 1 { found("abcdef", false) } else { None };
            assert_eq!(id_in(&head[..end]), expected, "{end}");
        }
        assert_eq!(id_in("GET / HTTP/1.1\r\ntraceparent: nonsense and so on and so on and so on\r\n\r\n"), None);
    }
}
