//! Units that stop, crash and restart: the agent must report systemd's state within a second.
//!
//! The delay is counted from systemd's own time stamp of the change (`StateChangeTimestampMonotonic`) to the end of the
//! first scrape that shows all of it, so the scrape itself counts as well. No allowance is made for emulation.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::super::image::METRICS;
use super::machine::{CPU, INFO, MEMORY, REQUESTS, SOON, YI, kill, page_when, systemctl, value};
use super::server::{EXIT, ask};
use crate::scrape::{self, Page};

/// A model that systemd restarts on failure, and its port.
pub(super) const HARDY: (&str, u16) = ("hardy", 11480);
/// systemd's delay before the restart: longer than the agent's time limit.
pub(super) const RESTART_AFTER: Duration = Duration::from_secs(3);

/// Time limit for a change to appear on the agent's page.
const WITHIN: Duration = Duration::from_secs(1);
/// Interval between two scrapes.
const PAUSE: Duration = Duration::from_millis(40);
/// Tolerance between the two clocks in which the time a unit became active is reported.
const SAME: Duration = Duration::from_millis(10);

/// The state of a unit.
#[derive(Clone, PartialEq, Debug)]
struct Account {
    state: String,
    sub_state: String,
    result: String,
    restarts: f64,
    /// When it last became active, in seconds since 1970.
    started: Option<f64>,
    /// How its main process exited, and with which status.
    exit: Option<(String, f64)>,
}

/// Checks that every change is reported in time; returns how long each took.
pub(super) fn changes_are_told() -> Result<String> {
    let mut told = Vec::new();
    let mut see =
        |what: &str, (model, _): (&str, u16), act: &dyn Fn(&str) -> Result<()>, is_so: &dyn Fn(&Account) -> bool| {
            let unit = format!("citadel-{model}.service");
            let (account, delay) = change(&unit, act, is_so).with_context(|| format!("{unit}: {what}"))?;
            println!("{unit}: {what}: reported after {:.3} s: {account:?}", delay.as_secs_f64());
            ensure!(delay <= WITHIN, "{unit}: {what}: reported only after {:.3} s", delay.as_secs_f64());
            told.push(format!("{what} {:.2} s", delay.as_secs_f64()));
            anyhow::Ok(account)
        };
    let order = |verb: &'static str| move |unit: &str| systemctl(&[verb, "--no-block", unit]).map(drop);
    // As the OOM killer does.
    let killed = |unit: &str| kill(unit, libc::SIGKILL).map(drop);
    let running = |account: &Account| account.is("active", "running");
    let crash_by = |how: &'static str, status: i32| {
        move |account: &Account| account.is("failed", "failed") && account.ended(how, status)
    };
    let waits_after = |how: &'static str, status: i32| {
        move |account: &Account| account.is("activating", "auto-restart") && account.ended(how, status)
    };

    let requests = the_series_are_there()?;
    see("stop", YI, &order("stop"), &|account| {
        account.is("inactive", "dead") && account.ended("killed", libc::SIGTERM)
    })?;
    the_series_have_ended()?;
    see("start", YI, &order("start"), &running)?;
    let after = the_series_are_there()?;
    ensure!(
        after == requests + 1.0,
        "after a stop, a start and one request, the count went from {requests} to {after}"
    );
    see("kill", YI, &killed, &|account| crash_by("killed", libc::SIGKILL)(account) && account.result == "signal")?;
    the_series_have_ended()?;
    see("start after it", YI, &order("start"), &running)?;
    see("failure", YI, &|_| fail(YI), &|account| crash_by("exited", EXIT)(account) && account.result == "exit-code")?;
    let before = see("start after that", YI, &order("start"), &running)?;
    see("restart", YI, &order("restart"), &|account| running(account) && account.started > before.started)?;
    the_series_are_there()?;

    see("start", HARDY, &order("start"), &running)?;
    see("kill", HARDY, &killed, &waits_after("killed", libc::SIGKILL))?;
    see("automatic restart", HARDY, &|_| Ok(()), &|account| running(account) && account.restarts == 1.0)?;
    see("failure", HARDY, &|_| fail(HARDY), &waits_after("exited", EXIT))?;
    see("second automatic restart", HARDY, &|_| Ok(()), &|account| running(account) && account.restarts == 2.0)?;
    Ok(format!("changes of units reported after: {}", told.join(", ")))
}

