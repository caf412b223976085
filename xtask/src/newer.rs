//! Programs that this Debian release lacks or has in an old version, from a newer release, unpacked under
//! `target/tools` without being installed.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::kernels::packages::{self, Apt, only};
use crate::process;
use crate::workspace::Workspace;

/// The release that has them. Except for llama.cpp, their binaries need no newer libc than that of Debian 12.
const RELEASE: &str = "sid";

/// Packages unpacked into one folder.
struct Unpacked {
    folder: &'static str,
    packages: &'static [&'static str],
    /// Programs that must run here, with this argument.
    programs: &'static [&'static str],
}

const PROMETHEUS: Unpacked =
    Unpacked { folder: "prometheus-3", packages: &["prometheus", "promtool"], programs: &["prometheus", "promtool"] };

const VICTORIA_METRICS: Unpacked = Unpacked {
    folder: "victoria-metrics",
    packages: &["victoria-metrics"],
    programs: &["victoria-metrics", "vmagent", "vmalert"],
};

/// Where Prometheus 3 and promtool are, if they run here.
pub(crate) fn find_prometheus(workspace: &Workspace) -> Result<Option<String>> {
    Ok(PROMETHEUS.find(workspace))
}

/// Downloads and unpacks them.
pub(crate) fn provide_prometheus(workspace: &Workspace) -> Result<String> {
    PROMETHEUS.provide(workspace)
}

/// Where VictoriaMetrics, vmagent and vmalert are, if they run here.
pub(crate) fn find_victoria_metrics(workspace: &Workspace) -> Result<Option<String>> {
    Ok(VICTORIA_METRICS.find(workspace))
}

/// Downloads and unpacks them.
pub(crate) fn provide_victoria_metrics(workspace: &Workspace) -> Result<String> {
    VICTORIA_METRICS.provide(workspace)
}

/// llama.cpp's server with all its libraries, libc included, and the loader that goes with them.
const LLAMA: &str = "llama.cpp";

/// Where llama.cpp's server is.
pub(crate) fn find_llama(workspace: &Workspace) -> Result<Option<String>> {
    let server = workspace.tools().join(LLAMA).join("usr/bin/llama-server");
    Ok(server.is_file().then(|| server.display().to_string()))
}

/// Downloads and unpacks it. Whether it runs here is seen by the test, which starts it.
pub(crate) fn provide_llama(workspace: &Workspace) -> Result<String> {
    let folder = workspace.tools().join(LLAMA);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    packages::unpack(&folder, Some(RELEASE), &["llama.cpp-tools"], &folder)?;
    // Package lists and archives that are not needed again.
    fs::remove_dir_all(folder.join("apt"))?;
    find_llama(workspace)?.with_context(|| format!("Debian {RELEASE}'s llama.cpp-tools has no llama-server"))
}

impl Unpacked {
    fn folder(&self, workspace: &Workspace) -> PathBuf {
        workspace.tools().join(self.folder)
    }

    fn program(&self, workspace: &Workspace, program: &str) -> PathBuf {
        self.folder(workspace).join("usr/bin").join(program)
    }

    fn find(&self, workspace: &Workspace) -> Option<String> {
        let runs = |program: &&str| process::succeeds(Command::new(self.program(workspace, program)).arg("--version"));
        let first = self.programs.first()?;
        self.programs.iter().all(runs).then(|| self.program(workspace, first).display().to_string())
    }

    fn provide(&self, workspace: &Workspace) -> Result<String> {
        let folder = self.folder(workspace);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let apt = Apt::of(&folder.join("apt"), Some(RELEASE))?;
        for package in self.packages {
            process::run(apt.command("apt-get").current_dir(&folder).args(["--quiet=2", "download", package]))?;
            let archive = only(&folder, ".deb")?;
            process::run(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(&folder))?;
            fs::remove_file(archive)?;
        }
        // A hundred megabytes of package lists that are not needed again.
        fs::remove_dir_all(folder.join("apt"))?;
        let found = self.find(workspace);
        found.with_context(|| format!("Debian {RELEASE}'s {} does not run on this machine", self.packages.join(", ")))
    }
}
