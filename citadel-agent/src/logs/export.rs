//! systemd's [Journal Export Format](https://systemd.io/JOURNAL_EXPORT_FORMATS/), written by `journalctl
//! --output=export` and read by `systemd-journal-remote`: lines `NAME=text`, or a line `NAME`, eight bytes of length
//! and the bytes, and an empty line after each entry.
//!
//! Any user can log anything, of any length. What is kept of a field and of an entry is limited; the rest is skipped
//! and flagged.

/// Maximum number of bytes kept of a field. By default, Loki accepts lines of this length.
pub const MAX_FIELD: usize = 256 << 10;

/// Maximum number of bytes kept of an entry.
pub const MAX_ENTRY: usize = 1 << 20;

/// Maximum number of fields kept of an entry (journald's own limit is 1024).
const MAX_FIELDS: usize = 256;

/// Maximum length of a field name (journald accepts 64 bytes).
const MAX_NAME: usize = 64;

/// Maximum length of a field (`DATA_SIZE_MAX` in systemd); a larger value means a damaged stream.
const LONGEST: u64 = 768 << 20;

/// A journal entry, within the limits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fields {
    fields: Vec<(String, Vec<u8>)>,
    bytes: usize,
    /// Whether something was too long.
    pub truncated: bool,
}

impl Fields {
    /// The value of a field; the first one if it has several.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_slice())
    }

    /// The same as text; `None` if it is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Total size of all names and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a field.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        self.add(name.to_owned(), value.to_vec());
    }

    fn add(&mut self, name: String, value: Vec<u8>) {
        let room = self.bytes + name.len() + value.len() <= MAX_ENTRY && self.fields.len() < MAX_FIELDS;
        if room {
            self.bytes += name.len() + value.len();
            self.fields.push((name, value));
        } else {
            self.truncated = true;
        }
    }

    /// Writes the entry in the same format.
    pub fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in &self.fields {
            out.extend_from_slice(name.as_bytes());
            let text = std::str::from_utf8(value).is_ok_and(|text| !text.chars().any(|c| c.is_control() && c != '\t'));
            if text {
                out.push(b'=');
            } else {
                out.push(b'\n');
                out.extend_from_slice(&(value.len() as u64).to_le_bytes());
            }
            out.extend_from_slice(value);
            out.push(b'\n');
        }
        out.push(b'\n');
    }
}

/// The stream violates the format, so it is unknown where the next entry starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not in systemd's journal export format")]
pub struct Damaged;

/// An incremental parser.
#[derive(Debug, Default)]
pub struct Parser {
    /// The fields to keep besides those that the journal adds (`__CURSOR` and so on); `None`: all.
    wanted: Option<&'static [&'static str]>,
    state: ParserState,
    /// The current line or value as far as read, at most `MAX_FIELD` bytes plus a name.
    held: Vec<u8>,
    /// Whether a part of it was dropped.
    cut: bool,
    entry: Fields,
    /// Whether the current entry has a line.
    begun: bool,
}

#[derive(Debug, Default)]
enum ParserState {
    #[default]
    Line,
    /// The length of the field with this name is expected.
    Length(String),
    /// The name, and the remaining length.
    Value(String, u64),
    /// The line end after a value is expected.
    End,
}

