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
}

/// Inside a machine: prints the state of each program, and fails where it is not as expected.
pub(super) fn tell(page: &Page) -> Result<()> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("reading the kernel's release")?;
    println!("{RELEASE}{}", release.trim());
    let programs: Vec<Program> = page
        .labels_of("citadel_probe_status")
        .map(|label| {
            let [family, name, status, reason] =
                ["family", "program", "status", "reason"].map(label).map(str::to_owned);
            Program { family, name, status, reason }
        })
        .collect();
    for Program { family, name, status, reason } in &programs {
        println!("{ROW}{family}\t{name}\t{status}\t{reason}");
    }
    let wrong = unexpected(release.trim(), &programs);
    if programs.is_empty() || !wrong.is_empty() {
        bail!("of {} programs: {}", programs.len(), wrong.join("; "));
    }
    Ok(())
}

/// Deviations from what is expected.
fn unexpected(release: &str, programs: &[Program]) -> Vec<String> {
    let mut wrong = Vec::new();
    for Program { family, name, status, reason } in programs {
        let lack = LACKS.iter().find(|(kernel, lacking, _)| release.starts_with(kernel) && family == lacking);
        let right = match lack {
            None => status == "ok",
            Some((_, _, why)) => status == "unsupported" && reason.contains(why),
        };
        if !right {
            wrong.push(format!("{name} is {status}, {reason:?}"));
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
        let [family, name, status, reason] = fields[..] else { return None };
        let [family, name, status, reason] = [family, name, status, reason].map(str::to_owned);
        Some(Program { family, name, status, reason })
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
    text += &format!(
        "| family | program |{}\n",
        kernels.iter().map(|seen| format!(" {} |", seen.release)).collect::<String>()
    );
    text += &format!("| --- | --- |{}\n", " --- |".repeat(kernels.len()));
    for (family, name) in rows {
        let of = |programs: &[Program]| {
            let found = programs.iter().find(|program| program.family == family && program.name == name);
            found.map_or("-", |program| if program.status == "ok" { "yes" } else { "no" })
        };
        let cells: String = kernels.iter().map(|seen| format!(" {} |", of(&seen.programs))).collect();
        text += &format!("| {family} | `{name}` |{cells}\n");
    }
    if !reasons.is_empty() {
        text += "\nWhere the table says no, the agent runs without this family and reports the reason:\n\n";
        for ((family, release), reason) in reasons {
            text += &format!("- {family} on {release}: {reason}.\n");
        }
    }
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
        let [family, name, status, reason] = [family, "p", status, reason].map(str::to_owned);
        Program { family, name, status, reason }
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
    }

    #[test]
    fn the_document_says_what_the_consoles_say() {
        let console = |release: &str, status: &str, reason: &str| {
            format!(
                "noise\n{RELEASE}{release}\r\n{ROW}net\tp\tok\t\r\n{ROW}recvq\tp\t{status}\t{reason}\r\n{COST}fentry\t3.1\t2.0\t1.0\r\n"
            )
        };
        let kernels =
            [console("5.10", "unsupported", "too old"), console("6.1", "ok", "")].map(|text| parse(&text).unwrap());
        let text = document(&kernels);
        for line in [
            "| family | program | 5.10 | 6.1 |",
            "| net | `p` | yes | yes |",
            "| recvq | `p` | no | yes |",
            "- recvq on 5.10: too old.",
            "| 6.1 | fentry | 3.1 | 2.0 | 1.0 |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}: {text}");
        }
        assert!(parse("noise").is_none());
    }
}
