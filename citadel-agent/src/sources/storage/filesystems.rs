//! Space of mounted file systems (`proc_pid_mounts(5)`, `statfs(2)`).
//!
//! Querying a file system whose server is gone hangs. Each is therefore queried on a thread that can be left behind:
//! the mount is then exported as in error, and not queried again until that thread has returned.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{info, warn};

use crate::host::Roots;
use crate::host::mountinfo::unescape;
use crate::host::skipped::Skipped;
use crate::metrics::catalogue::storage::{
    FS_AVAIL, FS_DEVICE_ERROR, FS_FILES, FS_FILES_FREE, FS_FREE, FS_READONLY, FS_SIZE,
};
use crate::metrics::family::{Page, Value};
use crate::sources::{Outcome, Reading};

/// Time limit for a file system.
const PATIENCE: Duration = Duration::from_secs(1);

/// Types without space of their own, as in node_exporter.
const IGNORED_TYPES: &[&str] = &[
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "erofs",
    "fusectl",
    "hugetlbfs",
    "iso9660",
    "mqueue",
    "nsfs",
    "overlay",
    "proc",
    "procfs",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "squashfs",
    "sysfs",
    "tracefs",
];

/// Mounts at or below these belong to the kernel, or are a container's view of something that is listed anyway.
const IGNORED_TREES: &[&str] = &["/dev", "/proc", "/sys"];

/// Mounts below these, but not these themselves.
const IGNORED_BELOW: &[&str] = &["/run/credentials", "/var/lib/docker", "/var/lib/containers/storage"];

pub(in crate::sources) fn read(roots: &Roots, hung: &HungMounts, page: &mut Page, skipped: &mut Skipped) -> Reading {
    // Of process 1, because a service manager may have given the agent a view of its own.
    let proc = &roots.proc;
    let mut first = Skipped::default();
    let text = first.bytes("mounts", &proc.join("1/mounts"));
    if text.is_some() {
        skipped.append(first);
    }
    // Needs a privilege.
    let text = text.or_else(|| skipped.bytes("mounts", &proc.join("self/mounts")));
    let Some(text) = text else { return Ok(Outcome::Absent) };
    let mounts = parse(&text, skipped);
    let answers = ask_all(&mounts, hung, PATIENCE, statfs);
    for (mount, answer) in mounts.iter().zip(answers) {
        add(page, mount, answer);
    }
    Ok(Outcome::Read)
}

/// A mounted file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::sources) struct Mount {
    device: String,
    path: PathBuf,
    kind: String,
    read_only: bool,
}

/// The mounts to query, without duplicates. Paths are bytes without an encoding.
pub(in crate::sources) fn parse(mounts: &[u8], skipped: &mut Skipped) -> Vec<Mount> {
    let mut seen = HashSet::new();
    let lines = mounts.strip_suffix(b"\n").unwrap_or(mounts).split(|&byte| byte == b'\n');
    lines
        .filter_map(|line| skipped.or_note(parse_line(line), "mounts", String::from_utf8_lossy(line)))
        .filter(|mount| !is_ignored(mount))
        .filter(|mount| seen.insert((mount.device.clone(), mount.path.clone(), mount.kind.clone())))
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let (device, path, kind, options) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let text = |field: &[u8]| String::from_utf8_lossy(&unescape(field)).into_owned();
    Some(Mount {
        device: text(device),
        path: PathBuf::from(std::ffi::OsString::from_vec(unescape(path))),
        kind: text(kind),
        read_only: options.split(|&byte| byte == b',').any(|option| matches!(option, b"ro" | b"emergency_ro")),
    })
}

fn is_ignored(mount: &Mount) -> bool {
    IGNORED_TYPES.contains(&mount.kind.as_str())
        || IGNORED_TREES.iter().any(|tree| mount.path.starts_with(tree))
        || IGNORED_BELOW.iter().any(|tree| mount.path.starts_with(tree) && mount.path != Path::new(tree))
}

/// Space of a file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Space {
    size: u64,
    free: u64,
    avail: u64,
    files: u64,
    files_free: u64,
}

/// Mounts that did not answer, with the blocked threads.
#[derive(Clone, Debug, Default)]
pub(in crate::sources) struct HungMounts(Arc<Mutex<HashMap<PathBuf, JoinHandle<()>>>>);

impl HungMounts {
    fn contains(&self, path: &Path) -> bool {
        let mut hung = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = hung.get(path) else { return false };
        if thread.is_finished() {
            hung.remove(path);
            info!(mount = %path.display(), "the mount answers again");
            return false;
        }
        true
    }

    fn insert(&self, path: &Path, thread: JoinHandle<()>) {
        warn!(mount = %path.display(), "the mount does not answer; exporting node_filesystem_device_error until it does");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), thread);
    }
}

/// Queries each mount, in order; `None` for those that failed or timed out.
fn ask_all(
    mounts: &[Mount],
    hung: &HungMounts,
    patience: Duration,
    ask: fn(&Path) -> io::Result<Space>,
) -> Vec<Option<Space>> {
    let mut answers = vec![None; mounts.len()];
    let mut waiting: Vec<usize> = (0..mounts.len()).filter(|&index| !hung.contains(&mounts[index].path)).collect();
    // One thread queries one mount after the other; when it hangs, another one continues with the rest.
    while !waiting.is_empty() {
        let paths: Vec<(usize, PathBuf)> = waiting.iter().map(|&index| (index, mounts[index].path.clone())).collect();
        let (sender, receiver) = mpsc::channel();
        let work = move || {
            for (index, path) in paths {
                // Nobody listens to a thread that was left behind.
                if sender.send((index, ask(&path).ok())).is_err() {
                    return;
                }
            }
        };
        let Ok(thread) = thread::Builder::new().name("statfs".to_owned()).stack_size(64 << 10).spawn(work) else {
            return answers;
        };
        let mut done = 0;
        while let Ok((index, answer)) = receiver.recv_timeout(patience) {
            answers[index] = answer;
            done += 1;
        }
        if let Some(&index) = waiting.get(done) {
            hung.insert(&mounts[index].path, thread);
        }
        waiting.drain(..waiting.len().min(done + 1));
    }
    answers
}