impl Parser {
    /// A parser that keeps these fields and those that the journal adds; `None`: all.
    #[must_use]
    pub fn wanting(wanted: Option<&'static [&'static str]>) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Consumes `bytes` up to the end of an entry, which is returned; `None`: everything was consumed, and the entry
    /// continues.
    ///
    /// # Errors
    /// See [`Damaged`]: start over with a new parser and a new stream.
    pub fn next(&mut self, bytes: &mut &[u8]) -> Result<Option<Fields>, Damaged> {
        while !bytes.is_empty() {
            match &mut self.state {
                ParserState::Line => match bytes.iter().position(|&byte| byte == b'\n') {
                    None => {
                        self.hold(bytes);
                        *bytes = &[];
                    }
                    Some(end) => {
                        self.hold(&bytes[..end]);
                        *bytes = &bytes[end + 1..];
                        if let Some(entry) = self.line()? {
                            return Ok(Some(entry));
                        }
                    }
                },
                ParserState::Length(name) => {
                    let take = (8 - self.held.len()).min(bytes.len());
                    self.held.extend_from_slice(&bytes[..take]);
                    *bytes = &bytes[take..];
                    if let Ok(length) = <[u8; 8]>::try_from(self.held.as_slice()) {
                        let length = u64::from_le_bytes(length);
                        if length > LONGEST {
                            return Err(Damaged);
                        }
                        self.state = ParserState::Value(std::mem::take(name), length);
                        self.held.clear();
                        self.finish_value();
                    }
                }
                ParserState::Value(_, left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= take as u64;
                    let (value, rest) = bytes.split_at(take);
                    *bytes = rest;
                    self.hold(value);
                    self.finish_value();
                }
                ParserState::End => {
                    if bytes[0] != b'\n' {
                        return Err(Damaged);
                    }
                    *bytes = &bytes[1..];
                    self.state = ParserState::Line;
                }
            }
        }
        Ok(None)
    }

    fn hold(&mut self, bytes: &[u8]) {
        let room = (MAX_FIELD + MAX_NAME + 1).saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(&bytes[..room]);
        self.cut |= room < bytes.len();
    }

    fn finish_value(&mut self) {
        if let ParserState::Value(name, 0) = &mut self.state {
            let name = std::mem::take(name);
            self.state = ParserState::End;
            let held = std::mem::take(&mut self.held);
            self.field(&name, &held);
            self.held = held;
            self.held.clear();
        }
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        let cut = std::mem::take(&mut self.cut) || value.len() > MAX_FIELD;
        if self.wanted.is_none_or(|wanted| name.starts_with("__") || wanted.contains(&name)) {
            self.entry.truncated |= cut;
            self.entry.add(name.to_owned(), value[..value.len().min(MAX_FIELD)].to_vec());
        }
    }

    /// Handles a complete line.
    fn line(&mut self) -> Result<Option<Fields>, Damaged> {
        if self.held.is_empty() {
            let entry = std::mem::take(&mut self.entry);
            // More than one empty line is allowed between entries.
            return Ok(std::mem::take(&mut self.begun).then_some(entry));
        }
        self.begun = true;
        let name_end = self.held.iter().position(|&byte| byte == b'=').unwrap_or(self.held.len());
        // Taken out, because the name borrows from it.
        let held = std::mem::take(&mut self.held);
        let valid = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let name = match std::str::from_utf8(&held[..name_end]) {
            Ok(name) if !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(valid) => name,
            _ => return Err(Damaged),
        };
        if name_end == held.len() {
            self.state = ParserState::Length(name.to_owned());
        } else {
            self.field(name, &held[name_end + 1..]);
        }
        self.held = held;
        self.held.clear();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(mut bytes: &[u8], piece: usize) -> Result<Vec<Fields>, Damaged> {
        let (mut parser, mut entries) = (Parser::default(), Vec::new());
        while !bytes.is_empty() {
            let (mut now, rest) = bytes.split_at(piece.min(bytes.len()));
            bytes = rest;
            while let Some(entry) = parser.next(&mut now)? {
                entries.push(entry);
            }
        }
        Ok(entries)
    }

    fn entry(fields: &[(&str, &[u8])]) -> Fields {
        let mut entry = Fields::default();
        fields.iter().for_each(|(name, value)| entry.push(name, value));
        entry
    }

    #[test]
    fn an_entry_comes_out_as_it_went_in_however_it_is_cut() {
        let entries = [
            entry(&[("__CURSOR", b"s=1"), ("MESSAGE", b"one line"), ("PRIORITY", b"6")]),
            entry(&[("MESSAGE", b"two\nlines"), ("A", b""), ("A", b"again=1")]),
            entry(&[("MESSAGE", b"\xff\0\n\n"), ("B", b"\n")]),
        ];
        let mut bytes = b"\n".to_vec();
        entries.iter().for_each(|entry| entry.write(&mut bytes));
        for piece in 1..bytes.len() {
            assert_eq!(parse(&bytes, piece).unwrap(), entries, "{piece}");
        }
    }

    #[test]
    fn what_is_too_long_is_cut_and_noted_and_the_next_entry_is_whole() {
        let long = vec![b'x'; 3 << 20];
        let mut bytes = Vec::new();
        for binary in [false, true] {
            let mut long = long.clone();
            long[7] = if binary { b'\n' } else { b'x' };
            entry(&[("__CURSOR", b"s=1")]).write(&mut bytes);
            bytes.pop();
            bytes.extend_from_slice(if binary { b"MESSAGE\n\0\0\x30\0\0\0\0\0" } else { b"MESSAGE=" });
            bytes.extend_from_slice(&long);
            bytes.extend_from_slice(b"\nPRIORITY=3\n\n");
        }
        entry(&[("MESSAGE", b"short")]).write(&mut bytes);
        let entries = parse(&bytes, 65_536).unwrap();
        assert_eq!(entries.len(), 3);
        for long in &entries[..2] {
            assert!(long.truncated);
            assert_eq!(long.get("MESSAGE").unwrap().len(), MAX_FIELD);
            assert_eq!((long.text("__CURSOR"), long.text("PRIORITY")), (Some("s=1"), Some("3")));
        }
        assert_eq!(entries[2], entry(&[("MESSAGE", b"short")]));
    }

    #[test]
    fn many_long_fields_are_bounded_together() {
        let mut bytes = Vec::new();
        for i in 0..600 {
            bytes.extend_from_slice(format!("F{i}=").as_bytes());
            bytes.extend_from_slice(&vec![b'x'; if i < 20 { 200_000 } else { 1 }]);
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
        let entries = parse(&bytes, 4096).unwrap();
        assert!(entries[0].truncated && entries[0].bytes() <= MAX_ENTRY && entries[0].fields.len() <= MAX_FIELDS);
    }

    #[test]
    fn only_wanted_fields_are_kept() {
        let mut bytes = Vec::new();
        entry(&[("__CURSOR", b"s=1"), ("_CMDLINE", b"x"), ("MESSAGE", b"a"), ("LONG", &[b'\n'; MAX_FIELD + 1])])
            .write(&mut bytes);
        let mut parser = Parser::wanting(Some(&["MESSAGE"]));
        let read = parser.next(&mut bytes.as_slice()).unwrap().unwrap();
        assert_eq!(read, entry(&[("__CURSOR", b"s=1"), ("MESSAGE", b"a")]));
    }

    #[test]
    fn what_is_no_entry_is_damage() {
        for bytes in
            [&b"lower=1\n"[..], b"=1\n", b"A\n\xff\xff\xff\xff\xff\xff\xff\xff", b"A\n\x01\0\0\0\0\0\0\0xy", b"\xff\n"]
        {
            assert_eq!(parse(bytes, 3), Err(Damaged), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic_or_grow(bytes in prop::collection::vec(any::<u8>(), 0..2000), piece in 1usize..100) {
            _ = parse(&bytes, piece);
        }

        #[test]
        fn any_value_survives(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6)) {
            let mut whole = Fields::default();
            values.iter().for_each(|value| whole.push("FIELD_1", value));
            let mut bytes = Vec::new();
            whole.write(&mut bytes);
            prop_assert_eq!(parse(&bytes, 7).unwrap(), [whole]);
        }
    }
}
