//! The agent's end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{self, JoinHandle};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Answer, LONGEST_ORDER, Order, Orders};

/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A listening socket; gone with this.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    /// Device and inode of the socket.
    file: (u64, u64),
    task: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // Somebody may have put something else there meanwhile.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes orders at `path`, within a tokio runtime.
///
/// # Errors
/// The socket cannot be made there, or another agent listens at it.
pub fn serve(path: &Path, orders: Arc<dyn Orders>) -> io::Result<Control> {
    let listener = bind(path)?;
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(stream, Arc::clone(&orders)));
                }
                Err(error) => {
                    warn!(%error, "an order could not be taken");
                    // Out of file descriptors, most likely: not in a circle.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(Control { path: path.to_owned(), file: identity(path)?, task })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            ensure_abandoned(path)?;
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        result => result?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Refuses what is at `path` unless it is a socket that nobody listens on: an agent that was killed left it behind.
fn ensure_abandoned(path: &Path) -> io::Result<()> {
    // Not through a symbolic link: that is none of ours.
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "it exists and is not a socket: it is left as it is"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process listens on it")),
        // A socket of another type, one whose queue is full, or one that is not for us to use.
        Err(error) => Err(io::Error::new(error.kind(), format!("the socket there is another's: {error}"))),
    }
}

/// Which file is at `path`, not followed if it is a link.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

async fn answer(mut stream: UnixStream, orders: Arc<dyn Orders>) {
    let result: io::Result<()> = async {
        let peer = stream.peer_cred()?.uid();
        // SAFETY: geteuid reads a number of the calling process and cannot fail.
        let own = unsafe { libc::geteuid() };
        // Between bind and chmod the socket had the mode that umask gave it.
        if peer != 0 && peer != own {
            return Err(io::Error::new(ErrorKind::PermissionDenied, format!("user {peer} may not give orders")));
        }
        let (read, mut write) = stream.split();
        let mut line = String::new();
        let mut limited = BufReader::new(read).take(LONGEST_ORDER as u64);
        timeout(REQUEST_TIME, limited.read_line(&mut line)).await??;
        let answer = match serde_json::from_str::<Order>(&line) {
            Ok(order) => task::spawn_blocking(move || orders.carry_out(&order)).await?,
            Err(error) => Answer::Failed(format!("the agent does not understand this: {error}")),
        };
        let mut line = serde_json::to_vec(&answer.bounded())?;
        line.push(b'\n');
        write.write_all(&line).await
    }
    .await;
    if let Err(error) = result {
        debug!(%error, "an order was not answered");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener};

    use super::*;

    struct Nothing;

    impl Orders for Nothing {
        fn carry_out(&self, _: &Order) -> Answer {
            Answer::Done(String::new())
        }
    }

    fn serve_at(path: &Path) -> io::Result<Control> {
        serve(path, Arc::new(Nothing))
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "precious").unwrap();
        symlink(path("file"), path("link")).unwrap();
        symlink(path("nowhere"), path("dangling")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        let _live = StdUnixListener::bind(path("live")).unwrap();
        let _datagram = UnixDatagram::bind(path("datagram")).unwrap();
        drop(StdUnixListener::bind(path("abandoned")).unwrap());
        symlink(path("abandoned"), path("link-to-socket")).unwrap();
        for name in ["file", "link", "dangling", "folder", "live", "datagram", "link-to-socket"] {
            let before = identity(&path(name)).unwrap();
            assert!(serve_at(&path(name)).is_err(), "{name}");
            assert_eq!(identity(&path(name)).unwrap(), before, "{name}");
        }
        assert_eq!(fs::read_to_string(path("file")).unwrap(), "precious");
        assert!(serve_at(&path("file")).unwrap_err().to_string().contains("not a socket"));

        let control = serve_at(&path("abandoned")).unwrap();
        StdUnixStream::connect(path("abandoned")).unwrap();
        assert_eq!(fs::metadata(path("abandoned")).unwrap().permissions().mode() & 0o777, 0o600);
        drop(control);
        assert!(!path("abandoned").exists());
    }

    #[tokio::test]
    async fn what_has_taken_the_sockets_place_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let control = serve_at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(control);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }
}
