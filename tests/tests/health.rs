//! Health probes with the kernel programs attached: they are in none of the model's numbers, by connection and not by path.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use citadel_agent_tests::agent::Setup;
use citadel_agent_tests::assert_eventually;
use citadel_agent_tests::names::{CONNECTIONS, OPEN, REQUEST_BYTES, RESPONSE_BYTES};

/// A server that answers everything with 200, and how often it was asked.
fn server(address: IpAddr) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            answer(stream);
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    (port, asked)
}

fn answer(mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
}

/// Probes by the dozen, and not one of them is measured; a client that asks for the same path is.
fn probes_are_not_measured(address: IpAddr) {
    let (port, asked) = server(address);
    let agent = Setup::new().model("probed", port).probing().start();
    agent.assert_measuring();
    let page = assert_eventually!(agent, |page| asked.load(Ordering::SeqCst) >= 30
        && page.gauge("citadel_model_up").label("model", "probed").is_present());
    assert_eq!(page.gauge("citadel_model_up").label("model", "probed").value(), 1);
    page.assert_no_request_invented();
    page.assert_nothing_lost();
    for counter in [CONNECTIONS, REQUEST_BYTES, RESPONSE_BYTES] {
        assert_eq!(page.counter(counter).value(), 0, "{counter}");
    }
    assert_eq!(page.gauge(OPEN).value(), 0);

    let mut client = TcpStream::connect((address, port)).unwrap();
    client.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(BufReader::new(client).lines().next().unwrap().unwrap().starts_with("HTTP/1.1 200"));
    let page = assert_eventually!(agent, |page| page.requests() == 1);
    assert_eq!(page.counter("citadel_model_requests_total").label("endpoint", "health").value(), 1);
}

#[test]
fn probes_are_not_measured_over_ipv4() {
    probes_are_not_measured(Ipv4Addr::LOCALHOST.into());
}

#[test]
fn probes_are_not_measured_over_ipv6() {
    probes_are_not_measured(Ipv6Addr::LOCALHOST.into());
}
