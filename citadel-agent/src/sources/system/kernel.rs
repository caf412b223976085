//! The kernel and the operating system: names, versions, limits (`proc_sys_fs(5)`, `random(4)`, `uname(2)`, `os-release(5)`).

use std::collections::HashMap;
use std::ffi::CStr;

use super::outcome;
use crate::host::Roots;
use crate::host::files::{ReadError, read_number, read_text, read_value};
use crate::metrics::catalogue::system::{
    ENTROPY_AVAILABLE, ENTROPY_POOL_SIZE, FILEFD_ALLOCATED, FILEFD_MAXIMUM, OS_INFO, OS_VERSION, UNAME_INFO,
};
use crate::metrics::family::{Page, Value};
use crate::sources::Reading;

pub(in crate::sources) fn read_filefd(roots: &Roots, page: &mut Page) -> Reading {
    let path = roots.proc.join("sys/fs/file-nr");
    let Some(text) = read_text(&path)? else { return outcome(false) };
    let (allocated, maximum) =
        parse_file_nr(&text).ok_or_else(|| ReadError::malformed(&path, "it is not three numbers"))?;
    page.add(&FILEFD_ALLOCATED, [], Value::Integer(allocated));
    page.add(&FILEFD_MAXIMUM, [], Value::Integer(maximum));
    outcome(true)
}

/// Allocated, unused, and most file handles.
pub(super) fn parse_file_nr(text: &str) -> Option<(u64, u64)> {
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    let allocated = numbers.next()??;
    numbers.next()??;
    Some((allocated, numbers.next()??))
}

pub(in crate::sources) fn read_entropy(roots: &Roots, page: &mut Page) -> Reading {
    let folder = roots.proc.join("sys/kernel/random");
    let Some(available) = read_number(&folder.join("entropy_avail")) else { return outcome(false) };
    page.add(&ENTROPY_AVAILABLE, [], Value::Integer(available));
    if let Some(size) = read_number(&folder.join("poolsize")) {
        page.add(&ENTROPY_POOL_SIZE, [], Value::Integer(size));
    }
    outcome(true)
}

pub(in crate::sources) fn read_uname(page: &mut Page) -> Reading {
    // SAFETY: all fields are arrays of characters, for which zeros are valid.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: the argument is a valid place for the answer.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    let labels =
        [&name.sysname, &name.release, &name.version, &name.machine, &name.nodename, &name.domainname].map(|field| {
            // SAFETY: reading the array as bytes instead of as C characters changes nothing about it.
            let bytes = unsafe { std::slice::from_raw_parts(field.as_ptr().cast::<u8>(), field.len()) };
            CStr::from_bytes_until_nul(bytes).unwrap_or_default().to_string_lossy()
        });
    page.add(&UNAME_INFO, labels.each_ref().map(AsRef::as_ref), Value::Integer(1));
    outcome(true)
}

/// Labels of `node_os_info`, as the file calls them.
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

pub(in crate::sources) fn read_os(roots: &Roots, page: &mut Page) -> Reading {
    // A person may have written it, so that the end of the last line may be missing.
    let Some(text) = read_value(&roots.etc.join("os-release")) else { return outcome(false) };
    let fields = parse_os_release(&text);
    let value = |name: &str| fields.get(name).map_or("", String::as_str);
    page.add(&OS_INFO, OS_LABELS.map(value), Value::Integer(1));
    if let Some(version) = leading_number(value("VERSION_ID")) {
        page.add(&OS_VERSION, [value("ID"), value("ID_LIKE"), value("NAME")], Value::Float(version));
    }
    outcome(true)
}

/// Assignments as a shell takes them, without expansion: quotes around a value, and a backslash before what it protects.
pub(super) fn parse_os_release(text: &str) -> HashMap<&str, String> {
    let assignments = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    assignments.filter_map(|line| line.split_once('=')).map(|(name, value)| (name, unquote(value))).collect()
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

/// The number that a version begins with: major, or major and minor.
pub(super) fn leading_number(version: &str) -> Option<f64> {
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
        let fields =
            parse_os_release("ID=debian\n# NAME=no\nNAME=\"De \\\"b\\\" GNU\"\nVARIANT='a\\b'\nBROKEN\nOPEN=\"x");
        let field = |name: &str| fields.get(name).map(String::as_str);
        assert_eq!(field("ID"), Some("debian"));
        assert_eq!(field("NAME"), Some("De \"b\" GNU"));
        assert_eq!(field("VARIANT"), Some("a\\b"));
        assert_eq!(field("OPEN"), Some("x"));
        assert_eq!(field("BROKEN"), None);
    }

    #[test]
    fn versions_begin_with_a_number_or_are_none() {
        for (version, number) in [("12", 12.0), ("22.04", 22.04), ("9.3.1", 9.3), ("7.x", 7.0)] {
            assert_eq!(leading_number(version), Some(number), "{version}");
        }
        assert_eq!([leading_number(""), leading_number("rolling"), leading_number(".5")], [None; 3]);
    }

    #[test]
    fn file_handles() {
        assert_eq!(parse_file_nr("1024\t0\t9223372036854775807\n"), Some((1024, i64::MAX as u64)));
        assert_eq!([parse_file_nr(""), parse_file_nr("1 2\n"), parse_file_nr("a b c\n")], [None; 3]);
    }
}
