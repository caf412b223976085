//! Checks that need no measurement.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use rustix::fs::{Access, access, statvfs};
use rustix::process::{Resource, getrlimit};

use super::facts::Facts;
use super::{Found, Severity, error, ok, warning};
use crate::ebpf::support::{Capability, Kernel, Support};
use crate::gpu;
use crate::host::mountinfo;
use crate::http::{self, BindError, Guard};
use crate::remote_write;
use crate::state_file;

/// A capability of the shipped unit, and what does not work without it.
struct Needed {
    capability: Capability,
    /// What cannot be measured without it.
    cost: &'static str,
    /// Whether only hosts with NVIDIA GPUs need it.
    gpu: bool,
}

const NEEDED: [Needed; 6] = [
    Needed { capability: Capability::Bpf, cost: "no kernel programs, so no latency, requests or tokens", gpu: false },
    Needed { capability: Capability::NetAdmin, cost: "no requests, tokens or connections of models", gpu: false },
    Needed {
        capability: Capability::Perfmon,
        cost: "no receive queue, run queue, on-CPU time or system calls of models",
        gpu: false,
    },
    Needed {
        capability: Capability::SysPtrace,
        cost: "no processes of models that run as other users, so no unit, CPU time, memory, system calls or GPU share",
        gpu: false,
    },
    Needed {
        capability: Capability::DacReadSearch,
        cost: "no access to files in /proc and /sys, configuration files and secrets that only root can read",
        gpu: false,
    },
    Needed { capability: Capability::Syslog, cost: "no Xid errors once NVML has stopped answering", gpu: true },
];

/// Kernel version, BTF, and the locked-memory limit for its maps.
pub(super) fn kernel(facts: &Facts<'_>) -> Vec<Found> {
    let support = facts.support();
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let limit = getrlimit(Resource::Memlock).current;
    let mut found = vec![kernel_found(support, &release)];
    found.extend(memory_lock(support, limit));
    found
}

fn kernel_found(support: &Support, release: &str) -> Found {
    match (support.kernel, support.btf) {
        (Some(kernel), _) if kernel < Kernel(5, 10) => error(
            format!("Linux {release} is older than 5.10, so no kernel programs can run"),
            "boot Linux 5.10 or later",
        ),
        (_, Some(false)) => warning(
            format!("Linux {release} has no BTF, so no receive queue, run queue or system calls of models"),
            "boot a kernel with CONFIG_DEBUG_INFO_BTF=y",
        ),
        _ => ok(format!("Linux {release}, {}, with BTF", support.architecture)),
    }
}

/// Before 5.11 maps count against RLIMIT_MEMLOCK.
fn memory_lock(support: &Support, limit: Option<u64>) -> Option<Found> {
    let charged = support.kernel.is_some_and(|kernel| kernel < Kernel(5, 11));
    let limit = limit.filter(|_| charged && !support.has(Capability::SysResource))?;
    Some(error(
        format!("the locked-memory limit is {} KiB, and before Linux 5.11 BPF maps count against it", limit / 1024),
        "set LimitMEMLOCK=infinity in the unit, or run `ulimit -l unlimited` as root",
    ))
}

/// The capabilities of this process, which are those of the user who runs the check. The shipped unit has all that are
/// needed, without being root.
pub(super) fn capabilities(facts: &Facts<'_>) -> Vec<Found> {
    let gpus = facts.config.gpu.enabled && !gpu::pci::read_gpus(&facts.roots.sys).is_empty();
    capabilities_found(facts.support(), gpus)
}

fn capabilities_found(support: &Support, gpus: bool) -> Vec<Found> {
    if support.capabilities.is_none() {
        return vec![warning("cannot read the capabilities of this process", "mount /proc")];
    }
    // On kernels before 5.8, or if preferred, CAP_SYS_ADMIN includes these.
    let by_admin = |capability: Capability| {
        support.has(Capability::SysAdmin)
            && matches!(capability, Capability::Bpf | Capability::Perfmon | Capability::Syslog)
    };
    let lacks = |&&Needed { capability, .. }: &&Needed| !support.has(capability) && !by_admin(capability);
    let missing = NEEDED.iter().filter(|needed| gpus || !needed.gpu).filter(lacks);
    let found: Vec<_> = missing
        .map(|Needed { capability, cost, .. }| {
            let name = capability.name();
            error(
                format!("without {name}: {cost}"),
                format!("run as root, or give the service AmbientCapabilities={name}, as the shipped unit does"),
            )
        })
        .collect();
    if found.is_empty() { vec![ok("all capabilities that the agent needs")] } else { found }
}

