//! Start lines: what method, which target, and whether bytes can be one at all.

use super::line::{Line, keep, prefix};
use crate::abi::Endpoint;

/// Offset of the request target: after the method, which is upper-case letters (all registered methods are) and one
/// space, at most 16 bytes together. 0 if there is none.
#[inline(always)]
pub(super) fn after_method(line: &Line) -> u32 {
    let mut word = line.word(0);
    for at in 0..16 {
        if at == 8 {
            word = line.word(8);
        }
        let byte = (word & 0xff) as u8;
        word >>= 8;
        if byte == b' ' {
            return if at > 0 { at + 1 } else { 0 };
        }
        if !byte.is_ascii_uppercase() && byte != b'-' {
            return 0;
        }
    }
    0
}

/// Whether eight bytes are the beginning of a status line, or a method and a space.
#[inline(always)]
pub(super) fn begins_message<const RESPONSE: bool>(word: u64) -> bool {
    if RESPONSE {
        return word & keep(7) == prefix(b"HTTP/1.");
    }
    let is = |method: &'static [u8]| word & keep(method.len() as u32) == prefix(method);
    // The registered methods of RFC 9110 and RFC 5789: none ends like another, so no part of a method is taken for one.
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

/// The endpoint of a request target in origin form: the path without its API version, up to `?`, `/` or the end.
#[inline(always)]
pub(super) fn endpoint(line: &Line, target: u32) -> Endpoint {
    let first = line.word(target) & keep(4);
    let at = if first == prefix(b"/v1/") || first == prefix(b"/v2/") { target + 3 } else { target };
    let (w0, w1, w2) = (line.word(at), line.word(at + 8), line.word(at + 16));
    let is = |path: &'static [u8]| {
        // The path and the byte after it, compared word by word; all of this folds to constants.
        let len = path.len() as u32;
        let (c0, c1, c2) = words(path);
        let matches = match len {
            0..8 => w0 & keep(len) == c0,
            8 => w0 == c0,
            9..16 => w0 == c0 && w1 & keep(len - 8) == c1,
            16 => w0 == c0 && w1 == c1,
            _ => w0 == c0 && w1 == c1 && w2 & keep(len - 16) == c2,
        };
        matches && matches!(line.word(at + len) as u8, b' ' | b'?' | b'/')
    };
    if is(b"/chat/completions") {
        Endpoint::ChatCompletions
    } else if is(b"/completions") || is(b"/completion") {
        Endpoint::Completions
    } else if is(b"/responses") {
        Endpoint::Responses
    } else if is(b"/embeddings") || is(b"/embedding") {
        Endpoint::Embeddings
    } else if is(b"/rerank") || is(b"/reranking") {
        Endpoint::Rerank
    } else if is(b"/models") {
        Endpoint::Models
    } else if is(b"/health") || is(b"/healthz") {
        Endpoint::Health
    } else if is(b"/metrics") {
        Endpoint::Metrics
    } else {
        Endpoint::Other
    }
}

/// Up to 24 bytes as three words.
const fn words(text: &[u8]) -> (u64, u64, u64) {
    let mut words = [0u64; 3];
    let mut i = 0;
    while i < text.len() {
        words[i / 8] |= (text[i] as u64) << (i % 8 * 8);
        i += 1;
    }
    (words[0], words[1], words[2])
}
