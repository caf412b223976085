//! Health probes and the relay against servers that do what servers do, and worse.

mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::discovery::inventory::{Inventory, Model};
use citadel_agent::discovery::watch::Discovered;
use citadel_agent::ebpf::families::Families;
use citadel_agent::host::Roots;
use citadel_agent::metrics::catalogue::Section;
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::Page;
use citadel_agent::metrics::foreign::{self, ForeignError, Limits};
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::apart::Readers;
use citadel_agent::sources::health::{Announce, Probes};
use citadel_agent::sources::{self, Health, Memory, Origin};
use proptest::prelude::*;
use support::text::{Parsed, parse};

/// What a vLLM says of itself, shortened, and some that the agent says as well.
const VLLM: &str = "\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine=\"0\",model_name=\"phi3\"} 2.0
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine=\"0\",model_name=\"phi3\"} 1.5e+06
# HELP vllm:time_to_first_token_seconds Histogram of time to first token.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"0.1\",model=\"theirs\"} 3.0
vllm:time_to_first_token_seconds_bucket{engine=\"0\",le=\"+Inf\",model=\"theirs\"} 4.0
vllm:time_to_first_token_seconds_count{engine=\"0\",model=\"theirs\"} 4.0
vllm:time_to_first_token_seconds_sum{engine=\"0\",model=\"theirs\"} 0.5
# HELP process_resident_memory_bytes Resident memory size in bytes.
# TYPE process_resident_memory_bytes gauge
process_resident_memory_bytes 1.0e+09
";

/// A server whose answers a function gives, by path; `None` says nothing and keeps the connection open.
struct Server {
    port: u16,
    /// Paths that were asked, with the client's address.
    asked: Arc<Mutex<Vec<(String, SocketAddr)>>>,
}

impl Server {
    fn start(answer: impl Fn(&str, &mut TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    fn at(address: &str, answer: impl Fn(&str, &mut TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut line = String::new();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    _ = reader.read_line(&mut line);
                    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {}
                    log.lock().unwrap().push((path.clone(), stream.peer_addr().unwrap()));
                    if answer(&path, &mut stream).is_none() {
                        thread::sleep(Duration::from_secs(60));
                    }
                });
            }
        });
        Self { port, asked }
    }

    /// A server of whom all is well, with this metrics page.
    fn well(metrics: &'static str) -> Self {
        Self::start(move |path, stream| {
            let body = match path {
                "/health" => "",
                "/v1/models" => r#"{"object":"list","data":[{"id":"microsoft/Phi-3"}]}"#,
                "/metrics" => metrics,
                _ => return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok(),
            };
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()
        })
    }

    fn label(&self) -> String {
        self.port.to_string()
    }
}

/// Probes that ask often, so that tests are quick.
fn probes(servers: &[&Server], relay: bool, announce: Announce) -> Probes {
    let mut models = Config::default().models;
    models.health_interval = Duration::from_millis(100);
    models.health_timeout = Duration::from_millis(700);
    models.relay = relay;
    let mut probes = Probes::new(&models, announce);
    probes.set_ports(&servers.iter().map(|server| server.port).collect());
    probes
}

fn quiet() -> Announce {
    Arc::new(|_, _| Ok(Box::new(())))
}

fn page(probes: &Probes) -> Page {
    page_with(probes, &Inventory::default())
}

fn page_with(probes: &Probes, inventory: &Inventory) -> Page {
    let mut origin = Origin {
        config: &Config::default(),
        roots: &Roots::default(),
        inventory,
        discovered: &Discovered::default(),
        families: &mut Families::default(),
        alerts: &citadel_agent::slot::Slot::default(),
        http_dropped: &citadel_agent::http::Dropped::default(),
        remote_write: &citadel_agent::slot::Slot::default(),
        gpu: None,
        readers: &Readers::default(),
        services: None,
        probes: Some(probes),
        memory: &mut Memory::default(),
    };
    sources::collect(Some(Section::Models), &mut origin, &mut Health::default())
}

fn text(page: Page, format: Format) -> String {
    String::from_utf8(encode(page, format).unwrap()).unwrap()
}

/// Waits until the page is as wanted.
async fn until(probes: &Probes, what: &str, wanted: impl Fn(&Parsed) -> bool) -> Parsed {
    let begin = Instant::now();
    loop {
        let parsed = parse(&text(page(probes), Format::Text));
        if wanted(&parsed) {
            return parsed;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: {:#?}", parsed.samples);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn value(page: &Parsed, server: &Server, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let (port, model) = (server.label(), format!("port-{}", server.port));
    page.value(name, &[&[("model", model.as_str()), ("port", port.as_str())], labels].concat())
}

#[tokio::test]
async fn a_model_of_whom_all_is_well_is_up_and_names_itself() {
    let server = Server::well(VLLM);
    let probes = probes(&[&server], false, quiet());
    let paths = ["/health", "/v1/models", "/metrics"];
    let page = until(&probes, "all paths", |page| {
        paths.iter().all(|path| value(page, &server, "citadel_model_probe_success", &[("path", path)]).is_some())
    })
    .await;
    for path in paths {
        assert_eq!(value(&page, &server, "citadel_model_probe_success", &[("path", path)]), Some(1.0));
        assert_eq!(value(&page, &server, "citadel_model_probe_status_code", &[("path", path)]), Some(200.0));
        let took = value(&page, &server, "citadel_model_probe_duration_seconds", &[("path", path)]).unwrap();
        assert!((0.0..20.0).contains(&took), "{took}");
    }
    assert_eq!(value(&page, &server, "citadel_model_up", &[]), Some(1.0));
    assert_eq!(value(&page, &server, "citadel_model_served_info", &[("served_model", "microsoft/Phi-3")]), Some(1.0));
    // Not asked for: not passed on.
    assert!(!page.kind.keys().any(|name| name.starts_with("vllm:")));
}

#[tokio::test]
async fn each_failure_is_told_and_none_keeps_another_from_its_answer() {
    let well = Server::well(VLLM);
    let loading = Server::start(|_, stream| write!(stream, "HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n").ok());
    let redirecting = Server::start(|path, stream| {
        assert_ne!(path, "/elsewhere", "a redirect was followed");
        write!(stream, "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n").ok()
    });
    let silent = Server::start(|_, _| None);
    let nonsense = Server::start(|_, stream| write!(stream, "SSH-2.0-OpenSSH_9.2\r\n").ok());
    let half = Server::start(|_, stream| write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").ok());
    let closed = {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        Server { port, asked: Arc::default() }
    };
    let servers = [&well, &loading, &redirecting, &silent, &nonsense, &half, &closed];
    let probes = probes(&servers, false, quiet());
    let page = until(&probes, "all servers", |page| {
        servers
            .iter()
            .all(|server| value(page, server, "citadel_model_probe_success", &[("path", "/metrics")]).is_some())
    })
    .await;
    let up = servers.map(|server| value(&page, server, "citadel_model_up", &[]).unwrap());
    assert_eq!(up, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let status = servers.map(|server| value(&page, server, "citadel_model_probe_status_code", &[("path", "/health")]));
    assert_eq!(status, [Some(200.0), Some(503.0), Some(302.0), None, None, None, None]);
    assert!(redirecting.asked.lock().unwrap().iter().all(|(path, _)| path != "/elsewhere"));
}

/// The page of probes of one port that nobody answers, where discovery says whether a server listens.
fn refused(probes: &Probes, port: u16, listens: bool) -> Parsed {
    let model = Model {
        name: "phi3".to_owned(),
        port,
        listens,
        pids: BTreeSet::new(),
        main: None,
        exe: None,
        unit: None,
        cgroup: None,
        served: None,
    };
    parse(&text(page_with(probes, &Inventory { models: vec![model] }), Format::Text))
}

#[tokio::test]
async fn a_server_that_is_out_of_reach_is_not_called_down() {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let nobody = Server { port, asked: Arc::default() };
    let probes = probes(&[&nobody], false, quiet());
    until(&probes, "the refusal", |page| value(page, &nobody, "citadel_model_up", &[]) == Some(0.0)).await;
    let labels = [("model", "phi3"), ("port", &*port.to_string())];
    assert_eq!(refused(&probes, port, false).value("citadel_model_up", &labels), Some(0.0));
    // In a container's own network, say.
    assert_eq!(refused(&probes, port, true).value("citadel_model_up", &labels), None);
}

#[tokio::test]
async fn a_server_is_asked_where_it_listens() {
    for address in ["127.0.0.2:0", "[::1]:0"] {
        let server =
            Server::at(address, |_, stream| write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok());
        let probes = probes(&[&server], false, quiet());
        until(&probes, address, |page| value(page, &server, "citadel_model_up", &[]) == Some(1.0)).await;
    }
}

#[tokio::test]
async fn each_connection_is_announced_before_it_is_made() {
    let server = Server::well(VLLM);
    let announced = Arc::new(Mutex::new(BTreeSet::new()));
    let log = Arc::clone(&announced);
    let port = server.port;
    let announce: Announce = Arc::new(move |client, to| {
        assert_eq!(to.port(), port);
        log.lock().unwrap().insert(client);
        Ok(Box::new(()))
    });
    let probes = probes(&[&server], false, announce);
    until(&probes, "the probes", |_| server.asked.lock().unwrap().len() >= 6).await;
    for (path, client) in server.asked.lock().unwrap().iter() {
        assert!(announced.lock().unwrap().contains(client), "{path} from {client}");
    }

    // What cannot be announced is not asked: it would be measured.
    let other = Server::well(VLLM);
    let refuse: Announce = Arc::new(|_, _| Err(std::io::ErrorKind::OutOfMemory.into()));
    let probes = self::probes(&[&other], false, refuse);
    let page = until(&probes, "the failure", |page| value(page, &other, "citadel_model_up", &[]).is_some()).await;
    assert_eq!(value(&page, &other, "citadel_model_up", &[]), Some(0.0));
    assert!(other.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn models_own_metrics_are_passed_on_in_every_format() {
    let (one, two) = (Server::well(VLLM), Server::well(VLLM));
    let probes = probes(&[&one, &two], true, quiet());
    let relayed = |page: &Parsed| {
        [&one, &two].iter().all(|server| value(page, server, "citadel_model_relay_success", &[]) == Some(1.0))
    };
    until(&probes, "both relays", relayed).await;
    for format in [Format::Text, Format::OpenMetrics] {
        let page = parse(&text(page(&probes), format));
        for server in [&one, &two] {
            let labels = [("engine", "0"), ("model_name", "phi3")];
            assert_eq!(value(&page, server, "vllm:num_requests_running", &labels), Some(2.0));
            assert_eq!(value(&page, server, "vllm:prompt_tokens_total", &labels), Some(1.5e6));
            // A label that we give as well stays, under another name.
            let labels = [("engine", "0"), ("le", "0.1"), ("exported_model", "theirs")];
            assert_eq!(value(&page, server, "vllm:time_to_first_token_seconds_bucket", &labels), Some(3.0));
            assert_eq!(value(&page, server, "process_resident_memory_bytes", &[]), None);
        }
        assert_eq!(page.kind["vllm:time_to_first_token_seconds"], "histogram");
    }
    assert!(page(&probes).foreign.contains_key("vllm:prompt_tokens_total"));
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(text(page(&probes), Format::Text).as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    // Theirs are named as they are: 3 is a matter of taste, 1 a page that cannot be read.
    assert!(matches!(said.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&said.stderr));
}

#[tokio::test]
async fn garbage_and_a_body_without_end_cost_nothing_and_are_said() {
    let endless = Server::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n").ok()?;
        while writeln!(stream, "# a comment that goes on and on and on").is_ok() {}
        Some(())
    });
    let trickle = Server::start(|_, stream| {
        write!(stream, "HTTP/1.1 200 OK\r\n\r\n").ok()?;
        while writeln!(stream, "#").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        Some(())
    });
    let garbage = Server::well("<html>not metrics</html>\n");
    let well = Server::well(VLLM);
    let servers = [&endless, &trickle, &garbage, &well];
    let probes = probes(&servers, true, quiet());
    let page = until(&probes, "all relays", |page| {
        servers.iter().all(|server| value(page, server, "citadel_model_relay_success", &[]).is_some())
    })
    .await;
    let success = servers.map(|server| value(&page, server, "citadel_model_relay_success", &[]));
    assert_eq!(success, [Some(0.0), Some(0.0), Some(0.0), Some(1.0)]);
    assert!(page.kind.contains_key("vllm:num_requests_running"));
}

const LIMITS: Limits = Limits { samples: 5, labels: 2, text: 20, memory: 1 << 20 };

#[test]
fn pages_are_bounded_and_wrong_ones_refused_whole() {
    let error = |page: &str| foreign::parse(page, LIMITS).unwrap_err();
    let many: String = (0..6).map(|i| format!("a{i} 1\n")).collect();
    assert_eq!(error(&many), ForeignError::TooMuch { what: "samples", limit: 5 });
    assert!(matches!(error("a{b=\"1\",c=\"2\",d=\"3\"} 1\n"), ForeignError::TooMuch { limit: 2, .. }));
    assert!(matches!(error("a{b=\"123456789012345678901\"} 1\n"), ForeignError::TooMuch { limit: 20, .. }));
    assert!(matches!(error("a12345678901234567890 1\n"), ForeignError::TooMuch { limit: 20, .. }));
    assert_eq!(error("a 1\na 2\n"), ForeignError::Duplicate { line: 2 });
    for line in [
        "a",
        "a x",
        "1a 1",
        "a{b=1} 1",
        "a{b=\"1\" 1",
        "a{b=\"1\"c=\"2\"} 1",
        "a{b=\"1\",b=\"2\"} 1",
        "{} 1",
        "a{b=\"\\",
        "a 1 soon",
    ] {
        assert_eq!(error(&format!("b 1\n{line}\n")), ForeignError::Syntax { line: 2 }, "{line}");
    }
    for line in [
        "a 1 1600000000",
        "a{} 1",
        "a{b=\"1\",} 1",
        "a 1 # {trace=\"x\"} 2",
        "a NaN",
        "a +Inf",
        "a -Inf",
        "a 0x",
        "\u{feff}",
    ] {
        let taken = foreign::parse(line, LIMITS).is_ok();
        assert_eq!(taken, !["a 0x", "\u{feff}"].contains(&line), "{line}");
    }
}

proptest! {
    #[test]
    fn what_is_passed_on_is_what_was_said(
        samples in prop::collection::btree_map(
            ("[a-z:_][a-z0-9:_]{0,8}", prop::collection::btree_map("[a-z_][a-z0-9_]{0,5}", "\\PC{0,9}|[\"\\\\{},=]{0,4}", 0..3)),
            prop::num::f64::NORMAL | prop::num::f64::ZERO, 0..12,
        ),
    ) {
        let escape = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let page: String = samples.iter().map(|((name, labels), value)| {
            let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
            format!("{name}{{{}}} {value}\n", labels.join(","))
        }).collect();
        let limits = Limits { samples: 100, labels: 8, text: 100, memory: 1 << 20 };
        let mut families = foreign::parse(&page, limits).unwrap();
        foreign::label(&mut families, "port", "11400");
        let mut whole = Page::default();
        foreign::merge(&mut whole.foreign, families);
        for format in [Format::Text, Format::OpenMetrics] {
            let parsed = parse(&text(whole.clone(), format));
            for ((name, labels), value) in &samples {
                let mut labels = labels.clone();
                if let Some(theirs) = labels.insert("port".to_owned(), "11400".to_owned()) {
                    labels.insert("exported_port".to_owned(), theirs);
                }
                let found = parsed.samples.get(&(name.clone(), labels));
                prop_assert_eq!(found, Some(value), "{} in {:?}", name, format);
            }
        }
    }

    #[test]
    fn nothing_that_a_server_says_makes_the_reader_panic(page in "\\PC{0,80}|[a-z{}=\"\\\\ \n#0-9.]{0,80}") {
        _ = foreign::parse(&page, LIMITS);
    }
}