fn statfs(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: plain numbers, for which zeros are valid.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path is NUL-terminated, and the second argument points to a valid struct.
    if unsafe { libc::statfs(path.as_ptr(), &raw mut answer) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let block = u64::try_from(answer.f_bsize).unwrap_or_default();
    Ok(Space {
        size: answer.f_blocks.saturating_mul(block),
        free: answer.f_bfree.saturating_mul(block),
        avail: answer.f_bavail.saturating_mul(block),
        files: answer.f_files,
        files_free: answer.f_ffree,
    })
}

fn add(page: &mut Page, mount: &Mount, answer: Option<Space>) {
    let path = mount.path.to_string_lossy();
    let labels = [mount.device.as_str(), mount.kind.as_str(), &path];
    page.add(&FS_DEVICE_ERROR, labels, Value::Integer(u64::from(answer.is_none())));
    page.add(&FS_READONLY, labels, Value::Integer(u64::from(mount.read_only)));
    let Some(space) = answer else { return };
    page.add(&FS_SIZE, labels, Value::Integer(space.size));
    page.add(&FS_FREE, labels, Value::Integer(space.free));
    page.add(&FS_AVAIL, labels, Value::Integer(space.avail));
    page.add(&FS_FILES, labels, Value::Integer(space.files));
    page.add(&FS_FILES_FREE, labels, Value::Integer(space.files_free));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    fn mount(path: &str) -> Mount {
        Mount { device: "d".to_owned(), path: path.into(), kind: "nfs4".to_owned(), read_only: false }
    }

    #[test]
    fn mounts_are_parsed_and_those_without_space_left_out() {
        let text = b"/dev/md0 / ext4 rw,relatime 0 0\n\
                    proc /proc proc rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\ntmpfs /devices tmpfs ro 0 0\n\
                    nas:/m /srv/my\\040models nfs4 ro,vers=4.2 0 0\nnas:/m /srv/my\\040models nfs4 rw,vers=4.2 0 0\n\
                    overlay /var/lib/docker/overlay2/x/merged overlay rw 0 0\n/dev/sdb1 /var/lib/docker ext4 rw 0 0\nbroken\n";
        let mut skipped = Skipped::default();
        let mounts = parse(text, &mut skipped);
        let paths: Vec<_> = mounts.iter().map(|mount| (mount.path.to_str().unwrap(), mount.read_only)).collect();
        assert_eq!(paths, [("/", false), ("/devices", true), ("/srv/my models", true), ("/var/lib/docker", false)]);
        assert_eq!(skipped.summary(), "mounts: broken");
    }

    #[test]
    fn a_mount_point_of_any_bytes_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(OsStr::from_bytes(b"mod\xe8les"));
        std::fs::create_dir(&path).unwrap();
        let line = [b"/dev/sda1 ", path.as_os_str().as_bytes(), b" ext4 rw 0 0\n"].concat();
        let mounts = parse(&line, &mut Skipped::default());
        let answers = ask_all(&mounts, &HungMounts::default(), Duration::from_secs(10), statfs);
        let mut page = Page::default();
        add(&mut page, &mounts[0], answers[0]);
        let error = page.families.iter().find(|family| std::ptr::eq(family.desc, &FS_DEVICE_ERROR)).unwrap();
        assert!(matches!(error.samples[0].value, Value::Integer(0)));
        assert!(error.samples[0].labels[2].ends_with("/mod\u{fffd}les"));
    }

    #[test]
    fn a_hung_mount_is_marked_the_rest_is_asked_and_it_is_asked_again_once_it_answers() {
        static HANG: AtomicBool = AtomicBool::new(true);
        fn ask(path: &Path) -> io::Result<Space> {
            while path == Path::new("/hung") && HANG.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
            }
            if path == Path::new("/gone") {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(Space { size: 5, free: 4, avail: 3, files: 2, files_free: 1 })
        }
        let mounts = ["/a", "/hung", "/b", "/gone"].map(mount);
        let hung = HungMounts::default();
        // Waited for once: the mount that hangs is not asked again.
        let patience = Duration::from_secs(2);
        let answered = |answers: Vec<Option<Space>>| answers.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(answered(ask_all(&mounts, &hung, patience, ask)), [true, false, true, false]);
        assert!(hung.contains(Path::new("/hung")));
        // It is not asked a second time: that would take another thread at each scrape.
        assert_eq!(answered(ask_all(&mounts, &hung, patience, ask)), [true, false, true, false]);
        assert_eq!(hung.0.lock().unwrap().len(), 1);
        HANG.store(false, Ordering::Relaxed);
        let deadline = Instant::now() + Duration::from_secs(10);
        while hung.contains(Path::new("/hung")) {
            assert!(Instant::now() < deadline, "the thread that was left behind never came back");
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(answered(ask_all(&mounts, &hung, patience, ask)), [true, true, true, false]);
    }

    #[test]
    fn the_root_has_space() {
        let space = statfs(Path::new("/")).unwrap();
        assert!(space.size >= space.free && space.free >= space.avail && space.size > 0);
    }
}
