//! Start, discovery, reload, stop, and what an agent does that may not measure.

use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use citadel_agent_tests::agent::{Agent, STOP_TIME, Setup, run};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::bpf::{self, Kind};
use citadel_agent_tests::get::{get as fetch, get_as};
use citadel_agent_tests::http::get;
use citadel_agent_tests::names::{PROBE_RUNS, PROBE_SECONDS, RECEIVE_QUEUE, REQUEST_BYTES, REQUESTS};
use citadel_agent_tests::peer::Server;
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::truth::pause;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, socket};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Sends requests until the model's name is on the page: a reload has no visible end but its effect. How many counted.
fn send_until_measured(agent: &Agent, server: &Server, model: &str) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(10);
    while agent.scrape().counter(REQUESTS).label("model", model).value() == 0 {
        assert!(Instant::now() < deadline, "{model} is not measured; log:\n{}", agent.log());
        server.exchange(1);
        pause(50);
    }
    agent.scrape().counter(REQUESTS).label("model", model).value()
}

fn by_model(page: &Page) -> std::collections::BTreeMap<String, u64> {
    page.counter(REQUESTS).by(["model", "port"])
}

#[test]
fn ports_of_the_range_are_measured_without_being_configured() {
    let before = Server::bind_discovered();
    let agent = Setup::new().discovering().start();
    agent.assert_measuring();
    before.exchange(3);
    let name = |server: &Server| format!("port-{0} {0}", server.port());
    let page = assert_eventually!(agent, |page| page.requests() == 3);
    assert_eq!(by_model(&page), sums([(&name(&before), 3)]));

    // One that appears later is measured within one interval, which is a second here.
    let after = Server::bind_discovered();
    pause(1500);
    after.exchange(2);
    let page = assert_eventually!(agent, |page| page.requests() == 5);
    assert_eq!(by_model(&page), sums([(&name(&before), 3), (&name(&after), 2)]));
}

#[test]
fn a_port_outside_of_the_range_is_not_discovered() {
    let (inside, outside) = (Server::bind_discovered(), Server::bind());
    let agent = Setup::new().discovering().start();
    agent.assert_measuring();
    outside.exchange(3);
    inside.exchange(1);
    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.counter(REQUESTS).label("port", &outside.port().to_string()).value(), 0);
}

#[test]
fn a_reload_adds_a_port_and_keeps_what_the_others_counted() {
    let (old, new) = (Server::bind(), Server::bind());
    let setup = Setup::new().model("old", old.port());
    let agent = setup.clone().start();
    agent.assert_measuring();
    let held = bpf::held_by(agent.pid(), Kind::Link);
    old.exchange(3);
    assert_eventually!(agent, |page| page.requests() == 3);

    agent.reload(&setup.model("new", new.port()));
    let counted = send_until_measured(&agent, &new, "new");
    new.exchange(4);
    old.exchange(2);
    let page = assert_eventually!(agent, |page| page.requests() == 5 + counted + 4);
    let expected = sums([(&format!("old {}", old.port()), 5), (&format!("new {}", new.port()), counted + 4)]);
    assert_eq!(by_model(&page), expected);
    assert_eq!(bpf::held_by(agent.pid(), Kind::Link), held, "the programs stayed attached");
}

