//! Removes invisible characters from external text: control characters, and those that change how the surrounding text
//! looks. U+202E makes a name read backwards; U+200B makes two names look the same.

use std::borrow::Cow;
use std::fmt::Write as _;

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Removes the characters; for names.
#[must_use]
pub(crate) fn without_hidden(text: &str) -> Cow<'_, str> {
    match is_clean(text) {
        true => text.into(),
        false => text.chars().filter(|&c| !is_hidden(c)).collect::<String>().into(),
    }
}

/// Escapes each of them as `\u{202e}`; for paths, which must stay distinct.
#[must_use]
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if is_clean(text) {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        // Writing to a string cannot fail.
        _ = if is_hidden(c) { write!(plain, "{}", c.escape_unicode()) } else { plain.write_char(c) };
    }
    plain.into()
}

fn is_clean(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..0x7f).contains(&byte)) || !text.chars().any(is_hidden)
}

/// Control characters, format characters (including those for writing directions), line and paragraph separators.
fn is_hidden(c: char) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator};
    matches!(c.general_category(), Control | Format | LineSeparator | ParagraphSeparator)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hidden_character_survives_and_every_other_does() {
        let directions =
            ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}').chain(['\u{200e}', '\u{200f}', '\u{61c}']);
        let others =
            ['\0', '\n', '\t', '\x1b', '\x7f', '\u{85}', '\u{ad}', '\u{200b}', '\u{2028}', '\u{feff}', '\u{e0041}'];
        for c in directions.chain(others) {
            assert_eq!(without_hidden(&format!("a{c}b")), "ab", "{c:?}");
            assert_eq!(escaped(&format!("a{c}b")), format!("a\\u{{{:x}}}b", c as u32));
        }
        for text in ["", "meta-llama/Llama 3", "ünïcödé 模型 🦀", "a\\u{202e}"] {
            assert_eq!((&*without_hidden(text), &*escaped(text)), (text, text));
        }
    }
}
