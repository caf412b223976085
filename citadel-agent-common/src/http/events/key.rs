//! What the keys of an event's JSON mean: those that can hold output, and those by which its form is known.

use super::ends;

/// Nothing.
pub(super) const NONE: u32 = 0;
/// The form is known.
pub(super) const FORM: u32 = 1;
/// Output, if it is a string; not of a part as a whole.
pub(super) const TEXT: u32 = 2;
/// Output, if it is a string.
pub(super) const DELTA: u32 = 3;
/// Output, if it is a string (OpenAI) or an object (Ollama); not of a part as a whole.
pub(super) const ARGUMENTS: u32 = 4;
/// Output, if it is a string (Ollama); an object is a whole response.
pub(super) const RESPONSE: u32 = 5;
/// A part of the answer as a whole.
pub(super) const PART: u32 = 6;
/// A failure, if it is a string or an object.
pub(super) const ERROR: u32 = 7;

/// The key that ends here, with quote and colon: told by its last bytes.
#[inline(always)]
pub(super) const fn of(recent: u64) -> u32 {
    // `content`, `reasoning_content`.
    if ends(recent, b"ontent\":")
        || ends(recent, b"\"text\":")
        // `reasoning`, `thinking`, Anthropic's `partial_json`, Triton's `text_output`.
        || ends(recent, b"soning\":")
        || ends(recent, b"inking\":")
        || ends(recent, b"l_json\":")
        || ends(recent, b"output\":")
        // Audio's `data`, images' `b64_json`, `refusal`.
        || ends(recent, b"\"data\":")
        || ends(recent, b"4_json\":")
        || ends(recent, b"efusal\":")
    {
        TEXT
    } else if ends(recent, b"\"delta\":") {
        DELTA
    } else if ends(recent, b"uments\":") {
        ARGUMENTS
    } else if ends(recent, b"sponse\":") {
        RESPONSE
    } else if ends(recent, b"tem_id\":") || ends(recent, b"\"item\":") || ends(recent, b"\"part\":") {
        PART
    } else if ends(recent, b"\"error\":") {
        ERROR
    } else if ends(recent, b"hoices\":")
        || ends(recent, b"\"type\":")
        || ends(recent, b"\"done\":")
        || ends(recent, b"\"stop\":")
        || ends(recent, b"\"usage\":")
    {
        FORM
    } else {
        NONE
    }
}
