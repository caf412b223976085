//! What sampling GPUs costs with the fake driver: CPU time of a pass, the share of each NVML call, memory. Writes
//! `docs/gpu.md` between two marks; a real driver's own time comes on top, and `cargo xtask test --gpu` measures it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use fake_nvml::hosts;
use fake_nvml::install::Installed;
use fake_nvml::scenario::Scenario;

use super::report::environment;
use super::{Stage, agent, go_on};
use crate::group::{self, Group};
use crate::process;
use crate::scrape::{self, Page};
use crate::workspace::Workspace;

const DOCUMENT: &str = "docs/gpu.md";
const BEGIN: &str = "<!-- cargo xtask bench gpu: begin -->\n";
const END: &str = "<!-- end -->\n";

/// Upper limit of the CPU time of a pass over eight GPUs with everything switched on.
const TARGET_MS: f64 = 1.0;

/// The host for which the target must be met: 18 NVLinks per GPU, every field that the agent knows, and all keys that
/// add metrics without blocking.
const EVERYTHING: &str = "8 GPUs with 18 NVLinks, 2 processes each, everything on";

/// Arguments of `cargo xtask bench gpu`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print the figures only; docs/gpu.md stays as it is.
    #[arg(long)]
    quick: bool,
}

/// The figures of one host.
struct Figures {
    what: &'static str,
    /// Milliseconds of CPU per pass; `None` where there is nothing to sample.
    pass_ms: Option<f64>,
    resident: f64,
    page: Page,
}

pub(super) fn main(workspace: &Workspace, stage: &Stage, args: &Args) -> Result<()> {
    let library = library(workspace)?;
    let seconds = if args.quick { 5 } else { 20 };
    let measure =
        |what, scenario: Option<Scenario>| figures(stage, what, scenario.as_ref().map(|s| (s, &*library)), seconds);
    let measured = [
        measure("no GPU and no NVML", None)?,
        measure("8 GPUs, 2 processes each", Some(hosts::many(8, 2)))?,
        measure(EVERYTHING, Some(hosts::everything(8, 2)))?,
        measure("8 GPUs, 50 processes each", Some(hosts::many(8, 50)))?,
        measure("64 GPUs, 200 processes each", Some(hosts::many(64, 200)))?,
    ];
    let text = markdown(&measured)?;
    print!("{text}");
    if !args.quick {
        write(workspace, &text)?;
    }
    let eight = measured[2].pass_ms.context("the GPUs were not sampled")?;
    if eight > TARGET_MS {
        bail!("a pass over 8 GPUs with everything on takes {eight:.2} ms of CPU, more than {TARGET_MS}");
    }
    Ok(())
}

/// The fake driver, optimised, because its own time counts too.
fn library(workspace: &Workspace) -> Result<PathBuf> {
    process::run(workspace.cargo("build").args(["--locked", "--release", "--package", "fake-nvml"]))?;
    Ok(workspace.target().join("release/libfake_nvml.so"))
}

fn figures(stage: &Stage, what: &'static str, driver: Option<(&Scenario, &Path)>, seconds: u64) -> Result<Figures> {
    go_on()?;
    let folder = stage.folder.join("gpu");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let nvml = match driver {
        Some((scenario, library)) => {
            let fake = Installed::copy(library, &folder, scenario, &[]).context("cannot install the fake driver")?;
            let all = if what == EVERYTHING { "  dcgm_compat: \"4.8\"\n  nvlink_fec: true\n" } else { "" };
            format!("  nvml_library: {}\n{all}", fake.library().display())
        }
        None => String::new(),
    };
    let (port, health) = (agent::free_port()?, agent::free_port()?);
    let text = format!(
        "local_collection:\n  listen_address: \"127.0.0.1\"\n  metrics_port: {port}\n  health_check_port: {health}\n  \
         control_socket: {}\n  log_level: WARN\nmodel_monitoring:\n  ports: {{}}\n  discover: none\nebpf: {{net: false, recvq: false, sched: false}}\n\
         gpu:\n  sampling_interval: 1s\n{nvml}",
        folder.join("control.sock").display()
    );
    let config = folder.join("agent.yaml");
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    // Not as root: neither probes nor the kernel log are measured here.
    let mut command = Command::new(&stage.agent);
    command.arg("run").arg("--config").arg(&config);
    let mut group = Group::spawn("the agent", &mut command, group::log(&stage.folder, "gpu-agent"), false)?;
    let scrape = || scrape::get(port, "/metrics/gpu").map(|text| Page::parse(&text));
    let passes = |page: &Page| page.sum("citadel_gpu_samples_total", &[]).unwrap_or(0.0);
    group.wait_until(Duration::from_secs(20), || scrape::get(health, "/ready").is_ok())?;
    if driver.is_some() {
        group.wait_until(Duration::from_secs(20), || scrape().is_ok_and(|page| passes(&page) >= 3.0))?;
    }
    // Opening NVML and the first read of everything are not part of a pass.
    let before = scrape()?;
    thread::sleep(Duration::from_secs(seconds));
    let page = scrape()?;
    let cpu = |page: &Page| page.sum("citadel_gpu_sampler_cpu_seconds_total", &[]).unwrap_or(0.0);
    let done = passes(&page) - passes(&before);
    let pass_ms = (done > 0.0).then(|| (cpu(&page) - cpu(&before)) * 1e3 / done);
    let resident = page.sum("process_resident_memory_bytes", &[]).context("the agent does not report its memory")?;
    Ok(Figures { what, pass_ms, resident, page })
}

fn markdown(measured: &[Figures]) -> Result<String> {
    let mut text = format!("{}. The agent with the fake driver; the agent does nothing else.\n\n", environment()?);
    text += "| host | CPU per pass | resident memory |\n| --- | ---: | ---: |\n";
    for Figures { what, pass_ms, resident, .. } in measured {
        let pass = pass_ms.map_or("-".to_owned(), |ms| format!("{ms:.2} ms"));
        writeln!(text, "| {what} | {pass} | {:.1} MB |", resident / 1e6)?;
    }
    let eight = &measured[2].page;
    text += "\nNVML calls for 8 GPUs with everything on, mean time with the fake driver:\n\n\
             | call | calls | mean |\n| --- | ---: | ---: |\n";
    for call in eight.values("citadel_gpu_nvml_call_seconds_count", "call") {
        let labels = [("call", call)];
        let count = eight.sum("citadel_gpu_nvml_call_seconds_count", &labels).unwrap_or(0.0);
        let mean = eight.mean("citadel_gpu_nvml_call_seconds", &labels).unwrap_or(0.0);
        writeln!(text, "| {call} | {count} | {:.2} us |", mean * 1e6)?;
    }
    Ok(text)
}

fn write(workspace: &Workspace, figures: &str) -> Result<()> {
    let path = workspace.root.join(DOCUMENT);
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {DOCUMENT}"))?;
    let (head, rest) = old.split_once(BEGIN).with_context(|| format!("{DOCUMENT} has no line {BEGIN:?}"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("{DOCUMENT} has no line {END:?}"))?;
    let new = format!("{head}{BEGIN}\n{figures}\n{END}{tail}");
    fs::write(&path, new).with_context(|| format!("cannot write {DOCUMENT}"))
}