#[test]
fn a_reload_replaces_only_the_families_whose_keys_changed() {
    let server = Server::bind();
    let setup = Setup::new().model("model", server.port());
    let agent = setup.clone().start();
    agent.assert_measuring();
    server.exchange(4);
    let programs = |agent: &Agent| bpf::held_by(agent.pid(), Kind::Program);
    let before = programs(&agent);
    let page = assert_eventually!(agent, |page| page.requests() == 4);
    let bytes = page.counter(REQUEST_BYTES).value();
    let changes = [
        ("syscall_form: raw_tp", "syscall_form: raw_tp, syscall_names: [read, write]"),
        ("syscall_names: [read, write]", "syscalls: false"),
        ("syscalls: false", "syscalls: false, sched: false"),
        ("sched: false", "sched: false, recvq: false"),
        ("recvq: false", "recvq: true"),
        (", sched: false, recvq: true", ""),
    ];
    for (nth, (from, to)) in changes.into_iter().enumerate() {
        let changed = agent.config().replace(from, to);
        assert_ne!(changed, agent.config(), "{from}");
        agent.reload_with(&changed);
        let deadline = Instant::now() + Duration::from_secs(15);
        while agent.log().matches("configuration reloaded").count() <= nth {
            assert!(Instant::now() < deadline, "no reload after {to}:\n{}", agent.log());
            pause(20);
        }
        let page = agent.scrape();
        assert_eq!((page.requests(), page.counter(REQUEST_BYTES).value()), (4, bytes), "after {to}");
    }
    assert!(programs(&agent).intersection(&before).count() >= 4, "the programs of net are the same");
    // It goes on to count, and who reads is seen again.
    server.exchange(3);
    let page = assert_eventually!(agent, |page| page.requests() == 7);
    page.assert_nothing_lost();
    assert!(page.histogram(RECEIVE_QUEUE).count() >= 3, "recvq is back:\n{page}");
    // What was replaced counts from then on, the rest from the start.
    let open = get_as(agent.metrics_port(), "/metrics/models", "application/openmetrics-text").unwrap().body;
    let value = |name: &str| -> f64 {
        let line = open.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}:\n{open}"));
        line.rsplit_once(' ').and_then(|(_, value)| value.parse().ok()).unwrap_or_else(|| panic!("{line}"))
    };
    let start = value("process_start_time_seconds");
    assert_eq!(value("citadel_model_requests_created{"), start);
    assert!(value("citadel_model_runqueue_latency_seconds_created{") > start + 1.0, "{open}");
}

#[test]
fn signals_while_programs_load_leave_no_family_broken() {
    let server = Server::bind();
    let agent = Setup::new().model("model", server.port()).start();
    agent.assert_measuring();
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("read the mounts");
    let cgroup = mounts.lines().find(|line| line.starts_with("cgroup2 ")).and_then(|line| line.split(' ').nth(1));
    let plain = "ebpf: { syscall_form: raw_tp }".to_owned();
    let named = format!("ebpf: {{ syscall_form: raw_tp, cgroup: {} }}", cgroup.expect("cgroup v2 is mounted"));
    // Each has net loaded again, and is itself followed by more signals than the kernel needs to be disturbed.
    for (from, to) in [(&plain, &named), (&named, &plain), (&plain, &named)] {
        let config = agent.config().replace(from, to);
        assert!(config.contains(to));
        agent.reload_with(&config);
        for _ in 0..300 {
            agent.signal(Signal::HUP);
            pause(3);
        }
        let status = agent.status();
        for family in ["net", "sched", "syscalls"] {
            assert_eq!(status["families"][family]["status"], "ok", "{family}: {:#}", status["families"][family]);
        }
    }
}

#[test]
fn a_reload_removes_a_port_and_may_rename_another() {
    let (kept, gone) = (Server::bind(), Server::bind());
    let agent = Setup::new().model("before", kept.port()).model("gone", gone.port()).start();
    agent.assert_measuring();
    kept.exchange(2);
    gone.exchange(2);
    assert_eventually!(agent, |page| page.requests() == 4);

    agent.reload(&Setup::new().model("after", kept.port()));
    let counted = send_until_measured(&agent, &kept, "after");
    gone.exchange(3);
    kept.exchange(1);
    let page = assert_eventually!(agent, |page| page.requests() == counted + 1);
    assert_eq!(by_model(&page), sums([(&format!("after {}", kept.port()), counted + 1)]));
}

