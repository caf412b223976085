//! `citadel-agent check`: what would run on this host.

use std::io::{self, Write as _};

use crate::config::Config;
use crate::ebpf::plan::{Decision, decide};
use crate::ebpf::status::{FamilyStatus, Verdict};
use crate::ebpf::support::Support;
use crate::gpu;
use crate::host::Roots;

/// Prints what would run on this host under `config`, as text or as JSON. False when something that is configured cannot.
///
/// # Errors
/// The output cannot be written.
pub fn check(config: &Config, json: bool) -> anyhow::Result<bool> {
    let planned = decide(&config.ebpf, &Support::gather(&Roots::default()));
    let statuses: Vec<_> = planned.iter().map(|(family, decision)| FamilyStatus::planned(*family, decision)).collect();
    let gpus = gpu::pci::read_gpus(&Roots::default().sys);
    let mut out = io::stdout().lock();
    if json {
        let families: serde_json::Map<_, _> =
            statuses.iter().map(|status| (status.family.to_owned(), serde_json::json!(status))).collect();
        writeln!(out, "{:#}", serde_json::json!({ "families": families, "gpu": { "pci": gpus } }))?;
    } else {
        for ((family, decision), status) in planned.iter().zip(&statuses) {
            write!(out, "{}: {}", status.family, status.status.name())?;
            match decision {
                Decision::AttachTo { cgroup } => writeln!(out, ", attaches to {}", cgroup.display())?,
                Decision::Trace => writeln!(out, ", attaches to tracepoints")?,
                Decision::TraceCalls(variant) => {
                    writeln!(out, ", attaches by {}: {}", variant.form.name(), variant.reason)?;
                }
                Decision::Skip(_) => writeln!(out, ", {}\n  to fix it: {}", status.reason, status.remedy)?,
            }
            for program in family.programs() {
                writeln!(out, "  {} ({})", program.name, program.hook)?;
            }
        }
        let found = match gpus.join(", ") {
            none if none.is_empty() => "no NVIDIA GPU on the PCI bus".to_owned(),
            gpus => format!("NVIDIA at {gpus}, sampled every {:?}", config.gpu.sampling_interval),
        };
        writeln!(out, "gpu: {found}")?;
        writeln!(
            out,
            "models: {} configured, {} ports measured",
            config.models.ports.len(),
            config.models.measured_ports().len()
        )?;
    }
    Ok(statuses.iter().all(|status| matches!(status.status, Verdict::Ok | Verdict::Disabled)))
}
