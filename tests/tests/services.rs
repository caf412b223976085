//! Units of a real systemd: stopped, crashed, started again, and the metrics follow.

use std::time::{Duration, Instant};

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::scrape::Page;
use citadel_agent_tests::systemd::Systemd;
use citadel_agent_tests::truth::pause;

/// How long following may take on a busy machine before it is no following.
const SOON: Duration = Duration::from_secs(15);

const UNITS: [(&str, &str); 3] = [
    ("citadel-phi3.service", "[Service]\nType=exec\nExecStart=/bin/sleep 1000\nRestart=always\nRestartSec=300ms\n"),
    ("citadel-bad.service", "[Service]\nType=exec\nExecStart=/bin/sh -c 'exit 3'\n"),
    ("other.service", "[Service]\nExecStart=/bin/sleep 1000\n"),
];

fn is_in(page: &Page, unit: &str, state: &str) -> bool {
    let states = page.gauge("node_systemd_unit_state").label("name", unit);
    states.label("state", state).is_present()
        && page.gauge("node_systemd_unit_state").label("name", unit).label("state", state).value() == 1
}

/// The services' page as soon as it is as wanted; how long that took since `begin` is printed.
#[track_caller]
fn follows(agent: &Agent, what: &str, begin: Instant, wanted: impl Fn(&Page) -> bool) -> Page {
    loop {
        let page = Page::parse(&agent.metrics("/metrics/services"));
        if wanted(&page) {
            println!("{what}: followed after {} ms", begin.elapsed().as_millis());
            return page;
        }
        assert!(begin.elapsed() < SOON, "not followed: {what}; the page says\n{page}\n{}", agent.log());
        pause(10);
    }
}

#[test]
fn units_of_a_real_systemd_are_followed() {
    let systemd = Systemd::start(&UNITS);
    let agent = Setup::new().without_programs().bus(&systemd.address()).start();
    // Installed, not loaded: it does not run.
    let begin = Instant::now();
    let page = follows(&agent, "the first list", begin, |page| is_in(page, "citadel-phi3.service", "inactive"));
    assert!(!page.gauge("node_systemd_unit_state").label("name", "other.service").is_present(), "nobody asked for it");
    assert_eq!(page.gauge("citadel_source_success").label("source", "systemd").value(), 1);

    let begin = Instant::now();
    systemd.start_unit("citadel-phi3.service");
    let page = follows(&agent, "a start", begin, |page| is_in(page, "citadel-phi3.service", "active"));
    let unit = |name: &str| page.gauge(name).label("name", "citadel-phi3.service");
    assert!(unit("citadel_unit_sub_state").label("state", "running").is_present(), "{page}");
    assert!(unit("node_systemd_unit_state").label("type", "exec").is_present());
    assert!(unit("node_systemd_unit_start_time_seconds").is_present());

    let begin = Instant::now();
    systemd.kill_unit("citadel-phi3.service", libc::SIGKILL);
    follows(&agent, "a crash", begin, |page| is_in(page, "citadel-phi3.service", "activating"));
    let page = follows(&agent, "the restart", begin, |page| {
        is_in(page, "citadel-phi3.service", "active")
            && page.counter("node_systemd_service_restart_total").label("name", "citadel-phi3.service").value() == 1
    });
    let exit = page.gauge("citadel_unit_last_exit_status").label("name", "citadel-phi3.service");
    // systemd says how the run before ended only until the next one has begun, or goes on saying it; never something else.
    assert!(!exit.is_present() || exit.value() == 9, "{page}");

    let begin = Instant::now();
    systemd.start_unit("citadel-bad.service");
    let page = follows(&agent, "a failure", begin, |page| is_in(page, "citadel-bad.service", "failed"));
    let bad = |name: &str| page.gauge(name).label("name", "citadel-bad.service");
    assert_eq!(bad("citadel_unit_last_exit_status").label("how", "exited").value(), 3);
    assert!(bad("citadel_unit_last_result").label("result", "exit-code").is_present());

    let begin = Instant::now();
    systemd.stop_unit("citadel-phi3.service");
    follows(&agent, "a stop", begin, |page| is_in(page, "citadel-phi3.service", "inactive"));

    // The manager goes: what was followed is missing, and that is said.
    drop(systemd);
    let page = follows(&agent, "the manager's end", Instant::now(), |page| {
        let success = page.gauge("citadel_source_success").label("source", "systemd");
        success.is_present() && success.value() == 0
    });
    assert!(!page.gauge("node_systemd_unit_state").is_present(), "{page}");
}
