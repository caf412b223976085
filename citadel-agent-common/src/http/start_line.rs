//! Start lines: the method, the target, and whether bytes can be a start line at all.

use super::text::{Text, all_equal, bytes_before_lowest, keep, lower, prefix, within};
use crate::abi::Endpoint;

/// Whether a byte can start a status line, or a request line, the empty line before one, or a TLS record.
#[inline(always)]
pub(super) const fn can_begin_message<const RESPONSE: bool>(byte: u8) -> bool {
    if RESPONSE { byte == b'H' } else { byte.is_ascii_uppercase() || matches!(byte, b'\r' | b'\n' | 20..=23) }
}

/// Whether eight bytes are the start of a status line, or a method and a space.
#[inline(always)]
pub(super) fn begins_message<const RESPONSE: bool>(word: u64) -> bool {
    if RESPONSE {
        return word & keep(7) == prefix(b"HTTP/1.");
    }
    let is = |method: &'static [u8]| word & keep(method.len() as u32) == prefix(method);
    // The registered methods of RFC 9110 and RFC 5789: none is a suffix of another, so the end of a method is never
    // mistaken for one.
    is(b"GET ")
        || is(b"POST ")
        || is(b"HEAD ")
        || is(b"PUT ")
        || is(b"DELETE ")
        || is(b"OPTIONS ")
        || is(b"PATCH ")
        || is(b"TRACE ")
        || is(b"CONNECT ")
}

/// Where the path of a target begins: of one in absolute form (RFC 9112, section 3.2.2), which clients send to a proxy, after the
/// authority. If that is longer than the rest of `line`, the endpoint is not known.
#[inline(never)]
fn path(line: &Text, target: u32) -> u32 {
    let scheme = lower(line.word(target));
    if scheme as u8 != b'h' {
        return target;
    }
    let mut at = if scheme & keep(7) == prefix(b"http://") {
        target + 7
    } else if scheme == prefix(b"https://") {
        target + 8
    } else {
        return target;
    };
    for _ in 0..6 {
        let before = bytes_before_lowest(all_equal(line.word(at), b'/'));
        at = at.wrapping_add(before);
        if before < 8 || at >= Text::LINE {
            break;
        }
    }
    within(at)
}

/// The endpoint of a request target: the path without its API version, up to `?`, `/` or the end.
#[inline(always)]
pub(super) fn endpoint(line: &Text, target: u32) -> Endpoint {
    let target = path(line, target);
    let first = line.word(target);
    let at = if first & keep(4) == prefix(b"/v1/") || first & keep(4) == prefix(b"/v2/") {
        target + 3
    } else if first & keep(5) == prefix(b"/api/") {
        target + 4
    } else {
        target
    };
    let words = [line.word(at), line.word(at + 8), line.word(at + 16)];
    let is = |path: &Path| path.begins(words) && matches!(line.word(at + path.len) as u8, b' ' | b'?' | b'/');
    macro_rules! is_one_of {
        ($($path:literal),+) => { $(is(const { &Path::new($path) }))||+ };
    }
    // By the first letter, which distinguishes most paths.
    match (words[0] >> 8) as u8 {
        b'c' if is_one_of!(b"/chat/completions") => Endpoint::ChatCompletions,
        // Ollama's.
        b'c' if at == target + 4 && is_one_of!(b"/chat") => Endpoint::ChatCompletions,
        b'c' if is_one_of!(b"/completions", b"/completion") => Endpoint::Completions,
        b'r' if is_one_of!(b"/responses") => Endpoint::Responses,
        b'e' if is_one_of!(b"/embeddings", b"/embedding", b"/embed") => Endpoint::Embeddings,
        b'r' if is_one_of!(b"/rerank", b"/reranking") => Endpoint::Rerank,
        b'm' if is_one_of!(b"/models") => Endpoint::Models,
        b'h' if is_one_of!(b"/health", b"/healthz") => Endpoint::Health,
        b'm' if is_one_of!(b"/metrics") => Endpoint::Metrics,
        b'm' if is_one_of!(b"/messages/count_tokens") => Endpoint::Tokenize,
        b'm' if is_one_of!(b"/messages") => Endpoint::Messages,
        b't' if is_one_of!(b"/tokenize") => Endpoint::Tokenize,
        b'd' if is_one_of!(b"/detokenize") => Endpoint::Tokenize,
        b'a' if is_one_of!(b"/audio") => Endpoint::Audio,
        b'i' if is_one_of!(b"/images") => Endpoint::Images,
        b'g' if is_one_of!(b"/generate", b"/generate_stream") => Endpoint::Generate,
        _ => Endpoint::Other,
    }
}

/// A path of at most 24 bytes, compared word by word.
struct Path {
    words: [u64; 3],
    masks: [u64; 3],
    len: u32,
}

impl Path {
    const fn new(path: &[u8]) -> Self {
        let (mut words, mut masks) = ([0u64; 3], [0u64; 3]);
        let mut i = 0;
        while i < path.len() {
            words[i / 8] |= (path[i] as u64) << (i % 8 * 8);
            masks[i / 8] |= 0xff << (i % 8 * 8);
            i += 1;
        }
        Self { words, masks, len: path.len() as u32 }
    }

    /// Whether text starting with these words starts with the path.
    #[inline(always)]
    fn begins(&self, text: [u64; 3]) -> bool {
        let differs = |i: usize| (text[i] & self.masks[i]) != self.words[i];
        !(differs(0) || (self.masks[1] != 0 && differs(1)) || (self.masks[2] != 0 && differs(2)))
    }
}
