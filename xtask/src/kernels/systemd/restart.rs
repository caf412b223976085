//! A restart and a crash of the agent, whose kernel programs systemd keeps: no request is lost, and one in flight goes on.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::lifecycle::{AGENT, another};
use super::machine::{PHI3, REQUESTS, YI, kill, page_when, show, systemctl};
use super::server::ask;
use crate::scrape::Page;

const DURATION: &str = "citadel_model_request_duration_seconds_sum";
const IN_FLIGHT: &str = "citadel_model_requests_in_flight";
const BEGAN: &str = "citadel_probe_start_time_seconds";

/// Requests between two processes of the agent.
const BETWEEN: u32 = 5;

/// Returns how long each restart took.
pub(super) fn loses_nothing() -> Result<String> {
    let stopped = one("systemctl restart", |old| {
        let begun = Instant::now();
        // It waits for the new process, which counts what the programs have seen meanwhile.
        let restart = thread::spawn(|| systemctl(&["restart", AGENT]));
        while show(AGENT, "MainPID")? == old {
            thread::sleep(Duration::from_millis(20));
        }
        requests()?;
        restart.join().map_err(|_| anyhow::anyhow!("the thread has panicked"))??;
        Ok(begun.elapsed())
    })?;
    let killed = one("kill -9", |old| {
        kill(AGENT, libc::SIGKILL)?;
        // systemd waits for RestartSec= before it starts another one.
        requests()?;
        another(old)
    })?;
    Ok(format!(
        "no request lost by a restart of {:.1} s and a crash of {:.1} s",
        stopped.as_secs_f64(),
        killed.as_secs_f64()
    ))
}

fn requests() -> Result<()> {
    (0..BETWEEN).try_for_each(|_| ask(PHI3.1, "GET /v1/models").map(drop))
}

/// A request to one model is in flight while the agent is replaced, others to another model begin and end: these servers answer one
/// connection after the other.
fn one(what: &str, replace: impl Fn(&str) -> Result<Duration>) -> Result<Duration> {
    let read = |page: &Page, (model, _): (&str, u16), name: &str| page.sum(name, &[("model", model)]).unwrap_or(0.0);
    let before = page_when("all requests have ended", |page| page.sum(IN_FLIGHT, &[]) == Some(0.0))?;
    let (old, kept) = (show(AGENT, "MainPID")?, show(AGENT, "NFileDescriptorStore")?);
    ensure!(kept.parse::<u32>().is_ok_and(|kept| kept > 20), "systemd keeps {kept} descriptors");
    let mut slow = TcpStream::connect((Ipv4Addr::LOCALHOST, YI.1)).context("connecting")?;
    slow.write_all(b"GET /v1/models HTTP/1.1\r\nHost: guest\r\n")?;
    let asked = Instant::now();
    page_when("the slow request has begun", |page| read(page, YI, IN_FLIGHT) == 1.0)?;
    let took = replace(&old).with_context(|| what.to_owned())?;
    ensure!(show(AGENT, "MainPID")? != old, "{what}: the process is the same");
    let least = asked.elapsed().as_secs_f64();
    slow.write_all(b"\r\n")?;
    slow.read_to_string(&mut String::new())?;
    let wanted =
        [(PHI3, f64::from(BETWEEN)), (YI, 1.0)].map(|(model, more)| (model, read(&before, model, REQUESTS) + more));
    let after = page_when(&format!("{what}: all requests are counted: {wanted:?}"), |page| {
        wanted.iter().all(|&(model, count)| read(page, model, REQUESTS) == count)
    })?;
    let took_slow = read(&after, YI, DURATION) - read(&before, YI, DURATION);
    ensure!(took_slow >= least, "{what}: the request in flight took {took_slow} s, at least {least} s in truth");
    ensure!(after.sum(BEGAN, &[]) == before.sum(BEGAN, &[]), "{what}: the programs are others");
    ensure!(show(AGENT, "NFileDescriptorStore")? == kept, "{what}: {kept} descriptors were kept");
    Ok(took)
}