#[test]
fn a_reload_of_a_bad_file_changes_nothing_and_says_why() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    server.exchange(2);
    assert_eventually!(agent, |page| page.requests() == 2);
    let good = agent.config();

    agent.reload_with(&good.replace("metrics_port", "metrics_prot"));
    agent.wait_for_log("metrics_prot");
    agent.wait_for_log("metrics_port");
    server.exchange(1);
    let page = assert_eventually!(agent, |page| page.requests() == 3);
    assert_eq!(by_model(&page), sums([(&format!("model {}", server.port()), 3)]));

    // And the next good file is taken.
    agent.reload_with(&good.replace("model:", "renamed:"));
    send_until_measured(&agent, &server, "renamed");
}

#[test]
fn a_reload_of_an_emptied_file_changes_nothing() {
    let agent = Setup::new().without_programs().start();
    let good = agent.config();
    for empty in ["", "# all settings are gone\n"] {
        agent.reload_with(empty);
        agent.wait_for_log("the file is empty; write {}");
        assert_eq!(agent.health("/ready").unwrap().code, 200);
    }
    agent.reload_with(&good);
    agent.wait_for_log("configuration reloaded");
}

#[test]
fn a_reload_may_swap_the_two_ports() {
    let agent = Setup::new().without_programs().start();
    let (metrics, health) = (agent.metrics_port(), agent.health_port());
    let good = agent.config();
    let swapped = good.replace(&metrics.to_string(), "FIRST").replace(&health.to_string(), &metrics.to_string());
    let swapped = swapped.replace("FIRST", &health.to_string());
    for (config, metrics, health) in [(&swapped, health, metrics), (&good, metrics, health)] {
        agent.reload_with(config);
        agent.wait_for_log("configuration reloaded");
        let deadline = Instant::now() + Duration::from_secs(10);
        while fetch(metrics, "/metrics").unwrap().code != 200 || fetch(health, "/ready").unwrap().code != 200 {
            assert!(Instant::now() < deadline, "the ports are not swapped; the log:\n{}", agent.log());
            pause(50);
        }
        assert_eq!(fetch(metrics, "/ready").unwrap().code, 404, "one port, one content");
    }
}

#[test]
fn a_reload_may_move_to_an_address_that_includes_the_old_one() {
    let agent = Setup::new().without_programs().start();
    let (metrics, health) = (agent.metrics_port(), agent.health_port());
    let local = agent.config();
    let all = local.replace("\"127.0.0.1\"", "\"0.0.0.0\"");
    let six = local.replace("\"127.0.0.1\"", "\"::\"");
    // The ports change places at the same time.
    let swapped = local.replace(&metrics.to_string(), "FIRST").replace(&health.to_string(), &metrics.to_string());
    let swapped = swapped.replace("FIRST", &health.to_string());
    let steps = [(&all, Some(0)), (&six, None), (&local, Some(0x7f)), (&all, Some(0)), (&swapped, Some(0x7f))];
    for (config, address) in steps {
        agent.reload_with(config);
        agent.wait_for_log("configuration reloaded");
        let (metrics, health) = if config == &swapped { (health, metrics) } else { (metrics, health) };
        let deadline = Instant::now() + Duration::from_secs(10);
        let moved = || [metrics, health].iter().all(|&port| listening(port) == [address]);
        while !moved() || fetch(metrics, "/metrics").unwrap().code != 200 {
            assert!(Instant::now() < deadline, "not moved to {address:?}; the log:\n{}", agent.log());
            pause(50);
        }
        assert_eq!(fetch(health, "/ready").unwrap().code, 200);
        // A second agent does not get the port.
        let second = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        set_socket_reuseaddr(&second, true).unwrap();
        let taken = bind(&second, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, metrics));
        assert_eq!(taken, Err(Errno::ADDRINUSE));
    }
}

