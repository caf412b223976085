//! The result: one verdict per family, with reason and remedy. Pure data, served by `/status`, printed by
//! `citadel-agent check` (which attaches the programs too), and exported as `citadel_probe_status`.

use serde::Serialize;

use super::error::ProbeError;
use super::family::Family;
use super::plan::{Decision, Reason, Variant};

/// The verdict on a family or a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It is measuring.
    Ok,
    /// This host does not support it: nothing is wrong with the agent.
    Unsupported,
    /// Disabled in the configuration.
    Disabled,
    /// This host should support it, but it failed.
    Broken,
}

impl Verdict {
    /// Value of the label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unsupported => "unsupported",
            Self::Disabled => "disabled",
            Self::Broken => "broken",
        }
    }
}

/// One family's status.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FamilyStatus {
    /// The family's name.
    #[serde(skip)]
    pub family: &'static str,
    /// The verdict on its programs: a family runs with all of them or not at all, because half of it would count requests
    /// without their ends. Except for `net_tokens`, which may be broken while the others run.
    pub status: Verdict,
    /// Why it is not measuring; empty if it is.
    pub reason: String,
    /// How to fix it; empty if it is measuring.
    pub remedy: String,
    /// How it is attached, if there are several ways.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<Variant>,
    /// What it does not measure, for models that exceed their share of a kernel map.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub incomplete: Vec<Incomplete>,
    /// Its programs.
    pub programs: Vec<ProgramStatus>,
}

/// Something that a family does not measure for a model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Incomplete {
    /// The model's port; `None`: all models together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// As in `citadel_events_lost_total`.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
}

/// One program's status.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProgramStatus {
    /// The program's name.
    pub name: &'static str,
    /// Its verdict.
    pub status: Verdict,
    /// Why it is not running; empty if it is.
    pub reason: String,
    /// How many instructions the verifier followed until it accepted the program (since Linux 5.16).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_instructions: Option<u32>,
}

impl FamilyStatus {
    /// A family whose programs are all running, as decided.
    #[must_use]
    pub fn ok(family: Family, decision: &Decision) -> Self {
        let variant = match decision {
            Decision::TraceCalls(variant) => Some(variant.clone()),
            _ => None,
        };
        Self { variant, ..Self::of(family, Verdict::Ok, String::new(), String::new()) }
    }

    /// This family, whose other programs run without this one, which failed for this reason.
    #[must_use]
    pub fn lacking(mut self, (program, reason): (&str, &str)) -> Self {
        for lacked in self.programs.iter_mut().filter(|other| other.name == program) {
            (lacked.status, lacked.reason) = (Verdict::Broken, reason.to_owned());
        }
        self
    }

    /// A family that the plan skips.
    #[must_use]
    pub fn skipped(family: Family, reason: &Reason) -> Self {
        let verdict = if matches!(reason, Reason::Disabled(_)) { Verdict::Disabled } else { Verdict::Unsupported };
        Self::of(family, verdict, reason.to_string(), reason.remedy())
    }

    /// A family that should be running but is not.
    #[must_use]
    pub fn broken(family: Family, error: &ProbeError) -> Self {
        let mut status = Self::of(family, Verdict::Broken, error.to_string(), error.remedy().to_owned());
        if let Some(failed) = error.program() {
            for other in status.programs.iter_mut().filter(|other| other.name != failed) {
                other.reason = format!("detached because {failed} failed");
            }
        }
        status
    }

    fn of(family: Family, status: Verdict, reason: String, remedy: String) -> Self {
        let programs = family
            .programs()
            .iter()
            .map(|program| ProgramStatus {
                name: program.name,
                status,
                reason: reason.clone(),
                verified_instructions: None,
            })
            .collect();
        Self { family: family.name(), status, reason, remedy, variant: None, incomplete: Vec::new(), programs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_and_unsupported_are_told_apart() {
        assert_eq!(FamilyStatus::skipped(Family::Net, &Reason::Disabled("net")).status, Verdict::Disabled);
        let status = FamilyStatus::skipped(Family::Net, &Reason::NoCgroup2);
        assert_eq!(status.status, Verdict::Unsupported);
        assert!(!status.remedy.is_empty());
        assert!(status.programs.iter().all(|program| program.status == Verdict::Unsupported));
    }

    #[test]
    fn the_program_that_failed_keeps_the_reason() {
        let error = ProbeError::Program { program: "net_egress", error: "no".to_owned() };
        let status = FamilyStatus::broken(Family::Net, &error);
        let reason = |name| status.programs.iter().find(|program| program.name == name).unwrap().reason.as_str();
        assert_eq!(reason("net_egress"), "the kernel refused net_egress: no");
        assert_eq!(reason("net_ingress"), "detached because net_egress failed");
    }
}
