//! The glibc that a program needs: the newest symbol version that it imports from shared libraries.

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// A version of glibc.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Glibc(u32, u32);

impl fmt::Display for Glibc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The glibc of the oldest supported distribution, Ubuntu 22.04; Debian 12 has 2.36. The package's `depends` has it
/// too.
pub(super) const OLDEST: Glibc = Glibc(2, 35);

/// The version that `program` needs.
///
/// # Errors
/// The program cannot be read, or is not linked against glibc.
pub(super) fn needed_by(program: &Path) -> Result<Glibc> {
    let text = process::output(Command::new("readelf").args(["--wide", "--version-info"]).arg(program))?;
    newest(&text).with_context(|| format!("{} is not linked against glibc", program.display()))
}

/// The newest `GLIBC_X.Y` in the output of `readelf --version-info`. Weak symbols count: the loader refuses a missing
/// version whatever is bound to it, unless the version itself is marked weak.
fn newest(text: &str) -> Option<Glibc> {
    let needed = text.split_once(".gnu.version_r")?.1;
    let versions = needed.lines().filter(|line| !line.contains("Flags: WEAK"));
    versions.filter_map(|line| parse(line.split_once("Name: GLIBC_")?.1.split_whitespace().next()?)).max()
}

fn parse(version: &str) -> Option<Glibc> {
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some(Glibc(numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_needed_counts() {
        let text = "Version symbols section '.gnu.version' contains 3 entries:\n  000:   3 (GLIBC_2.38)\n\
                    Version needs section '.gnu.version_r' contains 2 entries:\n\
                    \x20 000000: Version: 1  File: libm.so.6  Cnt: 1\n  0x0010:   Name: GLIBC_2.29  Flags: none  Version: 9\n\
                    \x20 0x0020: Version: 1  File: libc.so.6  Cnt: 3\n  0x0030:   Name: GLIBC_2.4  Flags: none  Version: 3\n\
                    \x20 0x0040:   Name: GLIBC_2.34  Flags: none  Version: 4\n  0x0050:   Name: GLIBC_2.39  Flags: WEAK  Version: 5\n\
                    \x20 0x0060:   Name: GLIBC_PRIVATE  Flags: none  Version: 6\n";
        assert_eq!(newest(text), Some(Glibc(2, 34)));
        assert_eq!(newest("no version information found in this file"), None);
        assert!(Glibc(2, 4) < Glibc(2, 34) && Glibc(2, 34) <= OLDEST);
    }

    #[test]
    fn the_package_depends_on_no_other() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../citadel-agent/Cargo.toml");
        let manifest = std::fs::read_to_string(manifest).unwrap();
        assert!(manifest.contains(&format!("libc6 (>= {OLDEST})")), "`depends` must name glibc {OLDEST}");
    }

    #[test]
    fn this_program_needs_some_glibc() {
        assert!(needed_by(&std::env::current_exe().unwrap()).unwrap() >= Glibc(2, 2));
    }
}
