//! What a restart under a service manager that keeps file descriptors loses: nothing.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc;

use citadel_agent_tests::agent::{Agent, Setup};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::bpf::{self, Kind};
use citadel_agent_tests::fd_store::FdStore;
use citadel_agent_tests::get::get_as;
use citadel_agent_tests::http::{answer, chat};
use citadel_agent_tests::names::{DURATION, IN_FLIGHT, REQUESTS};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::scrape::sums;
use rustix::process::Signal;

/// When the counters of requests and of the scheduler were 0, and when the agent and its programs started.
fn times(agent: &Agent) -> [f64; 4] {
    let open = get_as(agent.metrics_port(), "/metrics/models", "application/openmetrics-text").unwrap().body;
    let value = |name: &str| {
        let line = open.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}:\n{open}"));
        line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    [
        "citadel_model_request_bytes_created{",
        "citadel_events_lost_created{",
        "process_start_time_seconds ",
        "citadel_probe_start_time_seconds ",
    ]
    .map(value)
}

fn links(agent: &Agent) -> BTreeSet<u32> {
    bpf::held_by(agent.pid(), Kind::Link)
}

/// The names of everything that is kept, which is the same for each process.
fn assert_whole(store: &FdStore) {
    let names = store.names();
    let different: BTreeSet<_> = names.iter().collect();
    assert_eq!(names.len(), different.len(), "nothing is kept twice: {names:?}");
    for name in ["state", "net.map.PORTS", "net.map.EGRESS_PROGRAMS", "net.program.net_egress", "net.link.net_sockops"]
    {
        assert!(names.iter().any(|kept| kept == name), "{name} is not kept: {names:?}");
    }
}

/// By a stop and by a crash: requests before, between and after, and one from before that ends after.
#[test]
fn a_restart_loses_no_request() {
    let server = Server::bind();
    let store = FdStore::new();
    let setup = Setup::new().model("model", server.port()).kept_in(&store);
    let mut agent = setup.clone().start();
    agent.assert_measuring();
    let ([requests, lost, mut process, probes], programs) = (times(&agent), links(&agent));
    let (mut sent, mut slow) = (0, Vec::new());
    for signal in [Signal::TERM, Signal::KILL] {
        server.exchange(3);
        let (end, ended) = mpsc::channel::<()>();
        let response = answer("200 OK", "{}");
        let written = response.clone();
        let playing = server.serve(move |mut peer| {
            peer.read_message();
            _ = ended.recv();
            peer.write(written)
        });
        let mut client = server.connect();
        let asked = client.write(chat());
        assert_eventually!(agent, |page| page.requests() == sent + 3 && page.gauge(IN_FLIGHT).value() == 1);
        agent.end_by(signal);
        drop(agent);
        server.exchange(5);
        agent = setup.clone().start();
        agent.assert_measuring();
        let page = agent.scrape();
        assert_eq!((page.requests(), page.gauge(IN_FLIGHT).value()), (sent + 8, 1), "{page}");
        drop(end);
        client.read(response.len());
        slow.push(asked.until(playing.truth()));
        server.exchange(2);
        sent += 11;
        let page = assert_eventually!(agent, |page| page.requests() == sent);
        page.assert_nothing_lost();
        page.histogram(DURATION).label("endpoint", "chat_completions").assert_holds(&slow);
        let now = times(&agent);
        assert_eq!([now[0], now[1], now[3]], [requests, lost, probes], "they count from the same time");
        assert!(now[2] > process, "it is another process");
        process = now[2];
        assert_eq!(links(&agent), programs, "the same programs and no others");
        assert_whole(&store);
    }
}

/// A port that a reload has added has its slot after the restart too, and one that was removed is not measured.
#[test]
fn slots_outlive_their_process() {
    let (old, new) = (Server::bind(), Server::bind());
    let store = FdStore::new();
    let setup = Setup::new().model("old", old.port()).kept_in(&store);
    let mut agent = setup.clone().start();
    agent.assert_measuring();
    old.exchange(3);
    let both = setup.clone().model("new", new.port());
    agent.reload(&both);
    agent.wait_for_log("configuration reloaded");
    new.exchange(4);
    assert_eventually!(agent, |page| page.requests() == 7);
    agent.end_by(Signal::KILL);
    drop(agent);
    // Only the port that came last.
    let mut agent = Setup::new().model("new", new.port()).kept_in(&store).start();
    agent.assert_measuring();
    old.exchange(1);
    new.exchange(1);
    let page = assert_eventually!(agent, |page| page.requests() == 5);
    assert_eq!(page.counter(REQUESTS).by(["model"]), sums([("new", 5)]));
    agent.end_by(Signal::TERM);
    drop(agent);
    let agent = both.start();
    let page = assert_eventually!(agent, |page| page.requests() == 8);
    assert_eq!(
        page.counter(REQUESTS).by(["model"]),
        sums([("old", 3), ("new", 5)]),
        "nothing while it was not measured"
    );
}

/// What does not fit is loaded again, counts from 0 with a new time, and leaves nothing of the old programs.
#[test]
fn what_cannot_be_taken_over_is_replaced() {
    let server = Server::bind();
    let store = FdStore::new();
    let setup = Setup::new().model("model", server.port()).kept_in(&store);
    let mut agent = setup.clone().start();
    agent.assert_measuring();
    let [requests, ..] = times(&agent);
    let count = links(&agent).len();
    server.exchange(2);
    assert_eventually!(agent, |page| page.requests() == 2);
    let net = |store: &FdStore| store.names().iter().filter(|name| name.starts_with("net.")).count();
    let kept = net(&store);

    // Other calls: another object, but the same `net`.
    agent.end_by(Signal::TERM);
    drop(agent);
    let fewer = setup.clone().ebpf("syscall_names: [read]");
    let mut agent = fewer.clone().start();
    assert_eventually!(agent, |page| page.requests() == 2);
    assert_eq!(times(&agent)[0], requests);
    assert_whole(&store);

    // Something was not kept, or the state is damaged.
    for damage in ["net.map.LOST", "state"] {
        agent.end_by(Signal::TERM);
        drop(agent);
        if damage == "state" {
            store.file(damage).write_all_at(b"?", 20).expect("damage the state");
        } else {
            store.lose(damage);
        }
        agent = fewer.clone().start();
        agent.assert_measuring();
        assert_eq!(agent.scrape().requests(), 0, "{damage}");
        let [later, _, process, _] = times(&agent);
        assert!(later >= process && later > requests, "{damage}: since {later}, not {requests}");
        server.exchange(2);
        assert_eventually!(agent, |page| page.requests() == 2);
        assert_whole(&store);
        assert_eq!((net(&store), links(&agent).len()), (kept, count), "{damage}");
    }

    // Without programs nothing is kept.
    agent.end_by(Signal::TERM);
    drop(agent);
    let agent = setup.without_programs().start();
    assert_eq!((store.names(), links(&agent).len()), (vec!["state".to_owned()], 0));
}