/// The first bytes of the IPv4 addresses on which somebody listens at a port, `None` for IPv6.
fn listening(port: u16) -> Vec<Option<u8>> {
    let mut found = Vec::new();
    for (table, four) in [("/proc/net/tcp", true), ("/proc/net/tcp6", false)] {
        let table = std::fs::read_to_string(table).unwrap_or_default();
        for line in table.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (address, local_port) = fields[1].split_once(':').unwrap();
            // 0A: LISTEN. The address is in the order of this host's bytes.
            if fields[3] == "0A" && u16::from_str_radix(local_port, 16) == Ok(port) {
                let address = four.then(|| u32::from_str_radix(address, 16).unwrap().to_ne_bytes()[0]);
                found.push(address);
            }
        }
    }
    found
}

#[test]
fn sigterm_ends_the_agent_cleanly_even_with_clients_connected() {
    let server = Server::bind();
    for signal in [Signal::TERM, Signal::INT] {
        let mut agent = Agent::measuring(server.port());
        // One that says nothing, and one that stays connected after its answer.
        let _idle = TcpStream::connect((Ipv4Addr::LOCALHOST, agent.metrics_port())).expect("connect");
        let mut kept = citadel_agent_tests::peer::Peer::connect((Ipv4Addr::LOCALHOST, agent.metrics_port()));
        kept.write(get("/metrics/models"));
        kept.read_head();
        let (status, took) = agent.end_by(signal);
        assert!(status.success(), "{signal:?}: {status}; log:\n{}", agent.log());
        assert!(took < STOP_TIME, "{signal:?}: {took:?}");
    }
}

#[test]
fn nothing_of_the_agent_is_left_in_the_kernel() {
    let server = Server::bind();
    for signal in [Signal::TERM, Signal::KILL] {
        let mut agent = Agent::measuring(server.port());
        server.exchange(1);
        let held = [Kind::Link, Kind::Program].map(|kind| (kind, bpf::held_by(agent.pid(), kind)));
        assert!(held.iter().any(|(_, ids)| !ids.is_empty()), "the agent holds BPF objects while it measures");
        agent.end_by(signal);
        // The kernel frees programs and links some time after their last user is gone.
        let deadline = Instant::now() + Duration::from_secs(5);
        for (kind, ids) in held {
            loop {
                let left: Vec<_> = ids.intersection(&bpf::all(kind)).copied().collect();
                if left.is_empty() {
                    break;
                }
                assert!(Instant::now() < deadline, "left after {signal:?}: {kind:?} {left:?}");
                pause(50);
            }
        }
    }
    // A new one measures at once.
    let agent = Agent::measuring(server.port());
    server.exchange(2);
    assert_eventually!(agent, |page| page.requests() == 2);
}

#[test]
fn without_privileges_the_agent_serves_what_is_left_and_says_what_is_missing() {
    let server = Server::bind();
    let agent = Setup::new().model("model", server.port()).as_nobody().start();
    server.exchange(1);
    assert_eq!(agent.health("/health").expect("GET /health").code, 200);
    assert_eq!(agent.health("/ready").expect("GET /ready").code, 200);
    let net = &agent.status()["families"]["net"];
    let status = net["status"].as_str().unwrap_or_default();
    assert!(["unsupported", "broken"].contains(&status), "{net:#}");
    assert!(net.to_string().contains("CAP_BPF"), "the reason names what is missing: {net:#}");
    let page = Page::parse(&agent.metrics("/metrics"));
    assert!(page.gauge("citadel_agent_build_info").is_present());
    assert!(page.gauge("citadel_probe_status").label("family", "net").is_present());
    assert!(!page.gauge("citadel_probe_status").label("status", "ok").is_present());
    // Absent is absent, never 0.
    let models = agent.scrape();
    assert!(!models.counter(REQUESTS).is_present(), "nothing was measured, so nothing is counted");
}

