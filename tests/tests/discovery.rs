//! Discovery with the kernel programs attached, and without the right to look.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};

use citadel_agent_tests::agent::{Setup, free_port};
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::http::{answer, get};
use citadel_agent_tests::names::{CONNECTIONS, CPU, INFO, MEMORY, OPEN, REQUEST_BYTES, RESPONSE_BYTES, SYSCALL_ERRORS};
use citadel_agent_tests::netns::Namespace;
use citadel_agent_tests::peer::{Peer, Server};
use citadel_agent_tests::scrape::{Page, sums};
use citadel_agent_tests::truth::pause;
use citadel_agent_tests::tun::set_tcp_option;
use rustix::io::{FdFlags, fcntl_setfd};

/// What a server answers that is asked for its models.
const MODELS: &str = r#"{"object":"list","data":[{"id":"org/model","object":"model"}]}"#;

/// The agent asks a server for its name, and nothing but a client's requests is measured.
fn the_agents_question_is_not_measured(address: IpAddr, options: fn(BorrowedFd<'_>)) {
    let server = Server::bind_discovered_with(address, options);
    let asked = server.serve(|mut peer| {
        let head = peer.read_head();
        peer.write(answer("200 OK", MODELS));
        peer.close();
        head
    });
    let agent = Setup::new().discovering().asking().start();
    agent.assert_measuring();
    let head = asked.truth();
    assert!(head.starts_with("GET /v1/models ") && head.contains("user-agent: citadel-agent/"), "{head}");
    let page = assert_eventually!(agent, |page| page.gauge(INFO).label("model", "org/model").is_present());
    page.assert_no_request_invented();
    page.assert_nothing_lost();
    for counter in [CONNECTIONS, REQUEST_BYTES, RESPONSE_BYTES] {
        assert_eq!(page.counter(counter).value(), 0, "{counter}");
    }
    assert_eq!(page.gauge(OPEN).value(), 0);

    let response = answer("200 OK", MODELS);
    let playing = server.answer_each(vec![(0, response.clone()); 3]);
    let mut client = Peer::connect((address, server.port()));
    for _ in 0..3 {
        client.ask(get("/v1/models"), response.len());
    }
    playing.truth();
    client.close();
    let page = assert_eventually!(agent, |page| page.requests() == 3);
    assert_eq!(page.counter(CONNECTIONS).label("protocol", "http1").value(), 1);
    assert_eq!(page.counter(CONNECTIONS).value(), 1);
    assert!(page.gauge(INFO).label("protocol", "http1").is_present());
}

#[test]
fn the_agents_question_is_not_measured_over_ipv4() {
    the_agents_question_is_not_measured(Ipv4Addr::LOCALHOST.into(), |_| {});
}

#[test]
fn the_agents_question_is_not_measured_over_ipv6() {
    the_agents_question_is_not_measured(Ipv6Addr::LOCALHOST.into(), |_| {});
}

#[test]
fn the_agents_question_is_not_measured_where_it_comes_with_the_handshake() {
    // The server's socket is made by the first data: the listener sees the question.
    the_agents_question_is_not_measured(Ipv4Addr::LOCALHOST.into(), |socket| {
        set_tcp_option(&socket, libc::TCP_DEFER_ACCEPT, 5);
    });
}

#[test]
fn a_discovered_model_is_there_from_its_listening_to_its_end() {
    let agent = Setup::new().discovering().start();
    agent.assert_measuring();
    let server = Server::bind_discovered();
    let port = server.port().to_string();
    let page = assert_eventually!(agent, |page| page.gauge(INFO).label("port", &port).is_present());
    let me = std::process::id().to_string();
    assert!(
        page.gauge(INFO).label("port", &port).label("pid", &me).label("model", &format!("port-{port}")).is_present()
    );
    assert!(page.gauge(OPEN).label("port", &port).is_present(), "measured before its first connection");

    drop(server);
    let page = assert_eventually!(agent, |page| !page.gauge(OPEN).label("port", &port).is_present());
    assert!(!page.gauge(INFO).label("port", &port).is_present(), "a stale series stays:\n{page}");
}

#[test]
fn a_listener_of_another_network_namespace_is_discovered() {
    let namespace = Namespace::new();
    let mut holder = namespace.enter(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 11480)).expect("bind in the namespace");
        fcntl_setfd(&listener, FdFlags::empty()).expect("let the child have the listener");
        Command::new("sleep").arg("60").spawn().expect("start a process in the namespace")
    });
    let agent = Setup::new().discovering().asking().start();
    let (pid, exe) = (holder.id().to_string(), "/usr/bin/sleep");
    let found = |page: &Page| {
        let info = page.gauge(INFO).label("model", "port-11480").label("port", "11480");
        info.label("pid", &pid).label("exe", exe).is_present()
    };
    assert_eventually!(agent, |page| found(page));
    holder.kill().expect("end the process");
    holder.wait().expect("wait for its end");
    assert_eventually!(agent, |page| !page.gauge(INFO).label("port", "11480").is_present());
}

