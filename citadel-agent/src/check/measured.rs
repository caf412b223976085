//! Checks based on one reading, with the kernel programs attached as in `run`.

use super::facts::Facts;
use super::{Found, Severity, error, ok, warning};
use crate::agent::Examined;
use crate::discovery::inventory::Model;
use crate::ebpf::status::{FamilyStatus, Verdict};
use crate::gpu::pci;
use crate::metrics::catalogue::system::TIMEX_SYNC_STATUS;

/// Each family of programs: attached briefly, then detached.
pub(super) fn probes(facts: &Facts<'_>) -> Vec<Found> {
    with(facts, |examined| examined.families.iter().map(family_found).collect())
}

fn with(facts: &Facts<'_>, found: impl FnOnce(&Examined) -> Vec<Found>) -> Vec<Found> {
    match facts.examined() {
        Ok(examined) => found(examined),
        Err(cause) => vec![error(format!("nothing can be measured: {cause}"), "see the error")],
    }
}

fn family_found(status: &FamilyStatus) -> Found {
    let FamilyStatus { family, reason, remedy, variant, programs, .. } = status;
    let names: Vec<_> = programs.iter().map(|program| program.name).collect();
    let broken = programs.iter().find(|program| program.status == Verdict::Broken);
    match (status.status, broken) {
        (Verdict::Ok, Some(program)) => warning(
            format!("{family} can be attached without {}: {}", program.name, program.reason),
            "report it with the kernel's version; everything else is measured",
        ),
        (Verdict::Ok, None) => {
            let form = variant.as_ref().map_or(String::new(), |variant| format!(" by {}", variant.form.name()));
            ok(format!("{family} can be attached{form} ({})", names.join(", ")))
        }
        (Verdict::Disabled, _) => ok(format!("{family} is disabled")),
        (Verdict::Unsupported, _) => error(format!("{family} cannot run here: {reason}"), remedy),
        (Verdict::Broken, _) => error(format!("{family} failed: {reason}"), remedy),
    }
}

/// Which models are running, and whether their processes are visible.
pub(super) fn models(facts: &Facts<'_>) -> Vec<Found> {
    with(facts, |examined| models_found(&examined.models))
}

fn models_found(models: &[Model]) -> Vec<Found> {
    let mut found: Vec<_> = models.iter().filter(|model| model.listens).map(model_found).collect();
    let absent: Vec<_> =
        models.iter().filter(|model| !model.listens).map(|model| format!("{} ({})", model.port, model.name)).collect();
    if !absent.is_empty() {
        found.push(warning(
            format!("nothing is listening on {}", absent.join(", ")),
            "start the models, or remove them from model_monitoring.ports",
        ));
    } else if found.is_empty() {
        found.push(warning(
            "no model is listening on any measured port",
            "start a model, or set model_monitoring.ports or model_monitoring.discover",
        ));
    }
    found
}

fn model_found(Model { name, port, pids, unit, exe, dormant, .. }: &Model) -> Found {
    if *dormant {
        return ok(format!("{name} on port {port}: not running; systemd starts it on the first connection"));
    }
    if pids.is_empty() {
        return warning(
            format!("{name} on port {port}: its processes are not visible"),
            "give the agent CAP_SYS_PTRACE; if the server is in a container with another PID namespace, run the agent on the host",
        );
    }
    let unit = unit.as_deref().unwrap_or("no unit");
    let exe = exe.as_ref().map_or(String::new(), |exe| format!(", {}", exe.display()));
    ok(format!("{name} on port {port}: {unit}, {} processes{exe}", pids.len()))
}