/// The cgroup that the `net` programs attach to.
pub(super) fn cgroup(facts: &Facts<'_>) -> Vec<Found> {
    if !facts.config.ebpf.net {
        return vec![ok("not needed, because ebpf.net is false")];
    }
    let mount = match mountinfo::read_cgroup2_mount(&facts.roots) {
        Ok(Some(mount)) => mount,
        Ok(None) => {
            return vec![error(
                "no cgroup v2 file system is mounted",
                "boot with systemd.unified_cgroup_hierarchy=1, or run `mount -t cgroup2 none /sys/fs/cgroup/unified`",
            )];
        }
        Err(cause) => return vec![warning(format!("cannot read the list of mounts: {cause}"), "mount /proc")],
    };
    let Some(cgroup) = &facts.config.ebpf.cgroup else {
        return vec![ok(format!("root of the hierarchy, {}", mount.display()))];
    };
    vec![configured_cgroup(cgroup, &mount)]
}

fn configured_cgroup(cgroup: &Path, mount: &Path) -> Found {
    let fix = "set ebpf.cgroup to a directory of the cgroup v2 hierarchy, or remove it";
    if !cgroup.starts_with(mount) {
        return error(
            format!("{} is not below {}, where cgroup v2 is mounted", cgroup.display(), mount.display()),
            fix,
        );
    }
    match fs::metadata(cgroup) {
        Ok(metadata) if metadata.is_dir() => ok(format!("{}; only processes in it are measured", cgroup.display())),
        Ok(_) => error(format!("{} is not a directory", cgroup.display()), fix),
        Err(cause) => error(format!("{}: {cause}", cgroup.display()), fix),
    }
}

/// The agent's own ports.
pub(super) fn ports(facts: &Facts<'_>) -> Vec<Found> {
    let local = &facts.config.local;
    let ports = [("metrics_port", local.metrics_port), ("health_check_port", local.health_check_port)];
    let mut found: Vec<_> = (ports.into_iter())
        .map(|(name, port)| port_found(name, port, http::bind(local.listen_address, port).err()))
        .collect();
    found.push(match Guard::prepare(local.web_config_file.as_deref()) {
        Ok(web) => access_found(local.listen_address, web.access(), web.is_open()),
        Err(cause) => error(cause.to_string(), "correct the file; the agent does not start without it"),
    });
    found
}

/// Who can read the pages. Everyone, by default, as with other exporters: not an error.
fn access_found(address: IpAddr, access: &str, open: bool) -> Found {
    if address.is_loopback() {
        return ok(format!("only this host can reach {address}"));
    }
    let fix = "restrict the ports to the monitoring server in the firewall, or set local_collection.web_config_file";
    (Severity::Ok, access.to_owned(), if open { fix.to_owned() } else { String::new() })
}

fn port_found(name: &str, port: u16, refused: Option<BindError>) -> Found {
    match refused {
        None => ok(format!("{port} ({name}) is free")),
        Some(BindError::InUse { holder: Some(holder), .. }) if holder.name == env!("CARGO_PKG_NAME") => {
            ok(format!("{port} ({name}) is used by the running agent, PID {}", holder.pid))
        }
        // The message ends with the remedy, after a semicolon.
        Some(refused) => {
            let text = refused.to_string();
            let (text, fix) = text.split_once("; ").unwrap_or((&text, "choose another port in local_collection"));
            error(format!("{text} ({name})"), fix)
        }
    }
}

