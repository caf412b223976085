//! Files in the state directory. They are opened without blocking and without following links, must be regular files of
//! limited size, and are private to the agent regardless of the umask.
//!
//! Anything else that a person, a backup or a broken disk leaves in their place (a FIFO, a device, a link, a sparse
//! file of a terabyte) is rejected and reported, never waited for or read.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::warn;

/// State directory if systemd does not set one.
const DEFAULT_FOLDER: &str = "/var/lib/citadel-agent";

/// Number of names tried when setting a file aside.
const ASIDES: usize = 10;

/// The state directory set by systemd, or else its default.
#[must_use]
pub(crate) fn folder() -> PathBuf {
    // A list separated by colons; the first entry is the unit's main directory.
    let systemd = env::var("STATE_DIRECTORY").ok().and_then(|list| list.split(':').next().map(PathBuf::from));
    systemd.filter(|path| path.is_absolute()).unwrap_or_else(|| DEFAULT_FOLDER.into())
}

/// Opens a regular file of at most `max_bytes` for reading, and for writing if `writable`.
///
/// # Errors
/// It does not exist (`NotFound`), is something else or larger (`InvalidData`), or cannot be opened.
pub(crate) fn open(path: &Path, writable: bool, max_bytes: u64) -> io::Result<File> {
    // Before opening, because opening some devices has side effects; and again afterwards, because only then it is
    // certain.
    check(&fs::symlink_metadata(path)?, max_bytes)?;
    let file = options().read(true).write(writable).open(path)?;
    check(&file.metadata()?, max_bytes)?;
    Ok(file)
}

/// Reads a regular file of at most `max_bytes`.
///
/// # Errors
/// See [`open`].
pub(crate) fn read(path: &Path, max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // It may grow while it is read.
    open(path, false, max_bytes)?.take(max_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Creates a new file for reading and writing.
///
/// # Errors
/// It exists (`AlreadyExists`), or cannot be created.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let file = options().read(true).write(true).create_new(true).mode(0o600).open(path)?;
    // The umask may have removed the owner's permissions.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Creates a file, replacing an existing one; the target of an existing link is not touched.
///
/// # Errors
/// It is a directory, or cannot be created.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create_new(path)
}

/// Replaces a file's content atomically: after a crash it is the old or the new one.
///
/// # Errors
/// For example, the disk is full or the directory does not exist.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = create(&new)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Locks a directory, creating it if necessary; `None` if another process holds the lock. Dropping the file releases
/// it. A file that is not a lock file is set aside.
///
/// # Errors
/// I/O errors.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<File>> {
    create_folder(folder)?;
    let path = folder.join("lock");
    let file = open_or_create(&path).or_else(|error| {
        if error.kind() != ErrorKind::InvalidData {
            return Err(error);
        }
        let aside = put_aside(&path, "damaged")?;
        warn!(file = %path.display(), %error, aside = %aside.display(), "not a lock file, set aside");
        create_new(&path)
    })?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(_) => Ok(None),
    }
}

/// Opens or creates an empty file for a lock.
///
/// # Errors
/// See [`open`] and [`create_new`].
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    match create_new(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => open(path, true, u64::MAX),
        result => result,
    }
}

/// Creates a directory and its parents, if necessary.
///
/// # Errors
/// Something else exists at the path, or I/O errors.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Syncs a directory to disk.
///
/// # Errors
/// It does not exist, is not a directory, or I/O errors.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NONBLOCK).open(path)?.sync_all()
}

/// Renames whatever is at `path` to the same name with another extension, with a number if that exists.
///
/// # Errors
/// I/O errors, or all names are taken.
pub(crate) fn put_aside(path: &Path, extension: &str) -> io::Result<PathBuf> {
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
        () if kind.is_file() => format!("has {} bytes; the limit is {max_bytes}", found.len()),
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

    /// Name in the error message, and how to create it.
    type Intruder = (&'static str, fn(&Path));

    /// What can exist in place of a file; the function creates it at `path`.
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
        // In a separate process, because the umask is per process.
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