/// GPUs on the PCI bus compared with those that NVML lists.
pub(super) fn gpu(facts: &Facts<'_>) -> Vec<Found> {
    if !facts.config.gpu.enabled {
        return vec![ok("disabled")];
    }
    let on_bus = pci::read_gpus(&facts.roots.sys).len();
    let control = facts.roots.dev.join("nvidiactl");
    let refused = std::fs::File::options().read(true).write(true).open(&control).err();
    with(facts, |examined| {
        let mut found = vec![gpu_found(on_bus, &examined.gpu)];
        if let Some(cause) = refused.filter(|cause| on_bus > 0 && cause.kind() == std::io::ErrorKind::PermissionDenied)
        {
            let fix = "set DeviceAllow=char-nvidia* rw in the service, as the shipped unit does, and mode 0666 on the devices";
            found.push(error(format!("{}: {cause}", control.display()), fix));
        }
        found
    })
}

/// `status` is the GPU part of `/status`.
fn gpu_found(on_bus: usize, status: &serde_json::Value) -> Found {
    let text = |key: &str| status[key].as_str().unwrap_or_default();
    let gpus = status["gpus"].as_u64().unwrap_or(0);
    let load = "install the NVIDIA driver with libnvidia-ml.so.1, or set gpu.nvml_library; `nvidia-smi` must work";
    match text("status") {
        "ok" if usize::try_from(gpus).is_ok_and(|gpus| gpus < on_bus) => warning(
            format!("NVML lists {gpus} of {on_bus} NVIDIA GPUs on the PCI bus"),
            "see dmesg and nvidia-smi for the others",
        ),
        "ok" => ok(format!("{gpus} GPUs, driver {}", text("driver"))),
        "partly" => warning(format!("{gpus} GPUs, driver {}: {}", text("driver"), text("reason")), "see nvidia-smi"),
        "absent" | "" if on_bus == 0 => ok("no NVIDIA GPU on the PCI bus"),
        "released" => warning("NVML is released (citadel-agent gpu release)", "citadel-agent gpu resume"),
        _ => error(format!("{on_bus} NVIDIA GPUs on the PCI bus, and NVML does not answer: {}", text("reason")), load),
    }
}

/// Sources that have a check of their own.
const ELSEWHERE: [&str; 5] = ["gpu", "gpu_models", "services", "timex", "probes"];

/// All other sources.
pub(super) fn sources(facts: &Facts<'_>) -> Vec<Found> {
    with(facts, |examined| {
        let sources = examined.sources();
        let failed: Vec<_> =
            sources.iter().filter(|(name, good)| !**good && !ELSEWHERE.contains(name)).map(|(name, _)| *name).collect();
        let mut found: Vec<_> = failed.iter().map(|name| source_found(name)).collect();
        if found.is_empty() {
            found.push(ok(format!("{} is readable", sources.len())));
        }
        found
    })
}

fn source_found(name: &str) -> Found {
    let fix = match name {
        "smart" => {
            "reading disk health needs CAP_SYS_ADMIN and CAP_SYS_RAWIO: ln -s /usr/share/citadel-agent/smart.conf \
             /etc/systemd/system/citadel-agent.service.d/, or set storage.smartctl to a program that does not exist"
        }
        _ => "run with RUST_LOG=warn for the reason",
    };
    warning(format!("{name} can be read only in part"), fix)
}

/// D-Bus access to systemd, by which units are monitored.
pub(super) fn systemd(facts: &Facts<'_>) -> Vec<Found> {
    with(facts, |examined| {
        vec![match examined.sources().get("services") {
            Some(true) => ok("systemd answers on D-Bus"),
            None => ok("systemd is not running, so there are no units"),
            Some(false) => warning(
                "systemd does not answer on D-Bus, so there are no unit states",
                "install dbus, and create the agent's user with systemd-sysusers: D-Bus refuses dynamic users",
            ),
        }]
    })
}

/// Whether the clock is synchronized: samples carry its time, and receivers reject samples that are too old or too new.
pub(super) fn clock(facts: &Facts<'_>) -> Vec<Found> {
    with(facts, |examined| {
        let synchronised = examined.samples(&TIMEX_SYNC_STATUS).next().map(|(_, value)| value == 1.0);
        let sends = !facts.config.destinations().is_empty();
        vec![clock_found(synchronised, sends)]
    })
}