/// Makes a model's server exit with [`EXIT`].
fn fail((model, port): (&str, u16)) -> Result<()> {
    ensure!(ask(port, "POST /exit").is_err(), "{model} answered instead of exiting");
    Ok(())
}

/// The model's own series appear with its first request; returns its requests, this one included.
fn the_series_are_there() -> Result<f64> {
    let labels = [("model".to_owned(), YI.0.to_owned())];
    ask(YI.1, "GET /v1/models")?;
    let page = page_when("its series exist", |page| {
        [INFO, CPU, MEMORY].iter().all(|name| value(page, name, &labels).is_some_and(|value| value > 0.0))
            && value(page, REQUESTS, &labels).is_some()
    })?;
    value(&page, REQUESTS, &labels).context("no requests")
}

/// None of them remains, not even with the value zero.
fn the_series_have_ended() -> Result<()> {
    let labels = [("model".to_owned(), YI.0.to_owned())];
    let names = [INFO, REQUESTS, CPU, MEMORY, "citadel_model_connections_open"];
    page_when("its series have ended", |page| names.iter().all(|name| value(page, name, &labels).is_none())).map(drop)
}

/// Acts, and scrapes the agent until its page shows the expected state and agrees with systemd; returns the state, and
/// the delay after systemd's own time stamp.
fn change(
    unit: &str,
    act: &dyn Fn(&str) -> Result<()>,
    is_so: &dyn Fn(&Account) -> bool,
) -> Result<(Account, Duration)> {
    act(unit)?;
    let begun = Instant::now();
    loop {
        let told = Account::on(&Page::parse(&scrape::get(METRICS, "/metrics/services")?), unit);
        let when = monotonic();
        // systemd is queried only then, because the query takes longer than the measured delay.
        if let Some(told) = told.as_ref().filter(|told| is_so(told)) {
            let (said, changed) = Account::of(&show_all(unit)?).context("systemd's answer is incomplete")?;
            if told.agrees_with(&said) {
                return Ok((said, when.saturating_sub(changed)));
            }
        }
        if begun.elapsed() > SOON {
            bail!("agent: {told:?}, systemd: {}", show_all(unit)?);
        }
        thread::sleep(PAUSE);
    }
}

/// The unit's properties, by `systemctl show`.
fn show_all(unit: &str) -> Result<String> {
    let names = "ActiveState,SubState,Result,NRestarts,ExecMainCode,ExecMainStatus,ActiveEnterTimestampMonotonic,\
                 StateChangeTimestampMonotonic";
    systemctl(&["show", "--property", names, unit])
}

impl Account {
    /// Parses systemd's answer, and when the state began, since boot.
    fn of(shown: &str) -> Option<(Self, Duration)> {
        let all: BTreeMap<&str, &str> = shown.lines().filter_map(|line| line.split_once('=')).collect();
        let text = |name| all.get(name).map(|value| (*value).to_owned());
        let micros = |name| all.get(name)?.parse().ok().map(Duration::from_micros);
        let how = match all.get("ExecMainCode")?.parse().ok()? {
            libc::CLD_EXITED => Some("exited"),
            libc::CLD_KILLED => Some("killed"),
            libc::CLD_DUMPED => Some("dumped"),
            _ => None,
        };
        let status: f64 = all.get("ExecMainStatus")?.parse().ok()?;
        let started = Some(micros("ActiveEnterTimestampMonotonic")?).filter(|time| !time.is_zero());
        let account = Self {
            state: text("ActiveState")?,
            sub_state: text("SubState")?,
            result: text("Result")?,
            restarts: all.get("NRestarts")?.parse().ok()?,
            started: started.map(|time| (time + on_the_wall()).as_secs_f64()),
            exit: how.map(|how| (how.to_owned(), status)),
        };
        Some((account, micros("StateChangeTimestampMonotonic")?))
    }

