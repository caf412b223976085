//! Finds the mount point of cgroup v2 in `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).

use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use super::Roots;
use super::files::{MAX_TEXT, read_whole};

/// Reads the mount point of the cgroup v2 hierarchy: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid hosts.
///
/// # Errors
/// `/proc/self/mountinfo` cannot be read.
pub fn read_cgroup2_mount(roots: &Roots) -> io::Result<Option<PathBuf>> {
    Ok(parse_cgroup2_mount(&read_whole(&roots.proc.join("self/mountinfo"), MAX_TEXT)?))
}

/// The mount point of the first `cgroup2` file system whose root is the root of the hierarchy, or else of any.
///
/// A container may see only a part of the hierarchy; a mount of the whole is better.
#[must_use]
pub fn parse_cgroup2_mount(mountinfo: &[u8]) -> Option<PathBuf> {
    let mut partial = None;
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let mut fields = line.split(|&byte| byte == b' ');
        let (root, mount_point) = (fields.nth(3), fields.next());
        // Optional fields end with a hyphen; the type follows.
        let kind = fields.skip_while(|&field| field != b"-").nth(1);
        if let (Some(root), Some(mount_point), Some(b"cgroup2")) = (root, mount_point, kind) {
            let path = PathBuf::from(std::ffi::OsString::from_vec(unescape(mount_point)));
            if root == b"/" {
                return Some(path);
            }
            partial.get_or_insert(path);
        }
    }
    partial
}

/// Unescapes space, tab, newline and backslash, which the kernel writes as three octal digits.
#[must_use]
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = |byte: u8| char::from(byte).to_digit(8);
        if let (b'\\', [a, b, c, after @ ..]) = (first, tail)
            && let (Some(a), Some(b), Some(c)) = (octal(*a), octal(*b), octal(*c))
            && let Ok(byte) = u8::try_from(a * 64 + b * 8 + c)
        {
            bytes.push(byte);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(text: &str) -> Option<PathBuf> {
        parse_cgroup2_mount(text.as_bytes())
    }

    #[test]
    fn a_unified_host_has_it_at_the_top() {
        let text = "25 30 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(mount(text), Some("/sys/fs/cgroup".into()));
    }

    #[test]
    fn a_hybrid_host_has_it_below() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(text), Some("/sys/fs/cgroup/unified".into()));
    }

    #[test]
    fn a_mount_of_the_whole_is_preferred_to_one_of_a_part() {
        let text = "1 1 0:1 /docker/abc /part rw - cgroup2 cgroup2 rw\n2 1 0:1 / /whole rw - cgroup2 cgroup2 rw\n";
        assert_eq!(mount(text), Some("/whole".into()));
        assert_eq!(mount("1 1 0:1 /docker/abc /part rw - cgroup2 cgroup2 rw\n"), Some("/part".into()));
    }

    #[test]
    fn escaped_paths_are_undone() {
        assert_eq!(mount("1 1 0:1 / /a\\040b\\134 rw - cgroup2 x rw\n"), Some("/a b\\".into()));
        assert_eq!(mount("1 1 0:1 / /a\\!!!\\777 rw - cgroup2 x rw\n"), Some("/a\\!!!\\777".into()));
    }

    #[test]
    fn nothing_and_garbage_give_nothing() {
        for text in ["", "\n\n", "1 2 3", "31 23 0:28 / /sys rw - tmpfs cgroup2 rw", "\u{0}\\\\ - cgroup2"] {
            assert_eq!(mount(text), None, "{text:?}");
        }
    }
}
