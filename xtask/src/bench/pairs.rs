//! Very many connections to a model: processes that each hold both ends of some thousands, because a process may often open no more
//! than 20,000 files, and each pair of addresses has 28,000 ports.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStdin, ChildStdout, Command};

use anyhow::{Context as _, Result, bail, ensure};

use super::{MODEL_PORT, Stage};
use crate::group::{self, Group};

/// Connections of a process.
const EACH: usize = 9_000;

/// Files that a process opens beside them.
const OTHER_FILES: u64 = 100;

const REQUEST: &str = "POST /v1/chat/completions HTTP/1.1\r\nHost: model\r\nContent-Length: 2\r\n\r\n{}";
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
const LAST_CHUNK: &str = "0\r\n\r\n";

/// What the connections of all processes do next, each after the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// The clients send a request and the server the head of the response.
    Ask,
    /// The server sends an event.
    Event,
    /// The server ends the response.
    End,
}

impl Step {
    const ALL: [(Self, &str); 3] = [(Self::Ask, "ask"), (Self::Event, "event"), (Self::End, "end")];

    fn word(self) -> &'static str {
        Self::ALL.into_iter().find(|(step, _)| *step == self).map_or("", |(_, word)| word)
    }

    fn of(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(_, other)| *other == word).map(|(step, _)| step)
    }
}

/// Connections, all open; closed on drop.
pub(super) struct Pairs(Vec<Holder>);

/// A process that holds some of them.
struct Holder {
    /// Closing it ends the process.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    group: Group,
}

impl Pairs {
    /// Opens `count` connections. `used` is the number of processes of others.
    pub(super) fn open(stage: &Stage, count: usize, used: usize) -> Result<Self> {
        let own = env::current_exe().context("cannot find this program")?;
        let mut holders = Vec::new();
        for first in (0..count).step_by(EACH) {
            let index = used + holders.len();
            let mut command = Command::new(&own);
            command.args(["bench", "connections", "--hold"]).arg((count - first).min(EACH).to_string());
            command.arg("--address").arg(address(index)?.to_string());
            let name = format!("connections-{index}");
            let mut group = Group::spawn("the connections", &mut command, group::log(&stage.folder, &name), true)?;
            let (orders, answers) = (group.child.stdin.take(), group.child.stdout.take());
            let answers = BufReader::new(answers.context("the connections' output is not piped")?);
            holders.push(Holder { orders, answers, group });
        }
        let mut pairs = Self(holders);
        pairs.finish()?;
        Ok(pairs)
    }

    /// Number of processes.
    pub(super) const fn processes(&self) -> usize {
        self.0.len()
    }

    /// Makes all of them take this step.
    pub(super) fn take(&mut self, step: Step) -> Result<()> {
        super::go_on()?;
        for holder in &mut self.0 {
            let orders = holder.orders.as_mut().context("the connections' input is closed")?;
            writeln!(orders, "{}", step.word()).context("cannot reach the connections' process")?;
        }
        self.finish()
    }

    /// Waits until all are done.
    fn finish(&mut self) -> Result<()> {
        for holder in &mut self.0 {
            let mut line = String::new();
            holder.answers.read_line(&mut line).context("cannot hear from the connections' process")?;
            if line != "done\n" {
                holder.group.check()?;
                bail!("the connections' process has closed its output");
            }
        }
        Ok(())
    }
}

impl Drop for Pairs {
    fn drop(&mut self) {
        for holder in &mut self.0 {
            holder.orders = None;
        }
        for holder in &mut self.0 {
            // Its end closes the connections.
            _ = holder.answers.read_line(&mut String::new());
        }
    }
}

/// The server's address for the process of this index.
fn address(index: usize) -> Result<SocketAddr> {
    let last = u8::try_from(index + 1).context("too many connections")?;
    Ok((Ipv4Addr::new(127, 0, 0, last), MODEL_PORT).into())
}

/// A process that holds `count` connections to `address`, and takes the steps that its input names, until that ends.
///
/// # Errors
/// A connection fails.
pub(super) fn hold(count: usize, address: SocketAddr) -> Result<()> {
    allow_files(2 * count as u64 + OTHER_FILES)?;
    let server = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let mut pairs = Vec::with_capacity(count);
    for _ in 0..count {
        let client = TcpStream::connect(address).context("cannot connect")?;
        let (accepted, _) = server.accept().context("cannot accept")?;
        accepted.set_nodelay(true)?;
        pairs.push((client, accepted));
    }
    println!("done");
    for line in io::stdin().lines() {
        let line = line?;
        let step = Step::of(&line).with_context(|| format!("no such step: {line}"))?;
        for (client, server) in &mut pairs {
            step_of(step, client, server).with_context(|| format!("{line} failed"))?;
        }
        println!("done");
    }
    Ok(())
}

fn step_of(step: Step, client: &mut TcpStream, server: &mut TcpStream) -> io::Result<()> {
    let event = || format!("{:x}\r\n{EVENT}\r\n", EVENT.len());
    let sent = match step {
        Step::Ask => {
            client.write_all(REQUEST.as_bytes())?;
            server.read_exact(&mut [0; REQUEST.len()])?;
            HEAD.to_owned()
        }
        Step::Event => event(),
        Step::End => LAST_CHUNK.to_owned(),
    };
    server.write_all(sent.as_bytes())?;
    client.read_exact(&mut vec![0; sent.len()])
}

/// Raises the limit on open files to what this process may have.
fn allow_files(needed: u64) -> Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid place.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    ensure!(known, "cannot read the limit on open files");
    ensure!(
        limit.rlim_max >= needed,
        "a process may open {} files on this host, and {needed} are needed: raise the limit (`ulimit -Hn`)",
        limit.rlim_max
    );
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: a valid limit.
    let raised = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } == 0;
    ensure!(raised, "cannot raise the limit on open files");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_word() {
        for (step, word) in Step::ALL {
            assert_eq!((step.word(), Step::of(word)), (word, Some(step)));
        }
        assert_eq!(Step::of("stop"), None);
    }

    #[test]
    fn each_process_has_an_address_on_loopback() {
        assert_eq!(address(0).unwrap().to_string(), "127.0.0.1:11400");
        assert_eq!(address(14).unwrap().to_string(), "127.0.0.15:11400");
        assert!(address(300).is_err());
    }
}
