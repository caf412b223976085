//! A real systemd: not the host's, which these machines may not have, but a user's, which speaks the same interfaces on a bus of
//! its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::tools::{fixture, program, run};
use crate::truth::pause;

/// A running manager; ends with the value, and everything that it has started with it.
#[derive(Debug)]
pub struct Systemd {
    child: Child,
    folder: TempDir,
    /// Its cgroups outlive it: what was there before it is not its.
    cgroups: BTreeSet<PathBuf>,
}

impl Systemd {
    /// Starts a manager that knows these units, by name and text.
    ///
    /// # Panics
    /// If it does not begin; its log is in the text.
    #[must_use]
    #[track_caller]
    pub fn start(units: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("make a temporary directory");
        let path = folder.path();
        fs::create_dir(path.join("units")).expect("make a directory for units");
        for (name, text) in units {
            fs::write(path.join("units").join(name), text).expect("write a unit");
        }
        let log = File::create(path.join("log")).expect("make a log");
        // It is the first process of its namespace, so that nothing of it is left once it is killed.
        let child = Command::new(program("unshare", "util-linux"))
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"])
            .arg(fixture("systemd.sh"))
            .arg(path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start a namespace");
        let systemd = Self { child, folder, cgroups: cgroups() };
        let deadline = Instant::now() + Duration::from_secs(20);
        while !systemd.call(&["GetUnit", "s", "basic.target"]) {
            let log = fs::read_to_string(systemd.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "systemd does not begin:\n{log}");
            pause(20);
        }
        systemd
    }

    /// Where its bus is.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix:path={}", self.folder.path().join("run/bus").display())
    }

    /// Starts a unit.
    ///
    /// # Panics
    /// If the manager does not take it.
    #[track_caller]
    pub fn start_unit(&self, name: &str) {
        assert!(self.call(&["StartUnit", "ss", name, "replace"]), "start {name}");
    }

    /// Stops a unit.
    ///
    /// # Panics
    /// If the manager does not take it.
    #[track_caller]
    pub fn stop_unit(&self, name: &str) {
        assert!(self.call(&["StopUnit", "ss", name, "replace"]), "stop {name}");
    }

    /// Sends a signal to a unit's processes.
    ///
    /// # Panics
    /// If the manager does not take it.
    #[track_caller]
    pub fn kill_unit(&self, name: &str, signal: i32) {
        assert!(self.call(&["KillUnit", "ssi", name, "all", &signal.to_string()]), "kill {name}");
    }

    /// Calls the manager, by systemd's own client.
    fn call(&self, arguments: &[&str]) -> bool {
        let manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];
        let mut busctl = Command::new(program("busctl", "systemd"));
        busctl.arg(format!("--address={}", self.address())).arg("call").args(manager).args(arguments);
        busctl
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
        // Deepest first, and only what is empty goes.
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left: Vec<_> = cgroups().into_iter().filter(|path| !self.cgroups.contains(path)).collect();
            for path in left.iter().rev() {
                _ = fs::remove_dir(path);
            }
            if left.is_empty() || Instant::now() > deadline {
                break;
            }
            pause(20);
        }
    }
}

/// The cgroups of managers below this process's own, in every hierarchy; a parent comes before what is in it.
fn cgroups() -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut findmnt = Command::new("findmnt");
    let mounts = run(findmnt.args(["--noheadings", "--list", "--output", "TARGET", "--types", "cgroup,cgroup2"]));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let paths: BTreeSet<&str> = own.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
    for mount in mounts.lines() {
        for path in &paths {
            for name in ["init.scope", "app.slice", "session.slice", "background.slice"] {
                walk(&Path::new(mount.trim()).join(path.trim_start_matches('/')).join(name), &mut found);
            }
        }
    }
    found
}

fn walk(path: &Path, found: &mut BTreeSet<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else { return };
    found.insert(path.to_owned());
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        walk(&entry.path(), found);
    }
}
