//! Properties of a unit (`org.freedesktop.systemd1(5)`).

use std::collections::HashMap;
use std::path::{Component, Path};

use zbus::zvariant::OwnedValue;

use crate::host::skipped::Skipped;

/// Properties of an object, by name.
pub(super) type Properties = HashMap<String, OwnedValue>;

#[derive(Clone, PartialEq, Debug, Default)]
pub(in crate::sources) struct Unit {
    /// `active`, `failed` and so on.
    pub(super) active_state: String,
    /// Sub-state, which depends on the type of unit: `running`, `auto-restart`.
    pub(super) sub_state: String,
    /// A service's type: `simple`, `exec`.
    pub(super) kind: Option<String>,
    /// When it last became active, in seconds since the epoch.
    pub(super) active_since: Option<f64>,
    /// Number of automatic restarts by systemd.
    pub(super) restarts: Option<u64>,
    /// Result of its last run: `success`, `exit-code`, `oom-kill`.
    pub(super) result: Option<String>,
    /// How its main process last ended, with exit status or signal number.
    pub(super) last_exit: Option<(&'static str, u64)>,
    /// Its cgroup, relative to the root of the hierarchy.
    cgroup: Option<String>,
}

/// Seconds for which a start is recent: what the rule about aborted requests looks at.
const RECENT: f64 = 600.0;

impl Unit {
    /// A unit that is installed but not loaded: it is not running.
    pub(super) fn unloaded() -> Self {
        Self { active_state: "inactive".to_owned(), sub_state: "dead".to_owned(), ..Self::default() }
    }

    /// From the properties of the unit's interface and, for a service, of that one. Missing properties are unknown,
    /// those of another type are also recorded; only a unit without a state is invalid.
    pub(super) fn new(unit: &Properties, service: Option<&Properties>, skipped: &mut Skipped) -> Option<Self> {
        let none = Properties::new();
        let service = service.unwrap_or(&none);
        let cgroup = text(service, "ControlGroup", skipped).filter(|path| !path.is_empty());
        // Microseconds; 0 if never.
        let active_since = number(unit, "ActiveEnterTimestamp", skipped).filter(|&time| time > 0);
        let status = number(service, "ExecMainStatus", skipped);
        Some(Self {
            active_state: text(unit, "ActiveState", skipped)?,
            sub_state: text(unit, "SubState", skipped).unwrap_or_default(),
            kind: text(service, "Type", skipped),
            active_since: active_since.map(|time| time as f64 / 1e6),
            restarts: number(service, "NRestarts", skipped),
            result: text(service, "Result", skipped),
            last_exit: exit(service, skipped).zip(status),
            cgroup,
        })
    }

    /// Whether it is stopped or was started within the last minutes, and not because it failed: systemd counts restarts of its
    /// own, and starts from 0 when somebody else starts the unit.
    pub(super) fn is_stopped_on_request(&self, now: f64) -> bool {
        let failed = self.result.as_deref().is_some_and(|result| result != "success");
        let is_recent = self.active_since.is_some_and(|since| now - since < RECENT);
        !failed && self.restarts.unwrap_or(0) == 0 && (self.active_state != "active" || is_recent)
    }

    /// The unit's cgroup, relative to the mount point of the hierarchy.
    pub(super) fn cgroup_below_mount(&self) -> Option<&Path> {
        let path = Path::new(self.cgroup.as_deref()?.trim_start_matches('/'));
        path.components().all(|component| matches!(component, Component::Normal(_))).then_some(path)
    }
}

/// `ExecMainCode` is the `si_code` of `waitid(2)`: 0 before a main process has exited.
fn exit(service: &Properties, skipped: &mut Skipped) -> Option<&'static str> {
    match i32::try_from(number(service, "ExecMainCode", skipped)?).ok()? {
        libc::CLD_EXITED => Some("exited"),
        libc::CLD_KILLED => Some("killed"),
        libc::CLD_DUMPED => Some("dumped"),
        _ => None,
    }
}

fn text(properties: &Properties, name: &'static str, skipped: &mut Skipped) -> Option<String> {
    let value = properties.get(name)?;
    skipped.or_note(value.downcast_ref::<&str>().ok().map(str::to_owned), name, format_args!("{value:?}"))
}

/// A number of any width; systemd uses several.
fn number(properties: &Properties, name: &'static str, skipped: &mut Skipped) -> Option<u64> {
    let value = properties.get(name)?;
    let wide = value.downcast_ref::<u64>().ok();
    let narrow = || value.downcast_ref::<u32>().ok().map(u64::from);
    let signed = || value.downcast_ref::<i32>().ok().and_then(|value| u64::try_from(value).ok());
    skipped.or_note(wide.or_else(narrow).or_else(signed), name, format_args!("{value:?}"))
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
        let unit = Unit::new(&unit, Some(&service), &mut Skipped::default()).unwrap();
        assert_eq!((unit.active_state.as_str(), unit.sub_state.as_str()), ("active", "running"));
        assert_eq!(
            (unit.active_since, unit.restarts, unit.last_exit),
            (Some(1_600_000_000.25), Some(3), Some(("killed", 9)))
        );
        assert_eq!(unit.cgroup_below_mount(), Some(Path::new("system.slice/citadel-phi3.service")));
    }

    #[test]
    fn a_unit_that_failed_was_not_stopped_on_request() {
        let unit = |state: &str, since, restarts, result: &str| Unit {
            active_state: state.to_owned(),
            active_since: Some(since),
            restarts: Some(restarts),
            result: Some(result.to_owned()),
            ..Unit::default()
        };
        let now = 10_000.0;
        for (unit, expected) in [
            (unit("deactivating", 1000.0, 0, "success"), true),
            (unit("inactive", 1000.0, 0, "success"), true),
            (unit("active", 9900.0, 0, "success"), true),
            // It runs, and has for long.
            (unit("active", 1000.0, 0, "success"), false),
            // It was killed, and systemd started it again, or did not.
            (unit("active", 9900.0, 1, "success"), false),
            (unit("activating", 1000.0, 1, "signal"), false),
            (unit("failed", 1000.0, 0, "oom-kill"), false),
        ] {
            assert_eq!(unit.is_stopped_on_request(now), expected, "{unit:?}");
        }
    }

    #[test]
    fn what_is_missing_or_of_another_type_is_not_known_and_the_latter_noted() {
        let mut skipped = Skipped::default();
        assert_eq!((Unit::new(&Properties::new(), None, &mut skipped), skipped.count()), (None, 0));
        assert_eq!(Unit::new(&properties([("ActiveState", 7u32.into())]), None, &mut skipped), None);
        assert!(skipped.summary().starts_with("ActiveState: "), "{}", skipped.summary());
        let unit = properties([("ActiveState", "inactive".into()), ("ActiveEnterTimestamp", 0u64.into())]);
        let service = properties([
            ("NRestarts", "three".into()),
            ("ExecMainCode", 0i32.into()),
            ("ExecMainStatus", 0i32.into()),
            ("ControlGroup", "/a/../../etc".into()),
        ]);
        let mut skipped = Skipped::default();
        let unit = Unit::new(&unit, Some(&service), &mut skipped).unwrap();
        assert!(skipped.summary().starts_with("NRestarts: ") && skipped.count() == 1, "{}", skipped.summary());
        assert_eq!(
            (unit.active_since, unit.restarts, unit.last_exit, unit.cgroup_below_mount()),
            (None, None, None, None)
        );
    }
}
