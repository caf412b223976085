//! Which kernel supports which program: observed in the machines, compared with what is expected, written to
//! `docs/kernel-support.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::scrape::Page;
use crate::workspace::Workspace;

/// What a kernel lacks: prefix of its release, the family, and a part of the agent's reason. Everything else must run.
const LACKS: [(&str, &str, &str); 1] = [("5.10.", "recvq", "is older than 5.11")];

/// Prefix of a program's line on the console; fields are separated by tabs.
const ROW: &str = "GUEST PROGRAM\t";
/// Prefix of the line with the kernel release.
const RELEASE: &str = "GUEST RELEASE\t";

/// Prefix of the line with the cost of system calls in one form; fields are separated by tabs.
pub(super) const COST: &str = "GUEST COST\t";

/// What a machine has reported.
struct Seen {
    release: String,
    programs: Vec<Program>,
    /// The fields of [`COST`].
    costs: Vec<Vec<String>>,
}

/// The state of a program.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Program {
    family: String,
    name: String,
    status: String,
    reason: String,
    /// How many instructions the verifier followed, in decimal; empty if the kernel does not report it.
    verified: String,
}

/// Inside a machine: prints the state of each program, and fails where it is not as expected. `status` is the agent's
/// `/status`.
pub(super) fn tell(page: &Page, status: &str) -> Result<()> {
    let known = verified(status).context("/status lists no programs")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    println!("{RELEASE}{}", release.trim());
    let programs: Vec<Program> = page
        .labels_of("citadel_probe_status")
        .map(|label| {
            let [family, name, status, reason] =
                ["family", "program", "status", "reason"].map(label).map(str::to_owned);
            let verified = known.get(&name).map(u64::to_string).unwrap_or_default();
            Program { family, name, status, reason, verified }
        })
        .collect();
    for Program { family, name, status, reason, verified } in &programs {
        println!("{ROW}{family}\t{name}\t{status}\t{reason}\t{verified}");
    }
    let wrong = unexpected(release.trim(), &programs);
    if programs.is_empty() || !wrong.is_empty() {
        bail!("of {} programs: {}", programs.len(), wrong.join("; "));
    }
    Ok(())
}

/// Number of instructions that the verifier followed, by program; `None` if this is no `/status`.
fn verified(status: &str) -> Option<BTreeMap<String, u64>> {
    let status: serde_json::Value = serde_json::from_str(status).ok()?;
    let families = status.get("families")?.as_object()?.values();
    let programs = families.flat_map(|family| family["programs"].as_array().into_iter().flatten());
    let number = |program: &serde_json::Value| {
        Some((program["name"].as_str()?.to_owned(), program["verified_instructions"].as_u64()?))
    };
    Some(programs.filter_map(number).collect())
}

/// Deviations from what is expected.
fn unexpected(release: &str, programs: &[Program]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Program { family, name, status, reason, verified } in programs {
        let lack = LACKS.iter().find(|(kernel, lacking, _)| release.starts_with(kernel) && family == lacking);
        let right = match lack {
            None => status == "ok",
            Some((_, _, why)) => status == "unsupported" && reason.contains(why),
        };
        if !right {
            wrong.push(format!("{name} is {status}, {reason:?}"));
        }
        // Since 5.16.
        if status == "ok" && verified.is_empty() && !release.starts_with("5.10.") {
            wrong.push(format!("what the verifier followed of {name} is unknown"));
        }
    }
    wrong
}

/// Parses a machine's console.
fn parse(console: &str) -> Option<Seen> {
    let release = console.lines().find_map(|line| line.strip_prefix(RELEASE))?.trim().to_owned();
    let rows = console.lines().filter_map(|line| line.strip_prefix(ROW));
    let programs = rows.filter_map(|row| {
        let fields: Vec<&str> = row.trim_end_matches('\r').split('\t').collect();
        let [family, name, status, reason, verified] = fields[..] else { return None };
        let [family, name, status, reason, verified] = [family, name, status, reason, verified].map(str::to_owned);
        Some(Program { family, name, status, reason, verified })
    });
    let costs = console.lines().filter_map(|line| line.strip_prefix(COST));
    let costs = costs.map(|row| row.trim_end_matches('\r').split('\t').map(str::to_owned).collect());
    Some(Seen { release, programs: programs.collect(), costs: costs.collect() })
}

/// Writes the document from the consoles of all machines, oldest kernel first.
pub(super) fn write(workspace: &Workspace, consoles: &[&Path]) -> Result<()> {
    let mut kernels = Vec::new();
    for console in consoles {
        let text = String::from_utf8_lossy(&fs::read(console)?).into_owned();
        kernels.push(parse(&text).with_context(|| format!("{} mentions no program", console.display()))?);
    }
    Ok(fs::write(workspace.root.join("docs/kernel-support.md"), document(&kernels))?)
}

/// A table of all programs, with a column for each kernel.
fn table(kernels: &[Seen], rows: &[(&str, &str)], heads: &str, cell: impl Fn(&Program) -> String) -> String {
    let releases: String = kernels.iter().map(|seen| format!(" {} |", seen.release)).collect();
    let mut text = format!("| family | program |{releases}\n| --- | --- |{}\n", heads.repeat(kernels.len()));
    for (family, name) in rows {
        let of = |seen: &Seen| {
            let found = seen.programs.iter().find(|program| program.family == *family && program.name == *name);
            format!(" {} |", found.map_or_else(|| "-".to_owned(), &cell))
        };
        text += &format!("| {family} | `{name}` |{}\n", kernels.iter().map(of).collect::<String>());
    }
    text
}

