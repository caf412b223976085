//! The kernel and the operating system: names, versions, limits (`proc_sys_fs(5)`, `random(4)`, `uname(2)`, `os-release(5)`).

use std::collections::HashMap;
use std::ffi::CStr;

use super::outcome;
use crate::host::Roots;
use crate::host::files::read_value;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::system::{
    ENTROPY_AVAILABLE, ENTROPY_POOL_SIZE, FILEFD_ALLOCATED, FILEFD_MAXIMUM, OS_INFO, OS_VERSION, UNAME_INFO,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_filefd(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let Some(text) = skipped.text("file-nr", &roots.proc.join("sys/fs/file-nr")) else { return outcome(false) };
    add_file_nr(page, &text, skipped);
    outcome(true)
}

/// A line of three numbers: allocated, unused, and maximum file handles.
pub(in crate::sources) fn add_file_nr(page: &mut Page, text: &str, skipped: &mut Skipped) {
    for line in text.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [allocated, _, maximum] = words[..] else {
            skipped.note("file-nr", line);
            continue;
        };
        for (desc, word) in [(&FILEFD_ALLOCATED, allocated), (&FILEFD_MAXIMUM, maximum)] {
            if let Some(number) = skipped.or_note(word.parse().ok(), "file-nr", line) {
                page.add(desc, [], Value::Integer(number));
            }
        }
    }
}

pub(in crate::sources) fn read_entropy(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    let folder = roots.proc.join("sys/kernel/random");
    let mut found = false;
    for (file, desc) in [("entropy_avail", &ENTROPY_AVAILABLE), ("poolsize", &ENTROPY_POOL_SIZE)] {
        if let Some(number) = skipped.number(file, &folder.join(file)) {
            found = true;
            page.add(desc, [], Value::Integer(number));
        }
    }
    outcome(found)
}

pub(in crate::sources) fn read_uname(page: &mut Page) -> Reading {
    // SAFETY: all fields are arrays of characters, for which zeros are valid.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the argument points to a valid struct.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let labels =
        [&name.sysname, &name.release, &name.version, &name.machine, &name.nodename, &name.domainname].map(|field| {
            // SAFETY: reinterpreting an array of C characters as bytes.
            let bytes = unsafe { std::slice::from_raw_parts(field.as_ptr().cast::<u8>(), field.len()) };
            CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy()
        });
    page.add(&UNAME_INFO, labels.each_ref().map(AsRef::as_ref), Value::Integer(1));
    outcome(true)
}

/// Labels of `node_os_info`, as in the file.
const OS_LABELS: [&str; 12] = [
    "BUILD_ID",
    "ID",
    "ID_LIKE",
    "IMAGE_ID",
    "IMAGE_VERSION",
    "NAME",
    "PRETTY_NAME",
    "VARIANT",
    "VARIANT_ID",
    "VERSION",
    "VERSION_CODENAME",
    "VERSION_ID",
];

pub(in crate::sources) fn read_os(roots: &Roots, page: &mut Page, skipped: &mut Skipped) -> Reading {
    // It may have been edited, so the last line may be incomplete.
    let Some(text) = read_value(&roots.etc.join("os-release")) else { return outcome(false) };
    add_os_release(page, &text, skipped);
    outcome(true)
}

pub(in crate::sources) fn add_os_release(page: &mut Page, text: &str, skipped: &mut Skipped) {
    let fields = parse_os_release(text, skipped);
    let value = |name: &str| fields.get(name).map_or("", String::as_str);
    page.add(&OS_INFO, OS_LABELS.map(value), Value::Integer(1));
    if let Some(version) = leading_number(value("VERSION_ID")) {
        page.add(&OS_VERSION, [value("ID"), value("ID_LIKE"), value("NAME")], Value::Float(version));
    }
}

/// Assignments in shell syntax without expansion: optional quotes, and backslash escapes. Blank lines and comments are
/// allowed.
fn parse_os_release<'a>(text: &'a str, skipped: &mut Skipped) -> HashMap<&'a str, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let assignments = lines.filter_map(|line| skipped.or_note(line.split_once('='), "os-release", line));
    assignments.map(|(name, value)| (name, unquote(value))).collect()
}

fn unquote(value: &str) -> String {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    let mut quote = None;
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => plain.extend(chars.next()),
            (c, _) => plain.push(c),
        }
    }
    plain
}

/// The number at the start of a version: major, or major and minor.
fn leading_number(version: &str) -> Option<f64> {
    let major = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    if major == 0 {
        return None;
    }
    let rest = version[major..].strip_prefix('.').unwrap_or_default();
    let minor = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let end = if minor > 0 { major + 1 + minor } else { major };
    version[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_shell_like() {
        let mut skipped = Skipped::default();
        let text = "ID=debian\n# NAME=no\nNAME=\"De \\\"b\\\" GNU\"\nVARIANT='a\\b'\nBROKEN\n\nOPEN=\"x";
        let fields = parse_os_release(text, &mut skipped);
        let field = |name: &str| fields.get(name).map(String::as_str);
        assert_eq!(field("ID"), Some("debian"));
        assert_eq!(field("NAME"), Some("De \"b\" GNU"));
        assert_eq!(field("VARIANT"), Some("a\\b"));
        assert_eq!(field("OPEN"), Some("x"));
        assert_eq!((field("BROKEN"), skipped.summary().as_str()), (None, "os-release: BROKEN"));
    }

    #[test]
    fn versions_begin_with_a_number_or_are_none() {
        for (version, number) in [("12", 12.0), ("22.04", 22.04), ("9.3.1", 9.3), ("7.x", 7.0)] {
            assert_eq!(leading_number(version), Some(number), "{version}");
        }
        assert_eq!([leading_number(""), leading_number("rolling"), leading_number(".5")], [None; 3]);
    }
}
