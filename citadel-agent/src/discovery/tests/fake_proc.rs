//! A `/proc` and a cgroup hierarchy made of files, in which processes come and go as a test says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tempfile::TempDir;

use crate::host::Roots;
use crate::host::pid::Pid;

/// The tree; gone with the value.
pub(super) struct FakeProc {
    folder: TempDir,
}

/// A process to be.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    pub(super) parent: Pid,
    pub(super) start: u64,
    pub(super) name: &'a str,
    pub(super) line: &'a str,
    pub(super) cgroup: &'a str,
    /// The sockets that it holds, by inode.
    pub(super) sockets: &'a [u32],
}

impl Default for Program<'_> {
    fn default() -> Self {
        Self { parent: 1, start: 100, name: "server", line: "/bin/server", cgroup: "", sockets: &[] }
    }
}

impl FakeProc {
    /// With systemd as its first process.
    pub(super) fn new() -> Self {
        let fake = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(fake.folder.path().join("proc")).unwrap();
        fs::create_dir(fake.folder.path().join("cgroup")).unwrap();
        fake.starts(
            1,
            Program { parent: 0, start: 1, name: "systemd", line: "/sbin/init", cgroup: "init.scope", sockets: &[] },
        );
        fake
    }

    pub(super) fn roots(&self) -> Roots {
        Roots::below(self.folder.path())
    }

    pub(super) fn cgroups(&self) -> &Path {
        Box::leak(self.folder.path().join("cgroup").into_boxed_path())
    }

    /// A process begins, in place of the one that had this number.
    pub(super) fn starts(&self, pid: Pid, program: Program<'_>) {
        self.ends(pid);
        let folder = self.roots().of(pid);
        fs::create_dir_all(folder.join("fd")).unwrap();
        let Program { parent, start, name, line, cgroup, sockets } = program;
        fs::write(
            folder.join("stat"),
            format!("{pid} ({name}) S {parent}{} 0 0 0 0{} {start} 4096 1\n", " 0".repeat(9), " 0".repeat(4)),
        )
        .unwrap();
        fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
        fs::write(folder.join("cmdline"), line.replace(' ', "\0") + "\0").unwrap();
        fs::write(folder.join("cgroup"), format!("0::/{cgroup}\n")).unwrap();
        symlink(line.split(' ').next().unwrap(), folder.join("exe")).unwrap();
        symlink("/dev/null", folder.join("fd/0")).unwrap();
        for inode in sockets {
            self.opens(pid, *inode);
        }
        let members = self.folder.path().join("cgroup").join(cgroup);
        fs::create_dir_all(&members).unwrap();
        let procs = members.join("cgroup.procs");
        fs::write(&procs, fs::read_to_string(&procs).unwrap_or_default() + &format!("{pid}\n")).unwrap();
    }

    /// A process ends.
    pub(super) fn ends(&self, pid: Pid) {
        let folder = self.roots().of(pid);
        let Ok(cgroup) = fs::read_to_string(folder.join("cgroup")) else { return };
        let procs =
            self.folder.path().join("cgroup").join(cgroup.trim().trim_start_matches("0::/")).join("cgroup.procs");
        let others: Vec<String> = fs::read_to_string(&procs)
            .unwrap()
            .lines()
            .filter(|line| **line != pid.to_string())
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(procs, others.concat()).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    /// A process gets a socket.
    pub(super) fn opens(&self, pid: Pid, inode: u32) {
        symlink(format!("socket:[{inode}]"), self.roots().of(pid).join(format!("fd/{inode}"))).unwrap();
    }

    /// A process closes a socket.
    pub(super) fn closes(&self, pid: Pid, inode: u32) {
        fs::remove_file(self.roots().of(pid).join(format!("fd/{inode}"))).unwrap();
    }
}
