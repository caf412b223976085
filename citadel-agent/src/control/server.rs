//! The agent's end.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::{self, JoinHandle};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::{Answer, LONGEST_LINE, Order, Orders};

/// How long a client may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A listening socket; gone with this.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.task.abort();
        // Nobody else's: ours was bound.
        _ = fs::remove_file(&self.path);
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
    Ok(Control { path: path.to_owned(), task })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = match UnixListener::bind(path) {
        // Left behind by an agent that was killed, unless somebody answers.
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if StdUnixStream::connect(path).is_ok() {
                return Err(io::Error::new(ErrorKind::AddrInUse, "another agent takes orders there"));
            }
            fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        result => result?,
    };
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
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
        let mut limited = BufReader::new(read).take(LONGEST_LINE as u64);
        timeout(REQUEST_TIME, limited.read_line(&mut line)).await??;
        let answer = match serde_json::from_str::<Order>(&line) {
            Ok(order) => task::spawn_blocking(move || orders.carry_out(&order)).await?,
            Err(error) => Answer::Failed(format!("the agent does not understand this: {error}")),
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        write.write_all(&line).await
    }
    .await;
    if let Err(error) = result {
        debug!(%error, "an order was not answered");
    }
}
