//! The server side, in the agent.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{self, JoinHandle};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::peer::{self, Rights};
use super::{Answer, LONGEST_REQUEST, Orders, Request, VERSION};

/// How long a client may be silent between requests.
const IDLE_TIME: Duration = Duration::from_secs(60);

/// How long a client may take to read an answer.
const WRITE_TIME: Duration = Duration::from_secs(10);

/// Maximum number of clients: an answer can take some megabytes.
const MAX_CLIENTS: usize = 16;

/// Maximum number of requests executed at a time.
const MAX_AT_WORK: usize = 4;

/// A listening socket, removed on drop.
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
        // Another file may have replaced it.
        if identity(&self.path).is_ok_and(|file| file == self.file) {
            _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens at `path`, within a tokio runtime.
///
/// # Errors
/// The socket cannot be created, or another agent is listening on it.
pub fn serve(path: &Path, orders: Arc<dyn Orders>) -> io::Result<Control> {
    let listener = bind(path)?;
    let group = allow_group(path)?;
    let desk = Arc::new(Desk { orders, group, at_work: Semaphore::new(MAX_AT_WORK) });
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let task = tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (desk, place) = (Arc::clone(&desk), Arc::clone(&places).try_acquire_owned());
                    tokio::spawn(async move {
                        let served = match place {
                            Ok(_place) => desk.serve(stream).await,
                            Err(_) => refuse(stream).await,
                        };
                        if let Err(error) = served {
                            debug!(%error, "a control connection was dropped");
                        }
                    });
                }
                Err(error) => {
                    warn!(%error, "cannot accept a control connection");
                    // Most likely out of file descriptors: do not spin.
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

/// Refuses an existing file at `path` unless it is a socket that nobody listens on, left behind by an agent that was
/// killed.
fn ensure_abandoned(path: &Path) -> io::Result<()> {
    // A symbolic link is not followed: it is not ours.
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AlreadyExists, "the file exists and is not a socket"));
    }
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another process is listening on it")),
        // A socket of another type, one with a full queue, or one without permission.
        Err(error) => Err(io::Error::new(error.kind(), format!("the existing socket is in use: {error}"))),
    }
}

/// Identity of the file at `path`; symbolic links are not followed.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

/// Lets the group connect, if this host has it and the agent may change the socket's group; returns the group's ID.
fn allow_group(path: &Path) -> io::Result<Option<u32>> {
    let Some(group) = peer::group() else { return Ok(None) };
    if let Err(error) = chown(path, None, Some(group)) {
        debug!(%error, "cannot give the control socket to the group; only root and the agent's own user can use it");
        return Ok(None);
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(Some(group))
}

/// Serves clients.
struct Desk {
    orders: Arc<dyn Orders>,
    group: Option<u32>,
    at_work: Semaphore,
}

impl Desk {
    /// Answers a client's requests until it disconnects, or is silent or slow for too long.
    async fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        // Between bind and chmod, the socket had a mode from the umask.
        let rights = peer::rights(&stream, self.group)?;
        let (read, mut write) = stream.split();
        let mut read = BufReader::new(read);
        loop {
            let mut line = Vec::new();
            let mut limited = (&mut read).take(LONGEST_REQUEST as u64);
            timeout(IDLE_TIME, limited.read_until(b'\n', &mut line)).await??;
            if line.is_empty() {
                return Ok(());
            }
            let whole = line.ends_with(b"\n");
            let answer = if whole {
                self.answer(&line, rights).await?
            } else {
                Answer::Failed(format!("a request must be a line of at most {LONGEST_REQUEST} bytes"))
            };
            say(&mut write, answer).await?;
            if !whole {
                return Ok(());
            }
        }
    }

    async fn answer(&self, line: &[u8], rights: Rights) -> io::Result<Answer> {
        let request = match serde_json::from_slice::<serde_json::Value>(line) {
            Ok(request) => request,
            Err(error) => return Ok(Answer::Failed(format!("the request is not valid JSON: {error}"))),
        };
        match request.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            version => {
                let version = version.map_or("none".to_owned(), |version| version.to_string());
                return Ok(Answer::Failed(format!(
                    "the agent uses version {VERSION} of the control protocol, the request version {version}: use the \
                     command of the running agent's version"
                )));
            }
        }
        let order = match serde_json::from_value::<Request>(request) {
            Ok(Request { order, .. }) => order,
            Err(error) => return Ok(Answer::Failed(format!("invalid request: {error}"))),
        };
        if !rights.allow(&order) {
            return Ok(Answer::Failed("only root and the agent's own user are allowed to do this".to_owned()));
        }
        // The semaphore is never closed.
        let _place = self.at_work.acquire().await;
        let orders = Arc::clone(&self.orders);
        Ok(task::spawn_blocking(move || orders.carry_out(&order)).await?)
    }
}