#[test]
fn what_it_may_not_see_is_said_once() {
    let server = Server::bind_discovered();
    let agent = Setup::new().discovering().as_nobody().start();
    agent.wait_for_log("cannot determine which process owns port");
    // Several intervals, each with a page.
    for _ in 0..4 {
        let page = agent.scrape();
        let info = page.gauge(INFO).label("port", &server.port().to_string());
        assert!(info.label("pid", "").is_present(), "it listens, and nothing more is known:\n{page}");
        assert_eq!(page.gauge("citadel_source_success").label("source", "discovery").value(), 0);
        pause(600);
    }
    assert_eq!(agent.log().matches("cannot determine which process owns port").count(), 1, "{}", agent.log());
}

/// A process of `tests/fixtures/passed.py` in a session of its own; ends with the value.
struct Passed(Child);

impl Passed {
    fn start(arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/passed.py");
        let mut command = Command::new("python3");
        command.arg(script).args(arguments);
        // SAFETY: setsid is async-signal-safe.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(Into::into)) };
        Self(command.spawn().expect("start python3"))
    }

    /// Seconds of CPU time, from `utime` and `stime` in `/proc/PID/stat`.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it lives");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("a name").split(' ').collect();
        // Ticks of a hundredth of a second, on every kernel that is x86-64's.
        fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        // Both fail only if it is gone.
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

#[test]
fn a_worker_that_got_the_socket_from_elsewhere_is_the_models_and_a_client_is_not() {
    let (dir, port) = (tempfile::tempdir().expect("make a temporary directory"), free_port());
    let path = dir.path().join("worker");
    let worker = Passed::start(&["work", path.to_str().expect("a name in UTF-8")]);
    while !path.exists() {
        pause(20);
    }
    let listener = Passed::start(&["listen", &port.to_string(), path.to_str().expect("a name in UTF-8")]);
    let agent = Setup::new().model("passed", port).start();
    agent.assert_measuring();
    // The client holds more than both, and reads the other end of the connection.
    let ballast = vec![1u8; 512 << 20];
    let pid = listener.0.id().to_string();
    let rss = |page: &Page| page.gauge(MEMORY).label("model", "passed").label("kind", "rss").value();
    let before =
        assert_eventually!(agent, |page| { page.gauge(INFO).label("pid", &pid).is_present() && rss(page) > 0 });
    assert!(rss(&before) < 64 << 20, "nothing ties the worker to the listener yet");

    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}".len();
    let mut client = Peer::connect((Ipv4Addr::LOCALHOST, port));
    client.ask(get("/v1/models"), length);
    let found = assert_eventually!(agent, |page| rss(page) > 64 << 20);
    assert!(rss(&found) < 256 << 20, "the client is none of it");

    let errors = |page: &Page| page.counter(SYSCALL_ERRORS).label("model", "passed").by(["syscall", "errno"]);
    let cpu = |page: &Page| page.counter(CPU).label("model", "passed").number();
    // What they did for the first request is on the page when a reading brings nothing new.
    let mut page_before = found;
    loop {
        pause(1_500);
        let page = agent.scrape();
        if cpu(&page) == cpu(&page_before) {
            break;
        }
        page_before = page;
    }
    let cpu_before = worker.cpu() + listener.cpu();
    client.ask(get("/v1/models"), length);
    client.ask(get("/v1/models"), length);
    let page = assert_eventually!(agent, |page| errors(page) == sums([("openat ENOENT", 14)]));
    page.assert_nothing_lost();
    let used = worker.cpu() + listener.cpu() - cpu_before;
    assert!(used >= 0.38, "it computed for 400 ms: {used}");
    assert_eventually!(agent, |page| (cpu(page) - cpu(&page_before) - used).abs() < 0.05);

    // What it is by reading ends with it.
    drop(worker);
    assert_eventually!(agent, |page| rss(page) < 64 << 20 && rss(page) > 0);
    drop(ballast);
}