/// The directory in which samples and alerts are kept until they are delivered.
pub(super) fn state(facts: &Facts<'_>) -> Vec<Found> {
    let config = facts.config;
    let sends = !config.destinations().is_empty() || config.remote.is_some() && config.alerts.enabled;
    if !sends {
        return vec![ok("not needed, because nothing is sent")];
    }
    let folder = remote_write::folder(config);
    let mut found = vec![writable(&folder)];
    // The check is of the file system on which the directory will be created.
    let there = folder.ancestors().find(|path| path.is_dir());
    if let Some(Ok(disk)) = there.map(statvfs) {
        found.push(space(
            disk.f_bavail * disk.f_frsize,
            config.remote_write.min_free_bytes,
            config.remote_write.max_bytes,
        ));
    }
    found.extend(waiting(&folder));
    found
}

fn writable(folder: &Path) -> Found {
    let unit = "let systemd create it (StateDirectory= in the shipped unit), or set remote_write.directory";
    match access(folder, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => ok(format!("{} is writable", folder.display())),
        Err(rustix::io::Errno::NOENT) => match folder.ancestors().find(|path| path.is_dir()) {
            Some(parent) if access(parent, Access::WRITE_OK | Access::EXEC_OK).is_ok() => {
                ok(format!("{} will be created", folder.display()))
            }
            parent => {
                let parent = parent.unwrap_or(Path::new("/"));
                let own = if parent == state_file::folder() { "" } else { " by this user" };
                error(
                    format!("{} cannot be created{own}: {} is not writable", folder.display(), parent.display()),
                    unit,
                )
            }
        },
        Err(cause) => error(format!("{}: {}", folder.display(), io::Error::from(cause)), unit),
    }
}

fn space(free: u64, min_free: u64, max: u64) -> Found {
    const MIB: u64 = 1 << 20;
    if free < min_free {
        let text =
            format!("{} MiB are free, but {} MiB must stay free, so nothing is spooled", free / MIB, min_free / MIB);
        return error(text, "free up disk space, or lower remote_write.min_free_bytes");
    }
    let room = free - min_free;
    if room < max {
        let text = format!("space for {} MiB of the {} MiB that remote_write.max_bytes allows", room / MIB, max / MIB);
        return warning(text, "free up disk space, or the oldest samples are dropped in a long outage");
    }
    ok(format!("{} MiB are free", free / MIB))
}

