//! `citadel-agent check`: checks whether the agent works on this host.
//!
//! Everything that can be tried is tried: kernel programs are attached briefly, ports are bound, every source is read
//! once, each destination gets an empty request. Nothing is changed.

mod facts;
mod host;
mod logs;
mod measured;
mod remote;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use serde::Serialize;

use self::facts::Facts;
use crate::config::Config;

/// Severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be, or not needed.
    Ok,
    /// Works, with something missing.
    Warning,
    /// Something that is configured does not work here.
    Error,
}

impl Severity {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A finding: one line of output.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The check that found it.
    pub check: &'static str,
    /// Its severity.
    pub severity: Severity,
    /// What was found.
    pub text: String,
    /// How to fix it; empty if there is nothing to do.
    pub fix: String,
}

/// A finding before its check is known.
type Found = (Severity, String, String);

/// Everything works.
fn ok(text: impl Into<String>) -> Found {
    (Severity::Ok, text.into(), String::new())
}

/// Something is missing.
fn warning(text: impl Into<String>, fix: impl Into<String>) -> Found {
    (Severity::Warning, text.into(), fix.into())
}

/// Something does not work.
fn error(text: impl Into<String>, fix: impl Into<String>) -> Found {
    (Severity::Error, text.into(), fix.into())
}

/// A check: its name and function.
type Check = (&'static str, fn(&Facts<'_>) -> Vec<Found>);

/// All checks, ordered by their dependencies.
const CHECKS: &[Check] = &[
    ("kernel", host::kernel),
    ("capabilities", host::capabilities),
    ("cgroup", host::cgroup),
    ("probes", measured::probes),
    ("ports", host::ports),
    ("models", measured::models),
    ("gpu", measured::gpu),
    ("sources", measured::sources),
    ("systemd", measured::systemd),
    ("state", host::state),
    ("clock", measured::clock),
    ("remote-write", remote::remote_write),
    ("alerts", remote::alerts),
    ("logs", logs::logs),
    ("grafana", remote::grafana),
];

/// Names of all checks.
#[must_use]
pub fn names() -> Vec<&'static str> {
    CHECKS.iter().map(|(name, _)| *name).collect()
}

/// Output format.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// One line per finding.
    Text,
    /// One JSON object.
    Json,
}

/// Checks this host with `config`: runs all checks, or only those in `only`. Prints the findings and returns the worst
/// severity.
///
/// # Errors
/// The output cannot be written.
pub fn check(config: &Config, only: &[String], format: Format) -> io::Result<Severity> {
    let facts = Facts::new(config);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|only| only == name);
    let mut findings = Vec::new();
    let mut out = io::stdout().lock();
    for (check, run) in CHECKS.iter().filter(|(name, _)| wanted(name)) {
        for (severity, text, fix) in run(&facts) {
            let finding = Finding { check, severity, text, fix };
            if format == Format::Text {
                // Printed immediately, because some checks take seconds.
                writeln!(out, "{}", line(&finding))?;
                out.flush()?;
            }
            findings.push(finding);
        }
    }
    let worst = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
    if format == Format::Json {
        let version = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("CITADEL_COMMIT"), ")");
        let all = serde_json::json!({ "version": version, "severity": worst, "findings": findings });
        writeln!(out, "{all:#}")?;
    }
    Ok(worst)
}

/// A finding as one line of text.
fn line(Finding { check, severity, text, fix }: &Finding) -> String {
    let mut line = format!("{:<8}{check}: ", severity.name());
    // Names from a kernel, a server or a file can contain line breaks.
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.push_str(&flat(text));
    if !fix.is_empty() {
        _ = write!(line, "; to fix it: {}", flat(fix));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_with_its_fix() {
        let finding = |fix: &str| Finding {
            check: "ports",
            severity: Severity::Warning,
            text: "port 8000\nis taken".to_owned(),
            fix: fix.to_owned(),
        };
        assert_eq!(line(&finding("stop  it")), "warning ports: port 8000 is taken; to fix it: stop it");
        assert_eq!(line(&finding("")), "warning ports: port 8000 is taken");
    }

    #[test]
    fn the_worst_counts() {
        assert!(Severity::Ok < Severity::Warning && Severity::Warning < Severity::Error);
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CHECKS.len());
    }
}