    /// The agent's view.
    fn on(page: &Page, unit: &str) -> Option<Self> {
        let label = |name: &'static str, wanted: &str| {
            page.labels_of(name).find(|label| label("name") == unit).map(|label| label(wanted).to_owned())
        };
        let state = page
            .values("node_systemd_unit_state", "state")
            .into_iter()
            .find(|state| page.sum("node_systemd_unit_state", &[("name", unit), ("state", state)]) == Some(1.0))?;
        let number = |name| page.sum(name, &[("name", unit)]);
        const LAST_EXIT: &str = "citadel_unit_last_exit_status";
        Some(Self {
            state: state.to_owned(),
            sub_state: label("citadel_unit_sub_state", "state")?,
            result: label("citadel_unit_last_result", "result")?,
            restarts: number("node_systemd_service_restart_total")?,
            started: number("node_systemd_unit_start_time_seconds"),
            exit: label(LAST_EXIT, "how").zip(number(LAST_EXIT)),
        })
    }

    fn is(&self, state: &str, sub_state: &str) -> bool {
        self.state == state && self.sub_state == sub_state
    }

    fn ended(&self, how: &str, status: i32) -> bool {
        self.exit.as_ref().is_some_and(|exit| *exit == (how.to_owned(), f64::from(status)))
    }

    fn agrees_with(&self, other: &Self) -> bool {
        let same_start = match (self.started, other.started) {
            (Some(one), Some(other)) => (one - other).abs() < SAME.as_secs_f64(),
            (one, other) => one == other,
        };
        same_start && Self { started: other.started, ..self.clone() } == *other
    }
}

/// The clock of systemd's monotonic time stamps.
fn monotonic() -> Duration {
    clock(libc::CLOCK_MONOTONIC)
}

/// The offset from that clock to the wall clock, which nobody sets here.
fn on_the_wall() -> Duration {
    clock(libc::CLOCK_REALTIME).saturating_sub(monotonic())
}

fn clock(which: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the result.
    unsafe { libc::clock_gettime(which, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOWN: &str = "ActiveState=failed\nSubState=failed\nResult=signal\nNRestarts=2\nExecMainCode=2\n\
                         ExecMainStatus=9\nActiveEnterTimestampMonotonic=0\nStateChangeTimestampMonotonic=1500000\n";
    const PAGE: &str = r#"node_systemd_unit_state{name="a",state="active",type="simple"} 0
node_systemd_unit_state{name="a",state="failed",type="simple"} 1
node_systemd_unit_state{name="b",state="active",type="simple"} 1
citadel_unit_sub_state{name="a",state="failed"} 1
citadel_unit_last_result{name="a",result="signal"} 1
node_systemd_service_restart_total{name="a"} 2
citadel_unit_last_exit_status{name="a",how="killed"} 9
"#;

    #[test]
    fn systemds_account_and_the_pages_are_compared_whole() {
        let (said, when) = Account::of(SHOWN).unwrap();
        assert_eq!(when, Duration::from_millis(1500));
        let told = Account::on(&Page::parse(PAGE), "a").unwrap();
        assert!(told.agrees_with(&said), "{told:?} {said:?}");
        assert!(told.is("failed", "failed") && told.ended("killed", 9));
        for (from, to) in [("} 2", "} 3"), ("} 9", "} 15"), ("signal", "success"), ("killed", "exited")] {
            let other = Account::on(&Page::parse(&PAGE.replace(from, to)), "a").unwrap();
            assert!(!other.agrees_with(&said), "{other:?}");
        }
        let started = |seconds| Account { started: Some(seconds), ..said.clone() };
        assert!(started(5.0).agrees_with(&started(5.001)) && !started(5.0).agrees_with(&started(5.5)));
        assert!(!started(5.0).agrees_with(&said));
        assert_eq!(Account::on(&Page::parse(PAGE), "c"), None);
        assert_eq!(Account::of("ActiveState=failed"), None);
    }
}