fn document(kernels: &[Seen]) -> String {
    let mut rows: Vec<(&str, &str)> = Vec::new();
    let mut reasons: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for Seen { release, programs, .. } in kernels {
        for program in programs {
            if !rows.contains(&(&program.family, &program.name)) {
                rows.push((&program.family, &program.name));
            }
            if !program.reason.is_empty() {
                reasons.insert((&program.family, release), &program.reason);
            }
        }
    }
    let mut text = "# Kernel support\n\nWritten by `cargo xtask kernels`, which boots Debian's kernels in QEMU, loads \
         and attaches every program on each, and compares the agent's values with the ground truth of a client and a \
         server. Do not edit.\n\n"
        .to_owned();
    text += &table(kernels, &rows, " --- |", |program| if program.status == "ok" { "yes" } else { "no" }.to_owned());
    if !reasons.is_empty() {
        text += "\nWhere the table says no, the agent runs without this family and reports the reason:\n\n";
        for ((family, release), reason) in reasons {
            text += &format!("- {family} on {release}: {reason}.\n");
        }
    }
    text += "\n## What the verifier follows\n\nThe number of instructions that the kernel's verifier followed until it accepted a \
         program, which is most of the time that the agent takes to start. For `syscalls_enter` and \
         `syscalls_exit`, which are a program at each measured call, it is the sum. Linux reports it since 5.16.\n\n";
    text += &table(kernels, &rows, " ---: |", |program| match program.verified.as_str() {
        "" => "-".to_owned(),
        number => number.to_owned(),
    });
    text += "\n## What system calls cost\n\nOnly the `syscalls` family, in both forms: the time of a short call (a \
         `read` that fails) relative to its time without the agent. The clock of the emulated machine counts each \
         instruction as one nanosecond, so the figures are ratios of instructions and are reproducible, but differ \
         from those of a real processor. Each is the minimum of ten rounds. On each kernel, both forms counted every \
         call and error of a known number: each supported call, including those that are disabled by default, was \
         attached, made by a model's process, and counted with its error. (Linux 5.10 has no epoll_pwait2.)\n\n\
             | kernel | form | measured call of a model | of another process | call that is not measured |\n\
             | --- | --- | ---: | ---: | ---: |\n";
    for Seen { release, costs, .. } in kernels {
        for cost in costs {
            text += &format!("| {release} | {} |\n", cost.join(" | "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(family: &str, status: &str, reason: &str) -> Program {
        let [family, name, status, reason, verified] = [family, "p", status, reason, "1"].map(str::to_owned);
        Program { family, name, status, reason, verified }
    }

    #[test]
    fn what_a_kernel_lacks_must_be_absent_for_the_right_reason() {
        let lacking = program("recvq", "unsupported", "Linux 5.10 is older than 5.11");
        assert!(unexpected("5.10.0-1", std::slice::from_ref(&lacking)).is_empty());
        assert_eq!(unexpected("6.1.0-1", &[lacking]).len(), 1);
        assert_eq!(unexpected("5.10.0-1", &[program("recvq", "ok", "")]).len(), 1);
        assert_eq!(unexpected("5.10.0-1", &[program("recvq", "unsupported", "no BTF")]).len(), 1);
        assert_eq!(unexpected("5.10.0-1", &[program("net", "broken", "x")]).len(), 1);
        assert!(unexpected("6.1.0-1", &[program("net", "ok", "")]).is_empty());
        let unknown = Program { verified: String::new(), ..program("net", "ok", "") };
        assert!(unexpected("5.10.0-1", std::slice::from_ref(&unknown)).is_empty());
        assert_eq!(unexpected("6.1.0-1", &[unknown]).len(), 1);
    }

    #[test]
    fn the_document_says_what_the_consoles_say() {
        let console = |release: &str, status: &str, reason: &str, verified: &str| {
            format!(
                "noise\n{RELEASE}{release}\r\n{ROW}net\tp\tok\t\t{verified}\r\n{ROW}recvq\tp\t{status}\t{reason}\t\r\n{COST}fentry\t3.1\t2.0\t1.0\r\n"
            )
        };
        let kernels = [console("5.10", "unsupported", "too old", ""), console("6.1", "ok", "", "238761")]
            .map(|text| parse(&text).unwrap());
        let text = document(&kernels);
        for line in [
            "| family | program | 5.10 | 6.1 |",
            "| net | `p` | yes | yes |",
            "| recvq | `p` | no | yes |",
            "| net | `p` | - | 238761 |",
            "- recvq on 5.10: too old.",
            "| 6.1 | fentry | 3.1 | 2.0 | 1.0 |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert!(parse("noise").is_none());
    }

    #[test]
    fn the_verifiers_work_is_read_from_the_status() {
        let status = r#"{"families": {"net": {"programs": [
            {"name": "net_egress", "status": "ok", "reason": "", "verified_instructions": 302846},
            {"name": "net_early", "status": "ok", "reason": ""}
        ]}}}"#;
        assert_eq!(verified(status), Some(BTreeMap::from([("net_egress".to_owned(), 302_846)])));
        assert_eq!(verified("ready"), None);
    }
}
