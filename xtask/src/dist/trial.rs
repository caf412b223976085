//! Tests the packages as a user would: lintian, install, use, purge.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::folder;
use crate::kernels::packages::Apt;
use crate::process;
use crate::workspace::Workspace;

/// The Debian releases in which it is installed.
const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// Files of dpkg, apt and the loader, which change with every package, and what does not outlive a boot.
const BOOKKEEPING: [&str; 10] = [
    "var/lib/dpkg",
    "var/log",
    "var/cache",
    "etc/ld.so.cache",
    "tmp",
    "run",
    "proc",
    "sys",
    "dev",
    // systemd-sysusers rewrites these, backups included; the user itself is checked.
    "etc/.pwd.lock",
];

/// Runs lintian: no error, and no warning that is not explained in `package/debian/lintian-overrides`.
pub(super) fn lintian(package: &Path) -> Result<()> {
    process::run(Command::new("lintian").args(["--fail-on", "error,warning", "--allow-root"]).arg(package))
}

/// Installs and purges the package, and the archive, in a fresh system of each release.
pub(super) fn install(workspace: &Workspace, package: &Path, archive: &Path) -> Result<()> {
    for release in RELEASES {
        let fresh = Fresh::make(workspace, release).with_context(|| format!("a fresh {release}"))?;
        package_in(&fresh, package).with_context(|| format!("{} in {release}", package.display()))?;
        archive_in(&fresh, archive).with_context(|| format!("{} in {release}", archive.display()))?;
        if release == RELEASES[0] {
            dev_ops_in(&fresh, workspace).context("the monitoring server")?;
        }
        eprintln!("xtask: {release}: installed, used and purged without a trace");
    }
    Ok(())
}

/// A Debian system of its own, without a kernel.
struct Fresh {
    root: PathBuf,
}

impl Fresh {
    /// Created once; remove the folder to get today's Debian.
    fn make(workspace: &Workspace, release: &str) -> Result<Self> {
        let folder = folder(workspace).join("trial");
        let root = folder.join(release);
        if !root.is_dir() {
            fs::create_dir_all(&folder)?;
            let apt = Apt::of(&folder.join(format!("apt-{release}")), Some(release))?;
            let unfinished = folder.join("unfinished");
            process::run(process::as_root(Path::new("rm"), &[])?.args(["--recursive", "--force"]).arg(&unfinished))?;
            process::run(
                process::as_root(Path::new("mmdebstrap"), &[])?
                    .args(["--quiet", "--variant=minbase", "--include=systemd,man-db,bash-completion", release])
                    .arg(&unfinished)
                    .arg(apt.sources()),
            )?;
            process::run(process::as_root(Path::new("mv"), &[])?.arg(&unfinished).arg(&root))?;
        }
        Ok(Self { root })
    }

