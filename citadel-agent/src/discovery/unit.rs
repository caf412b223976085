//! Maps a cgroup to a systemd unit, by systemd's naming of cgroups (systemd's `cg_path_get_unit`; `systemd.slice(5)`).

use std::path::{Path, PathBuf};

use crate::printable::without_hidden;

/// A unit and its cgroup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unit {
    /// Such as `citadel-phi3.service`.
    pub name: String,
    /// Relative to the root of the v2 hierarchy. Everything below it belongs to the unit.
    pub cgroup: PathBuf,
}

impl Unit {
    /// The unit of a cgroup: the first below the slices. A user's service manager is a unit too, but the units that it
    /// manages are more specific.
    #[must_use]
    pub fn of(cgroup: &Path) -> Option<Self> {
        let mut unit: Option<Self> = None;
        let mut path = PathBuf::new();
        for part in cgroup {
            path.push(part);
            // systemd prefixes names that could collide with kernel files with an underscore.
            let name = part.to_str()?;
            let name = name.strip_prefix('_').unwrap_or(name);
            if name.ends_with(".slice") {
                continue;
            }
            if !name.ends_with(".service") && !name.ends_with(".scope") {
                break;
            }
            unit = Some(Self { name: name.to_owned(), cgroup: path.clone() });
            if !name.starts_with("user@") {
                break;
            }
        }
        unit
    }

    /// Whether the unit was created for the service in it. A login session and the service managers' own units contain
    /// whatever was started there.
    #[must_use]
    pub fn is_dedicated(&self) -> bool {
        self.name != "init.scope" && !self.name.starts_with("session-") && !self.name.starts_with("user@")
    }

    /// The model that the unit is named after: NAME of `citadel-NAME.service`, unescaped.
    #[must_use]
    pub fn model(&self) -> Option<String> {
        let name = self.name.strip_prefix("citadel-")?.strip_suffix(".service")?;
        if name == "agent" {
            return None;
        }
        let name = unescape(name);
        let name = without_hidden(&name);
        (!name.trim().is_empty()).then(|| name.into_owned())
    }
}

/// Unescapes `\xHH`, by which systemd encodes bytes that are not allowed in a unit name, and each literal `-`
/// (`systemd.unit(5)`, `systemd-escape(1)`). A `-` is kept, because model names are not paths.
fn unescape(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        let byte = match rest {
            [b'\\', b'x', high, low, ..] => {
                let digit = |byte: u8| (byte as char).to_digit(16);
                digit(*high).zip(digit(*low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok())
            }
            _ => None,
        };
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &rest[4..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(cgroup: &str) -> Option<(String, String)> {
        Unit::of(Path::new(cgroup)).map(|unit| (unit.name, unit.cgroup.display().to_string()))
    }

    fn is(name: &str, cgroup: &str) -> Option<(String, String)> {
        Some((name.to_owned(), cgroup.to_owned()))
    }

    #[test]
    fn the_unit_is_the_first_below_the_slices() {
        let phi3 = "system.slice/citadel-phi3.service";
        assert_eq!(unit(phi3), is("citadel-phi3.service", phi3));
        assert_eq!(unit("system.slice/citadel-phi3.service/workers/a.scope"), is("citadel-phi3.service", phi3));
        let instance = "system.slice/system-vllm.slice/vllm@7.service";
        assert_eq!(unit(instance), is("vllm@7.service", instance));
        assert_eq!(unit("init.scope"), is("init.scope", "init.scope"));
        assert_eq!(unit("a.slice/_b.service"), is("b.service", "a.slice/_b.service"));
    }

    #[test]
    fn what_a_user_manager_runs_has_a_unit_of_its_own() {
        let user = "user.slice/user-1000.slice/user@1000.service";
        let inner = format!("{user}/app.slice/llama.service");
        assert_eq!(unit(&inner), is("llama.service", &inner));
        assert_eq!(unit(user), is("user@1000.service", user));
        assert_eq!(unit(&format!("{user}/init.scope")), is("init.scope", &format!("{user}/init.scope")));
    }

    #[test]
    fn without_systemd_there_is_none() {
        for cgroup in ["", "docker/0123", "system.slice", "lxc.payload.x/system.slice/y.service"] {
            assert_eq!(unit(cgroup), None, "{cgroup:?}");
        }
    }

    #[test]
    fn only_units_made_for_it_are_a_servers_own() {
        for (cgroup, dedicated) in [
            ("system.slice/citadel-phi3.service", true),
            ("system.slice/docker-0123.scope", true),
            ("user.slice/user-0.slice/session-3.scope", false),
            ("user.slice/user-0.slice/user@0.service", false),
            ("init.scope", false),
        ] {
            assert_eq!(Unit::of(Path::new(cgroup)).unwrap().is_dedicated(), dedicated, "{cgroup}");
        }
    }

    #[test]
    fn models_give_units_their_names() {
        let model = |name: &str| Unit { name: name.to_owned(), cgroup: PathBuf::new() }.model();
        for (unit, name) in [
            ("citadel-phi3.service", "phi3"),
            ("citadel-meta\\x2dllama.service", "meta-llama"),
            ("citadel-a-b.service", "a-b"),
            ("citadel-\\xc3\\xa9\\x202.service", "é 2"),
            ("citadel-a\\x0a\\xe2\\x80\\xaeb.service", "ab"),
            ("citadel-a\\x2.service", "a\\x2"),
            ("citadel-\\xff.service", "\u{fffd}"),
        ] {
            assert_eq!(model(unit).as_deref(), Some(name), "{unit}");
        }
        for name in ["phi3.service", "citadel-phi3.scope", "citadel-.service", "citadel-agent.service"] {
            assert_eq!(model(name), None, "{name}");
        }
    }
}