#[test]
fn the_check_tries_each_program() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.yaml");
    // Asked for, because not every machine that runs the tests takes fentry.
    std::fs::write(&config, "ebpf: { syscall_form: raw_tp }\n").expect("a configuration");
    let (status, text) = run(&["check", "--config", config.to_str().expect("UTF-8")]);
    for word in [
        "net can be attached",
        "net_ingress",
        "net_egress",
        "recvq can be attached",
        "sched can be attached",
        "syscalls can be attached by raw_tp",
    ] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    // As root, on this kernel, all can be attached; a clock that nobody keeps or models that do not run are warnings.
    assert!(!text.lines().any(|line| line.starts_with("error")), "{text}");
    assert!(matches!(status.code(), Some(0 | 3)), "{status}\n{text}");

    // What `run` would fail on.
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("read the mounts");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup v2 is mounted");
    let absent = format!("{}/absent", mount.split(' ').nth(1).expect("where"));
    std::fs::write(&config, format!("ebpf: {{ cgroup: {absent} }}\n")).expect("a configuration");
    let (status, text) = run(&["check", "--only", "cgroup,probes", "--config", config.to_str().expect("UTF-8")]);
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("error   cgroup: {absent}: ")), "{text}");
    assert!(text.contains("error   probes: net failed: cannot open the cgroup"), "{text}");
}

#[test]
fn pages_and_probes_answer_where_the_contract_says() {
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    for path in ["/", "/metrics", "/metrics/models"] {
        assert!(!agent.metrics(path).is_empty(), "{path}");
    }
    for path in ["/health", "/ready", "/status"] {
        assert_eq!(agent.health(path).expect(path).code, 200, "{path}");
    }
    assert_eq!(agent.health("/nonsense").expect("GET").code, 404);
    // The whole page parses, and holds every family of the agent itself.
    let page = Page::parse(&agent.metrics("/metrics"));
    for name in ["citadel_agent_build_info", "citadel_probe_status", "process_resident_memory_bytes"] {
        assert!(page.gauge(name).is_present(), "{name}");
    }
    assert!(page.gauge("citadel_probe_status").label("family", "net").label("status", "ok").is_present());
}

#[test]
fn a_thousand_idle_connections_and_a_slow_client_do_not_stop_a_scrape() {
    // Debian's default of 1,024 descriptors is not enough for this test's own 1,000 and those of the harness.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("raise the limit of descriptors");
    let server = Server::bind();
    let agent = Agent::measuring(server.port());
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, agent.metrics_port())).expect("connect");
    let _idle: Vec<_> = (0..1000).map(|_| connect()).collect();
    // Asks, and never reads.
    let mut slow = citadel_agent_tests::peer::Peer::over(connect());
    slow.write(get("/metrics").repeat(50));
    let begin = Instant::now();
    assert!(!agent.metrics("/metrics/models").is_empty());
    // Not only once the others have run into the limit of 10 s for a request.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
}

#[test]
fn what_programs_cost_is_what_the_kernel_says() {
    let server = Server::bind();
    let agent = Setup::new().model("timed", server.port()).start();
    agent.assert_measuring();
    let _timed = bpf::time_runs();
    server.exchange(5);
    // Each scrape is packets too, which run the programs.
    let (runs_before, ns_before) = bpf::runs_held_by(agent.pid());
    let page = agent.scrape();
    let (runs_after, ns_after) = bpf::runs_held_by(agent.pid());
    let programs = ["net_ingress", "net_egress", "net_early", "net_tokens"];
    let runs: u64 = programs.iter().map(|name| page.counter(PROBE_RUNS).label("program", name).value()).sum();
    let seconds: f64 = programs.iter().map(|name| page.counter(PROBE_SECONDS).label("program", name).number()).sum();
    assert!(runs_before >= 20, "five requests and their answers are packets at both ends: {runs_before}");
    assert!((runs_before..=runs_after).contains(&runs), "{runs} runs, not {runs_before} to {runs_after}");
    let ns = seconds * 1e9;
    assert!(ns > ns_before as f64 - 1.0 && ns < ns_after as f64 + 1.0, "{ns} ns, not {ns_before} to {ns_after}");
}