    /// A command that runs inside it.
    fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = process::as_root(Path::new("chroot"), &[])?;
        command.arg(&self.root).args([
            "/usr/bin/env",
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        command.args(words);
        Ok(command)
    }

    fn run(&self, words: &[&str]) -> Result<()> {
        process::run(&mut self.command(words)?)
    }

    fn output(&self, words: &[&str]) -> Result<String> {
        process::output(&mut self.command(words)?)
    }

    /// Every file except those that any package changes.
    fn files(&self) -> Result<BTreeSet<String>> {
        let listed =
            process::output(process::as_root(Path::new("find"), &[])?.arg(&self.root).args(["-printf", "%P\\n"]))?;
        let counts = |path: &&str| {
            !BOOKKEEPING
                .iter()
                .any(|own| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        Ok(listed.lines().filter(counts).map(str::to_owned).collect())
    }

    fn users(&self) -> Result<(String, String)> {
        Ok((self.output(&["getent", "passwd"])?, self.output(&["getent", "group"])?))
    }

    /// Copies a file into its `/tmp` and returns the path there.
    fn carry(&self, file: &Path) -> Result<String> {
        let name = file.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        process::run(process::as_root(Path::new("cp"), &[])?.arg(file).arg(self.root.join("tmp")))?;
        Ok(format!("/tmp/{name}"))
    }

    /// What must work after an installation of either kind.
    fn works(&self) -> Result<()> {
        let version = self.output(&["citadel-agent", "version"])?;
        ensure!(version.contains(env!("CARGO_PKG_VERSION")), "unexpected version {version:?}");
        self.run(&["citadel-agent", "config", "check", CONFIG])?;
        self.run(&["systemd-analyze", "verify", "/usr/lib/systemd/system/citadel-agent.service"])?;
        let user = self.output(&["getent", "passwd", "citadel-agent"])?;
        ensure!(user.starts_with("citadel-agent:"), "the user does not exist");
        for page in ["citadel-agent.1", "citadel-agent-run.1", "citadel-agent.yaml.5"] {
            let section = &page[page.len() - 1..];
            let folder = self.root.join(format!("usr/share/man/man{section}"));
            let there = [page.to_owned(), format!("{page}.gz")].iter().any(|name| folder.join(name).is_file());
            ensure!(there, "the manual page {page} is missing");
        }
        let copyright = fs::read_to_string(self.root.join("usr/share/doc/citadel-agent/copyright"))?;
        for linked in ["  aya ", "  aya-ebpf ", "  tokio ", "Apache-2.0"] {
            ensure!(copyright.contains(linked), "the copyright file does not name {linked:?}");
        }
        let completed = self.output(&[
            "bash",
            "-c",
            "source /usr/share/bash-completion/completions/citadel-agent; COMP_WORDS=(citadel-agent conf); COMP_CWORD=1; \
             complete=$(complete -p citadel-agent | sed 's/.* -F \\([^ ]*\\) .*/\\1/'); \
             $complete citadel-agent conf citadel-agent; echo ${COMPREPLY[@]}",
        ])?;
        ensure!(completed == "config", "bash completes `conf` to {completed:?}");
        Ok(())
    }
}

const CONFIG: &str = "/etc/citadel-agent/monitoring-integration.yaml";

fn package_in(fresh: &Fresh, package: &Path) -> Result<()> {
    // Remains of a failed run.
    fresh.run(&["dpkg", "--purge", "citadel-agent"])?;
    let (before, users) = (fresh.files()?, fresh.users()?);
    let carried = fresh.carry(package)?;
    fresh.run(&["dpkg", "--install", &carried])?;
    fresh.works()?;
    let enabled = fresh.output(&["systemctl", "is-enabled", "citadel-agent.service"])?;
    ensure!(enabled == "enabled", "the unit is {enabled}");
    // An administrator's change survives upgrades and removal.
    let changed = "# changed\nlocal_collection: {metrics_port: 8123}\n";
    let config = fresh.root.join(CONFIG.trim_start_matches('/'));
    process::run(
        process::as_root(Path::new("sh"), &[])?.arg("-c").arg(format!("printf '{changed}' > {}", config.display())),
    )?;
    fresh.run(&["dpkg", "--force-confdef", "--force-confold", "--install", &carried])?;
    ensure!(fs::read_to_string(&config)? == changed, "an upgrade changed the configuration");
    fresh.run(&["dpkg", "--remove", "citadel-agent"])?;
    ensure!(config.is_file() && !fresh.root.join("usr/bin/citadel-agent").exists(), "removal");
    fresh.run(&["dpkg", "--purge", "citadel-agent"])?;
    nothing_is_left(fresh, &before, &users)
}

fn archive_in(fresh: &Fresh, archive: &Path) -> Result<()> {
    let (before, users) = (fresh.files()?, fresh.users()?);
    let carried = fresh.carry(archive)?;
    let script = format!("cd /tmp && tar --extract --file {carried} && cd citadel-agent-*/ && ./install.sh");
    fresh.run(&["sh", "-c", &script])?;
    fresh.works()?;
    fresh.run(&[
        "sh",
        "-c",
        "cd /tmp/citadel-agent-*/ && ./install.sh && test -f /etc/citadel-agent/monitoring-integration.yaml.new",
    ])?;
    fresh.run(&[
        "sh",
        "-c",
        "cd /tmp/citadel-agent-*/ && ./install.sh --purge && cd / && rm -r /tmp/citadel-agent*",
    ])?;
    nothing_is_left(fresh, &before, &users)
}

/// Runs the monitoring server's set-up twice: the second run must have nothing to do.
fn dev_ops_in(fresh: &Fresh, workspace: &Workspace) -> Result<()> {
    // Packages come from the same mirror as the system itself, whose name this machine can resolve.
    let resolver = Path::new("/etc/resolv.conf");
    process::run(
        process::as_root(Path::new("cp"), &[])?
            .args(["--dereference"])
            .arg(resolver)
            .arg(fresh.root.join("etc/resolv.conf")),
    )?;
    let deploy = fresh.root.join("tmp/deploy");
    process::run(process::as_root(Path::new("rm"), &[])?.args(["--recursive", "--force"]).arg(&deploy))?;
    process::run(
        process::as_root(Path::new("cp"), &[])?.arg("--recursive").arg(workspace.root.join("deploy")).arg(&deploy),
    )?;
    let setup = ["/tmp/deploy/dev-ops/setup.sh", "--scrape", "gpu-host-1", "--scrape", "gpu-host-2:8123"];
    fresh.run(&setup)?;
    let again = fresh.output(&setup)?;
    ensure!(again.starts_with("nothing to do"), "the second run changed something: {again}");
    fresh.run(&["promtool", "check", "config", "/etc/prometheus/prometheus.yml"])?;
    let hosts = fs::read_to_string(fresh.root.join("etc/prometheus/citadel-agents/hosts.yml"))?;
    ensure!(hosts.contains("\"gpu-host-1:8000\"") && hosts.contains("\"gpu-host-2:8123\""), "{hosts}");
    // Its own flags and files: it starts and accepts remote write.
    let script = "set -e; . /etc/prometheus/citadel.env; cd /tmp; rm -rf data; \
        prometheus $ARGS --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/tmp/data \
        --web.listen-address=127.0.0.1:19090 >/tmp/log 2>&1 & \
        for i in $(seq 100); do \
          code=$(perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:19090\") or exit; \
            print $s \"POST /api/v1/write HTTP/1.0\\r\\nContent-Encoding: snappy\\r\\nContent-Length: 1\\r\\n\\r\\n\\0\"; \
            print scalar <$s>'); \
          case \"$code\" in *204*) kill $!; wait; exit 0;; esac; sleep 0.2; \
        done; cat /tmp/log; kill $!; exit 1";
    fresh.run(&["sh", "-c", script])
}

fn nothing_is_left(fresh: &Fresh, before: &BTreeSet<String>, users: &(String, String)) -> Result<()> {
    let after = fresh.files()?;
    let left: Vec<_> = after.difference(before).collect();
    let gone: Vec<_> = before.difference(&after).collect();
    if !left.is_empty() || !gone.is_empty() {
        bail!("left behind: {left:?}; gone: {gone:?}");
    }
    ensure!(fresh.users()? == *users, "the user was not removed");
    Ok(())
}
