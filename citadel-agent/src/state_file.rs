//! Files of the state directory: opened without waiting and without following links, regular and of a size that is expected,
//! and the agent's alone whatever the umask.
//!
//! What a person, a backup or a broken disk leaves there in place of a file (a FIFO, a device, a link, a file of a terabyte with
//! nothing in it) is refused and named, never waited for nor read.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

/// Where state is kept when systemd does not say.
const DEFAULT_FOLDER: &str = "/var/lib/citadel-agent";

/// So many names are tried for a file that is put aside.
const ASIDES: usize = 10;

/// The state directory that systemd gives the unit, else the one that it would give.
#[must_use]
pub fn folder() -> PathBuf {
    // A list, separated by colons; the first is the one that the unit names first.
    let systemd = env::var("STATE_DIRECTORY").ok().and_then(|list| list.split(':').next().map(PathBuf::from));
    systemd.filter(|path| path.is_absolute()).unwrap_or_else(|| DEFAULT_FOLDER.into())
}

/// Opens a regular file of at most `max_bytes` for reading, and for writing if `writable`.
///
/// # Errors
/// There is none (`NotFound`), it is something else or larger (`InvalidData`), or the disk refuses.
pub fn open(path: &Path, writable: bool, max_bytes: u64) -> io::Result<File> {
    // Before it is opened, which is enough to have an effect on some devices; and after, because only then it is certain.
    check(&fs::symlink_metadata(path)?, max_bytes)?;
    let file = options().read(true).write(writable).open(path)?;
    check(&file.metadata()?, max_bytes)?;
    Ok(file)
}

/// Reads a regular file of at most `max_bytes`.
///
/// # Errors
/// As [`open`].
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow while it is read.
    open(path, false, max_bytes)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates a file where there is none, for reading and writing.
///
/// # Errors
/// There is something (`AlreadyExists`), or the disk refuses.
pub fn create_new(path: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have taken more than others' rights.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Creates a file in place of what may be there; what a link there points to stays as it is.
///
/// # Errors
/// There is a directory, or the disk refuses.
pub fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create_new(path)
}

/// Replaces a file's content: after a crash it is the old one or the new one.
///
/// # Errors
/// The disk is full, the folder is not there or not ours, and the like.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Takes the lock of a folder, which is made if it is not there; `None`: another process has it. It goes with the value. What is no
/// lock file is put aside.
///
/// # Errors
/// The disk refuses.
pub fn lock(folder: &Path) -> io::Result<Option<File>> {
    create_folder(folder)?;
    let path = folder.join("lock");
    let file = open_or_create(&path).or_else(|error| {
        if error.kind() != ErrorKind::InvalidData {
            return Err(error);
        }
        let aside = put_aside(&path, "damaged")?;
        warn!(file = %path.display(), %error, aside = %aside.display(), "this is no lock file: put aside");
        create_new(&path)
    })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(_) => Ok(None),
    }
}

/// Opens an empty file for a lock, or creates it.
///
/// # Errors
/// As [`open`] and [`create_new`].
pub fn open_or_create(path: &Path) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open(path, true, u64::MAX),
        result => result,
    }
}

/// Makes a directory, and those above it, unless they are there.
///
/// # Errors
/// Something else is there, or the disk refuses.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a directory's names through to the disk.
///
/// # Errors
/// It is gone, it is no directory, or the disk refuses.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK).open(path)?.sync_all()
}

/// Moves what is at `path` out of the way, whatever it is: its extension becomes `extension`, with a number where that is taken.
///
/// # Errors
/// The disk refuses, or all names are taken.
pub fn put_aside(path: &Path, extension: &str) -> io::Result<PathBuf> {
    let names = (0..ASIDES).map(|n| if n == 0 { extension.to_owned() } else { format!("{extension}-{n}") });
    let is_free = |aside: &PathBuf| fs::symlink_metadata(aside).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let aside =
        names.map(|name| path.with_extension(name)).find(is_free).unwrap_or_else(|| path.with_extension(extension));
    fs::rename(path, &aside)?;
    Ok(aside)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    options
}

fn check(found: &fs::Metadata, max_bytes: u64) -> io::Result<()> {
    let kind = found.file_type();
    let what = match () {
        () if kind.is_file() && found.len() <= max_bytes => return Ok(()),
        () if kind.is_file() => format!("has {} bytes, {max_bytes} are the most that it can have", found.len()),
        () if kind.is_dir() => "is a directory".to_owned(),
        () if kind.is_symlink() => "is a symbolic link".to_owned(),
        () if kind.is_fifo() => "is a FIFO".to_owned(),
        () if kind.is_socket() => "is a socket".to_owned(),
        () => "is a device".to_owned(),
    };
    Err(io::Error::new(ErrorKind::InvalidData, what))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    /// What its error names, and how it is made.
    type Intruder = (&'static str, fn(&Path));

    /// What may be found where a file should be, by name; made at `path`.
    pub(crate) const INTRUDERS: [Intruder; 6] = [
        ("a FIFO", |path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a symbolic link", |path| symlink("/dev/zero", path).unwrap()),
        ("a symbolic link", |path| symlink("/nonexistent/file", path).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ("bytes", |path| File::create(path).unwrap().set_len(1 << 40).unwrap()),
    ];

    #[test]
    fn what_is_no_file_of_ours_is_refused_at_once_and_named() {
        for (what, make) in INTRUDERS {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file.ledger");
            make(&path);
            for writable in [false, true] {
                let error = open(&path, writable, 1 << 20).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidData, "{what}");
                assert!(error.to_string().contains(what), "{what}: {error}");
            }
            assert_eq!(create_new(&path).unwrap_err().kind(), ErrorKind::AlreadyExists, "{what}");
            assert_eq!(put_aside(&path, "damaged").unwrap(), dir.path().join("file.damaged"));
            make(&path);
            assert_eq!(put_aside(&path, "damaged").unwrap(), dir.path().join("file.damaged-1"));
            make(&path);
            assert_eq!(create(&path).is_ok(), what != "a directory", "{what}");
        }
        assert!(open(Path::new("/dev/zero"), false, 1).unwrap_err().to_string().contains("device"));
    }

    #[test]
    fn a_link_that_is_replaced_leaves_what_it_points_to() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("file"), dir.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, &path).unwrap();
        create(&path).unwrap().set_len(0).unwrap();
        assert_eq!(fs::read(&precious).unwrap(), b"precious");
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
    }

    #[test]
    fn what_is_made_is_the_agents_alone_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        // In a process of its own, because the umask is the whole process's.
        for umask in ["000", "777"] {
            let status = Command::new("/bin/sh")
                .arg("-c")
                .arg(format!("umask {umask}; exec \"$0\" --ignored --exact state_file::tests::make_one"))
                .arg(env::current_exe().unwrap())
                .env("STATE_FILE_TEST", dir.path().join(umask))
                .status()
                .unwrap();
            assert!(status.success());
            let mode = fs::metadata(dir.path().join(umask)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "umask {umask}");
        }
    }

    #[test]
    #[ignore = "what the test above runs under another umask"]
    fn make_one() {
        create(&PathBuf::from(env::var_os("STATE_FILE_TEST").unwrap())).unwrap();
    }
}
