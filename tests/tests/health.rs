//! Health probes with the kernel programs attached: they are in none of the model's numbers, by connection and not by path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use citadel_agent_tests::agent::Setup;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::names::{
    CONNECTIONS, DURATION, IN_FLIGHT, OPEN, RECEIVE_QUEUE, REQUEST_BYTES, REQUESTS, RESPONSE_BYTES, TTFB,
};
use citadel_agent_tests::scrape::sums;

/// The paths that a server was asked for.
type Asked = Arc<Mutex<Vec<String>>>;

/// A server that answers everything with 200.
fn server(address: IpAddr) -> (u16, Asked) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Asked::default();
    let paths = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let path = answer(stream);
            paths.lock().unwrap().extend(path);
        }
    });
    (port, asked)
}

/// Answers one request, and tells its path.
fn answer(mut stream: TcpStream) -> Option<String> {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next()?;
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    first.split(' ').nth(1).map(str::to_owned)
}

/// Asks as anyone but the agent.
fn ask(address: IpAddr, port: u16, request: &str) {
    let mut client = TcpStream::connect((address, port)).unwrap();
    write!(client, "{request} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(BufReader::new(client).lines().next().unwrap().unwrap().starts_with("HTTP/1.1 200"));
}

/// Probes, names and relayed pages by the dozen, and none of them is measured: neither as requests and their latency, nor as
/// connections and bytes. The same paths asked by another agent are, each as an endpoint of its own.
fn probes_are_not_measured(address: IpAddr) {
    let (port, asked) = server(address);
    let agent = Setup::new().model("probed", port).relaying().asking().start();
    agent.assert_measuring();
    let times = |path: &str| asked.lock().unwrap().iter().filter(|asked| *asked == path).count();
    let probed = ["/v1/models", "/metrics"];
    let page = assert_eventually!(agent, |page| probed.iter().all(|path| times(path) >= 5)
        && page.gauge("citadel_model_up").label("model", "probed").is_present());
    assert_eq!(page.gauge("citadel_model_up").label("model", "probed").value(), 1);
    page.assert_no_request_invented();
    page.assert_nothing_lost();
    for counter in [CONNECTIONS, REQUEST_BYTES, RESPONSE_BYTES] {
        assert_eq!(page.counter(counter).value(), 0, "{counter}");
    }
    assert_eq!(page.gauge(OPEN).value(), 0);
    assert_eq!(page.histogram(RECEIVE_QUEUE).count(), 0);

    for path in ["/health", "/v1/models", "/metrics"] {
        ask(address, port, &format!("GET {path}"));
    }
    ask(address, port, "POST /v1/completions");
    let page = assert_eventually!(agent, |page| page.requests() == 4);
    let each = [("completions", 1), ("health", 1), ("metrics", 1), ("models", 1)];
    assert_eq!(page.counter(REQUESTS).by(["endpoint"]), sums(each));
    for histogram in [DURATION, TTFB] {
        let of_users = page.histogram(histogram).label("endpoint", "completions");
        assert_eq!(of_users.count(), 1, "{histogram}");
    }
    assert_eq!(page.gauge(IN_FLIGHT).value(), 0);
}

#[test]
fn probes_are_not_measured_over_ipv4() {
    probes_are_not_measured(Ipv4Addr::LOCALHOST.into());
}

#[test]
fn probes_are_not_measured_over_ipv6() {
    probes_are_not_measured(Ipv6Addr::LOCALHOST.into());
}
