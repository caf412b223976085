//! What a number is, by its key.

use crate::http::text::prefix;

/// The next byte is not part of a number.
pub(super) const TEXT: u32 = 0;
/// A number that does not matter.
pub(super) const OTHER: u32 = 1;
/// Tokens of the prompt.
pub(super) const PROMPT: u32 = 2;
/// Generated tokens.
pub(super) const COMPLETION: u32 = 3;
/// Those tokens of the prompt that were in the cache.
pub(super) const CACHED: u32 = 4;
/// Tokens from the cache, in addition to those of the prompt (Anthropic).
pub(super) const READ: u32 = 5;
/// Tokens written to the cache, in addition to those of the prompt (Anthropic).
pub(super) const CREATED: u32 = 6;
/// llama.cpp's `timings`, whose prompt excludes what was in the cache. Only if there is no usage.
pub(super) const TIMED_PROMPT: u32 = 7;
pub(super) const TIMED_COMPLETION: u32 = 8;
pub(super) const TIMED_CACHED: u32 = 9;

/// The key that ends here, with quote and colon: by its last bytes.
#[inline(always)]
pub(super) const fn of(recent: u64, earlier: u64) -> u32 {
    if recent == prefix(b"tokens\":") {
        // OpenAI's chat and completions, SGLang.
        if earlier == prefix(b"\"prompt_") {
            PROMPT
        } else if earlier == prefix(b"pletion_") {
            COMPLETION
        } else if earlier == prefix(b"\"cached_") {
            CACHED
        // OpenAI's responses, Anthropic's messages.
        } else if earlier >> 8 == prefix(b"\"input_") {
            PROMPT
        } else if earlier == prefix(b"\"output_") {
            COMPLETION
        // `cache_read_input_tokens`, `cache_creation_input_tokens`.
        } else if earlier == prefix(b"d_input_") {
            READ
        } else if earlier == prefix(b"n_input_") {
            CREATED
        // TGI's `generated_tokens`.
        } else if earlier == prefix(b"nerated_") {
            COMPLETION
        } else {
            OTHER
        }
    } else if recent == prefix(b"ompt_n\":") {
        TIMED_PROMPT
    } else if recent == prefix(b"cted_n\":") {
        TIMED_COMPLETION
    } else if recent == prefix(b"ache_n\":") {
        TIMED_CACHED
    } else if recent == prefix(b"_count\":") {
        // Ollama's `prompt_eval_count`, `eval_count`.
        if earlier == prefix(b"mpt_eval") {
            PROMPT
        } else if earlier >> 24 == prefix(b"\"eval") {
            COMPLETION
        } else {
            OTHER
        }
    } else {
        OTHER
    }
}