fn clock_found(synchronised: Option<bool>, sends: bool) -> Found {
    match synchronised {
        Some(true) => ok("synchronised"),
        Some(false) if !sends => ok("not synchronized; no samples are sent with its time"),
        Some(false) => warning(
            "not synchronized, so samples may be sent with wrong timestamps",
            "run a time synchronization service such as systemd-timesyncd or chrony",
        ),
        None => (Severity::Warning, "cannot determine whether it is synchronized".to_owned(), String::new()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ebpf::family::Family;
    use crate::ebpf::plan::{Decision, Reason};
    use crate::ebpf::support::Capability;

    #[test]
    fn a_family_that_is_wanted_and_does_not_run_is_an_error_with_its_remedy() {
        let reason = Reason::Capabilities(vec![Capability::Perfmon]);
        let (severity, text, fix) = family_found(&FamilyStatus::skipped(Family::Sched, &reason));
        assert_eq!((severity, text.as_str()), (Severity::Error, "sched cannot run here: missing CAP_PERFMON"));
        assert!(fix.contains("AmbientCapabilities=CAP_PERFMON"), "{fix}");
        let off = FamilyStatus::skipped(Family::Sched, &Reason::Disabled("sched"));
        assert_eq!(family_found(&off), ok("sched is disabled"));
        let lacking = FamilyStatus::ok(Family::Net, &Decision::Trace).lacking(("net_tokens", "too large"));
        let (severity, text, _) = family_found(&lacking);
        assert_eq!((severity, text.as_str()), (Severity::Warning, "net can be attached without net_tokens: too large"));
    }

    #[test]
    fn gpus_that_nvml_does_not_show_are_named() {
        assert_eq!(gpu_found(0, &json!({"status": "absent"})).0, Severity::Ok);
        assert_eq!(gpu_found(0, &json!(null)).0, Severity::Ok);
        assert_eq!(gpu_found(2, &json!({"status": "absent"})).0, Severity::Error);
        assert_eq!(gpu_found(2, &json!({"status": "lost", "reason": "driver mismatch"})).0, Severity::Error);
        let two = json!({"status": "ok", "gpus": 2, "driver": "570.1"});
        assert_eq!(gpu_found(2, &two), ok("2 GPUs, driver 570.1"));
        assert_eq!(gpu_found(3, &two).0, Severity::Warning);
        assert_eq!(gpu_found(2, &json!({"status": "partly", "gpus": 2, "reason": "x"})).0, Severity::Warning);
    }

    #[test]
    fn models_that_do_not_listen_and_processes_that_cannot_be_seen_are_warnings() {
        let model = |port: u16, listens, pids: &[u32]| Model {
            name: format!("m{port}"),
            port,
            listens,
            pids: pids.iter().copied().collect(),
            main: None,
            exe: None,
            unit: Some("citadel-m.service".to_owned()),
            cgroup: None,
            served: None,
            engine: None,
            dormant: false,
            unnamed: false,
        };
        let severities = |models: &[Model]| models_found(models).into_iter().map(|found| found.0).collect::<Vec<_>>();
        assert_eq!(severities(&[]), [Severity::Warning]);
        assert_eq!(severities(&[model(1, true, &[7, 8])]), [Severity::Ok]);
        assert_eq!(severities(&[model(1, true, &[])]), [Severity::Warning]);
        let found = models_found(&[model(1, true, &[7]), model(2, false, &[]), model(3, false, &[])]);
        assert_eq!(found[1].1, "nothing is listening on 2 (m2), 3 (m3)");
        assert_eq!(found[0].1, "m1 on port 1: citadel-m.service, 1 processes");
    }

    #[test]
    fn a_clock_matters_where_samples_are_sent() {
        assert_eq!(clock_found(Some(true), true).0, Severity::Ok);
        assert_eq!(clock_found(Some(false), true).0, Severity::Warning);
        assert_eq!(clock_found(Some(false), false).0, Severity::Ok);
    }
}
