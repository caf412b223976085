//! An event that begins as the last one did.

use super::{Events, LOOK, mark};
use crate::http::Payload;
use crate::http::framer::event;
use crate::http::text::Text;

impl Events {
    /// Whether these bytes are one event, which begins as the last one did up to its output.
    // Not inlined, for the reason in `conn/observe.rs`; and not part of the global function, which the verifier would follow for
    // too long.
    #[inline(never)]
    pub(super) fn glance<P: Payload>(&mut self, payload: &mut P, offset: u32, left: u32) -> bool {
        let place = fresh!(self.place);
        if place == 0 || fresh!(self.len) != 0 || place >= left {
            return false;
        }
        if Self::hash(payload, offset, place) != fresh!(self.form) {
            return false;
        }
        let Some(word) = payload.word(offset.wrapping_add(place)) else { return false };
        if matches!(word as u8, b'"' | b'}' | b'\n') {
            return false;
        }
        // The first line end is the event's, and the last that there is.
        let blank = u32::from(fresh!(self.marks) & mark::LINES == 0);
        let rest = left.wrapping_sub(place);
        // No loop, for the reason beside `super::ROUNDS`.
        macro_rules! ends {
            ($($block:literal)+) => {$({
                let rest = rest.wrapping_sub($block * Text::LINE);
                let Some(text) = payload.text(offset.wrapping_add(left).wrapping_sub(rest)) else { return false };
                let length = text.line_length();
                if length != 0 {
                    let ends = length.wrapping_add(blank) == rest
                        && (blank == 0 || length < Text::LINE && text.word(length) as u8 == b'\n');
                    if ends {
                        self.used = left;
                        self.found = event::OUTPUT;
                    }
                    return ends;
                }
                if rest <= Text::LINE {
                    return false;
                }
            })+};
        }
        ends!(0 1);
        false
    }

    /// A number for the first `place` bytes, at least eight, of an event: the same for the same ones.
    #[inline(always)]
    pub(super) fn hash<P: Payload>(payload: &mut P, offset: u32, place: u32) -> u64 {
        let mut hash = 0u64;
        macro_rules! add {
            ($word:expr) => {
                hash = (hash ^ $word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            };
        }
        // No loops, for the reason beside `super::ROUNDS`.
        if place < Text::LINE {
            let Some(text) = payload.text(offset) else { return 0 };
            let last = place.wrapping_sub(8);
            macro_rules! words {
                ($($at:literal)+) => { $(add!(text.word(if $at < last { $at } else { last }));)+ };
            }
            words!(0 8 16 24 32 40 48 56);
            return hash;
        }
        let last = place.wrapping_sub(Text::LINE);
        macro_rules! blocks {
            ($($block:literal)+) => {$({
                // The last one ends with the bytes, and may begin in the one before.
                let is_last = $block * Text::LINE >= last;
                let from = if is_last { last } else { $block * Text::LINE };
                let Some(text) = payload.text(offset.wrapping_add(from)) else { return 0 };
                add!(text.at::<0>());
                add!(text.at::<8>());
                add!(text.at::<16>());
                add!(text.at::<24>());
                add!(text.at::<32>());
                add!(text.at::<40>());
                add!(text.at::<48>());
                add!(text.at::<56>());
                if is_last {
                    return hash;
                }
            })+};
        }
        const { assert!(LOOK == 8 * Text::LINE) };
        blocks!(0 1 2 3 4 5 6 7);
        hash
    }
}
