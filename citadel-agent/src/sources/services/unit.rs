//! What systemd says of one unit (`org.freedesktop.systemd1(5)`).

use std::collections::HashMap;
use std::path::{Component, Path};

use zbus::zvariant::OwnedValue;

/// Properties of an object, by name.
pub(super) type Properties = HashMap<String, OwnedValue>;

/// A unit.
#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::sources) struct Unit {
    /// `active`, `failed` and so on.
    pub(super) active_state: String,
    /// Finer, and different for each kind of unit: `running`, `auto-restart`.
    pub(super) sub_state: String,
    /// A service's type: `simple`, `exec`.
    pub(super) kind: Option<String>,
    /// When it became active last, in seconds since the epoch.
    pub(super) active_since: Option<f64>,
    /// How often systemd has started it again by itself.
    pub(super) restarts: Option<u64>,
    /// How its last run ended: `success`, `exit-code`, `oom-kill`.
    pub(super) result: Option<String>,
    /// How its main process ended last, and with which exit status or signal.
    pub(super) last_exit: Option<(&'static str, u64)>,
    /// Its cgroup, from the root of the hierarchy.
    cgroup: Option<String>,
}

impl Unit {
    /// A unit that is installed, but that systemd has not loaded: it does not run.
    pub(super) fn unloaded() -> Self {
        Self { active_state: "inactive".to_owned(), sub_state: "dead".to_owned(), ..Self::default() }
    }

    /// Of the properties of the unit's interface and, for a service, of that one. What is missing or of another type is not
    /// known; only a unit without a state is none.
    pub(super) fn new(unit: &Properties, service: Option<&Properties>) -> Option<Self> {
        let none = Properties::new();
        let service = service.unwrap_or(&none);
        Some(Self {
            active_state: text(unit, "ActiveState")?,
            sub_state: text(unit, "SubState").unwrap_or_default(),
            kind: text(service, "Type"),
            // Microseconds; 0 where it never was.
            active_since: number(unit, "ActiveEnterTimestamp").filter(|&time| time > 0).map(|time| time as f64 / 1e6),
            restarts: number(service, "NRestarts"),
            result: text(service, "Result"),
            last_exit: number(service, "ExecMainStatus").and_then(|status| Some((exit(service)?, status))),
            cgroup: text(service, "ControlGroup").filter(|path| !path.is_empty()),
        })
    }

    /// The unit's cgroup, to be joined to where the hierarchy is mounted.
    pub(super) fn cgroup_below_mount(&self) -> Option<&Path> {
        let path = Path::new(self.cgroup.as_deref()?.trim_start_matches('/'));
        path.components().all(|component| matches!(component, Component::Normal(_))).then_some(path)
    }
}

/// `ExecMainCode` is the `si_code` of `waitid(2)`: 0 while no main process has ended.
fn exit(service: &Properties) -> Option<&'static str> {
    match i32::try_from(number(service, "ExecMainCode")?).ok()? {
        libc::CLD_EXITED => Some("exited"),
        libc::CLD_KILLED => Some("killed"),
        libc::CLD_DUMPED => Some("dumped"),
        _ => None,
    }
}

fn text(properties: &Properties, name: &str) -> Option<String> {
    properties.get(name)?.downcast_ref::<&str>().ok().map(str::to_owned)
}

/// A number of any width; systemd has several.
fn number(properties: &Properties, name: &str) -> Option<u64> {
    let value = properties.get(name)?;
    let wide = value.downcast_ref::<u64>().ok();
    let narrow = || value.downcast_ref::<u32>().ok().map(u64::from);
    wide.or_else(narrow).or_else(|| value.downcast_ref::<i32>().ok().and_then(|value| u64::try_from(value).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zbus::zvariant::Value;

    fn properties<const N: usize>(pairs: [(&str, Value<'static>); N]) -> Properties {
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.try_to_owned().unwrap())).collect()
    }

    #[test]
    fn a_service_that_was_killed_and_started_again() {
        let unit = properties([
            ("ActiveState", "active".into()),
            ("SubState", "running".into()),
            ("ActiveEnterTimestamp", 1_600_000_000_250_000u64.into()),
        ]);
        let service = properties([
            ("Type", "exec".into()),
            ("NRestarts", 3u32.into()),
            ("Result", "success".into()),
            ("ExecMainCode", libc::CLD_KILLED.into()),
            ("ExecMainStatus", 9i32.into()),
            ("ControlGroup", "/system.slice/citadel-phi3.service".into()),
        ]);
        let unit = Unit::new(&unit, Some(&service)).unwrap();
        assert_eq!((unit.active_state.as_str(), unit.sub_state.as_str()), ("active", "running"));
        assert_eq!(
            (unit.active_since, unit.restarts, unit.last_exit),
            (Some(1_600_000_000.25), Some(3), Some(("killed", 9)))
        );
        assert_eq!(unit.cgroup_below_mount(), Some(Path::new("system.slice/citadel-phi3.service")));
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_not_known() {
        assert_eq!(Unit::new(&Properties::new(), None), None);
        assert_eq!(Unit::new(&properties([("ActiveState", 7u32.into())]), None), None);
        let unit = properties([("ActiveState", "inactive".into()), ("ActiveEnterTimestamp", 0u64.into())]);
        let service = properties([
            ("NRestarts", "three".into()),
            ("ExecMainCode", 0i32.into()),
            ("ExecMainStatus", 0i32.into()),
            ("ControlGroup", "/a/../../etc".into()),
        ]);
        let unit = Unit::new(&unit, Some(&service)).unwrap();
        assert_eq!(
            (unit.active_since, unit.restarts, unit.last_exit, unit.cgroup_below_mount()),
            (None, None, None, None)
        );
    }
}