async fn refuse(mut stream: UnixStream) -> io::Result<()> {
    let (_, mut write) = stream.split();
    say(&mut write, Answer::Failed(format!("too many clients: {MAX_CLIENTS} are connected"))).await
}

/// Sends an answer within the client's time limit.
async fn say(write: &mut (impl AsyncWriteExt + Unpin), answer: Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(&answer.bounded())?;
    line.push(b'\n');
    timeout(WRITE_TIME, write.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixListener as StdUnixListener};

    use super::*;
    use crate::control::{Connection, Order};

    /// Answers with as many bytes as it is asked for seconds of.
    struct Bytes;

    impl Orders for Bytes {
        fn carry_out(&self, order: &Order) -> Answer {
            match order {
                Order::GpuRelease { seconds } => Answer::Data("x".repeat(*seconds as usize).into()),
                _ => Answer::Done("done".to_owned()),
            }
        }
    }

    fn serve_at(path: &Path) -> io::Result<Control> {
        serve(path, Arc::new(Bytes))
    }

    /// What comes back for these bytes.
    async fn answer_to(path: &Path, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // What does not fit is not read by the agent.
        _ = stream.write_all(request).await;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn one_connection_takes_many_requests_and_several_clients_are_served() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _control = serve_at(&path).unwrap();
        task::spawn_blocking(move || {
            let mut clients: Vec<_> = (0..8).map(|_| Connection::open(&path).unwrap()).collect();
            for _ in 0..3 {
                for (n, client) in clients.iter_mut().enumerate() {
                    let bytes: String = client.data(&Order::GpuRelease { seconds: n as u64 * 100_000 }).unwrap();
                    assert_eq!(bytes.len(), n * 100_000);
                    assert_eq!(client.ask(&Order::Reload {}).unwrap(), Answer::Done("done".to_owned()));
                }
            }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn what_is_no_request_of_this_version_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _control = serve_at(&path).unwrap();
        for (request, part) in [
            ("{\"order\":\"reload\"}\n", "the request version none"),
            ("{\"version\":2,\"order\":{\"order\":\"reload\"}}\n", "uses version 1"),
            ("{\"version\":1,\"order\":{\"order\":\"dance\"}}\n", "invalid request"),
            ("{\"version\":1,\"order\":{\"order\":\"reload\",\"x\":1}}\n", "invalid request"),
            ("hello\n", "not valid JSON"),
            (&"x".repeat(5000), "at most 4096 bytes"),
        ] {
            let answer = answer_to(&path, request.as_bytes()).await;
            assert!(answer.starts_with("{\"failed\":") && answer.contains(part), "{request}: {answer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn clients_beyond_the_limit_are_told_and_slow_ones_make_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _control = serve_at(&path).unwrap();
        let mut slow = Vec::new();
        for _ in 0..MAX_CLIENTS {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            // More than a socket takes, of which nothing is read.
            stream
                .write_all(b"{\"version\":1,\"order\":{\"order\":\"gpu_release\",\"seconds\":4000000}}\n")
                .await
                .unwrap();
            slow.push(stream);
        }
        let reload = b"{\"version\":1,\"order\":{\"order\":\"reload\"}}\n";
        assert!(answer_to(&path, reload).await.contains("too many clients"));
        tokio::time::sleep(WRITE_TIME + IDLE_TIME).await;
        assert!(answer_to(&path, reload).await.contains("done"));
        drop(slow);
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
        let mode = if peer::group().is_some() { 0o660 } else { 0o600 };
        assert_eq!(fs::metadata(path("abandoned")).unwrap().permissions().mode() & 0o777, mode);
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