/// Samples that the running agent has not sent yet.
fn waiting(folder: &Path) -> Option<Found> {
    let bytes = |path: &Path| -> (u64, usize) {
        let entries = fs::read_dir(path).into_iter().flatten().flatten().take(10_000);
        entries
            .filter_map(|entry| entry.metadata().ok())
            .filter(fs::Metadata::is_file)
            .fold((0, 0), |(sum, count), file| (sum + file.len(), count + 1))
    };
    let (set_aside, letters) = bytes(&folder.join("dead-letter"));
    if letters > 0 {
        return Some(warning(
            format!("{letters} batches ({} KiB) are set aside because a receiver failed on them", set_aside / 1024),
            "resend them and see the receiver's response: citadel-agent remote-write replay",
        ));
    }
    let (kept, _) = bytes(folder);
    (kept > 0).then(|| ok(format!("{} KiB in the spool", kept / 1024)))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn able() -> Support {
        Support {
            kernel: Some(Kernel(6, 1)),
            capabilities: Some(u64::MAX),
            btf: Some(true),
            architecture: "x86_64",
            ..Support::default()
        }
    }

    #[test]
    fn who_can_read_the_pages_is_said_with_what_changes_it() {
        let open = access_found(Ipv4Addr::UNSPECIFIED.into(), "anybody can", true);
        assert_eq!((open.0, open.1.as_str()), (Severity::Ok, "anybody can"));
        assert!(open.2.contains("local_collection.web_config_file"), "{open:?}");
        assert_eq!(access_found(Ipv4Addr::UNSPECIFIED.into(), "by password", false), ok("by password"));
        assert_eq!(
            access_found(Ipv4Addr::LOCALHOST.into(), "anybody can", true),
            ok("only this host can reach 127.0.0.1")
        );
    }

    #[test]
    fn each_capability_that_is_missing_is_an_error_that_names_its_cost() {
        assert_eq!(capabilities_found(&able(), true), [ok("all capabilities that the agent needs")]);
        for needed in &NEEDED {
            let name = needed.capability.name();
            let without = 1 << needed.capability.bit() | 1 << Capability::SysAdmin.bit();
            let mut support = Support { capabilities: Some(!without), ..able() };
            let found = capabilities_found(&support, true);
            assert_eq!(found.len(), 1, "{name}");
            assert_eq!(found[0].0, Severity::Error);
            assert!(found[0].1.contains(name) && found[0].1.contains(needed.cost), "{found:?}");
            assert!(found[0].2.contains(&format!("AmbientCapabilities={name}")), "{found:?}");
            // Only GPUs make Xids.
            assert_eq!(capabilities_found(&support, false)[0].0 == Severity::Ok, needed.gpu);
            support.capabilities = Some(0);
            assert_eq!(capabilities_found(&support, true).len(), NEEDED.len());
        }
    }

    #[test]
    fn the_unit_that_is_shipped_has_what_the_check_asks_for() {
        let unit = include_str!("../../../systemd/citadel-agent.service");
        let line = unit.lines().find(|line| line.starts_with("AmbientCapabilities=")).unwrap();
        let mut given: Vec<_> = line.split_once('=').unwrap().1.split_whitespace().collect();
        let mut asked: Vec<_> = NEEDED.iter().map(|needed| needed.capability.name()).collect();
        given.sort_unstable();
        asked.sort_unstable();
        assert_eq!(given, asked);
    }

    #[test]
    fn a_cgroup_that_does_not_exist_is_an_error() {
        let mount = tempfile::tempdir().unwrap();
        fs::create_dir(mount.path().join("models")).unwrap();
        fs::write(mount.path().join("file"), "").unwrap();
        let severity = |path: &Path| configured_cgroup(path, mount.path()).0;
        assert_eq!(severity(&mount.path().join("models")), Severity::Ok);
        assert_eq!(severity(&mount.path().join("absent")), Severity::Error);
        assert_eq!(severity(&mount.path().join("file")), Severity::Error);
        assert_eq!(severity(Path::new("/tmp")), Severity::Error);
    }

    #[test]
    fn a_port_that_is_taken_names_its_holder_and_the_agents_own_is_well() {
        let taken = http::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let (severity, text, fix) =
            port_found("metrics_port", port, http::bind(Ipv4Addr::LOCALHOST.into(), port).err());
        assert_eq!(severity, Severity::Error);
        assert!(text.contains(&format!("(pid {})", std::process::id())) && text.ends_with("(metrics_port)"), "{text}");
        assert!(fix.contains("stop it"), "{fix}");
        let holder = Some(http::Holder { pid: 7, name: "citadel-agent".to_owned() });
        let own = BindError::InUse { addr: (Ipv4Addr::LOCALHOST, port).into(), holder };
        assert_eq!(port_found("metrics_port", port, Some(own)).0, Severity::Ok);
        assert_eq!(port_found("metrics_port", port, None).0, Severity::Ok);
    }

    #[test]
    fn old_kernels_and_locked_memory() {
        assert_eq!(kernel_found(&able(), "6.1.0").0, Severity::Ok);
        assert_eq!(kernel_found(&Support { btf: Some(false), ..able() }, "6.1.0").0, Severity::Warning);
        let old = Support { kernel: Some(Kernel(5, 4)), ..able() };
        assert_eq!(kernel_found(&old, "5.4.0").0, Severity::Error);
        let plain = Support { kernel: Some(Kernel(5, 10)), capabilities: Some(0), ..able() };
        assert_eq!(memory_lock(&plain, Some(65536)).unwrap().0, Severity::Error);
        assert_eq!(memory_lock(&plain, None), None, "no limit");
        assert_eq!(
            memory_lock(&Support { capabilities: Some(1 << Capability::SysResource.bit()), ..plain }, Some(65536)),
            None
        );
        assert_eq!(memory_lock(&able(), Some(65536)), None, "5.11 and later charge the cgroup");
    }

    #[test]
    fn space_is_what_may_be_used() {
        assert_eq!(space(100 << 20, 512 << 20, 1 << 30).0, Severity::Error);
        assert_eq!(space(600 << 20, 512 << 20, 1 << 30).0, Severity::Warning);
        assert_eq!(space(4 << 30, 512 << 20, 1 << 30).0, Severity::Ok);
    }
}
