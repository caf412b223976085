//! Health probes and the relay against servers that do what servers do, and worse.

mod naming;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::config::resolved::probing::{Access, HealthEndpoints, Own};
use citadel_agent::discovery::engine::Engine;
use citadel_agent::discovery::inventory::{Inventory, Model};
use citadel_agent::metrics::catalogue::Section;
use citadel_agent::metrics::family::Page;
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::health::{Announce, Probes};
use citadel_agent::sources::{self, Health, Origin};
use socket2::{Domain, Socket, Type};
use support::origin::{Nothing, text};
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
    /// The heads of the requests.
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(answer: impl Fn(&str, &mut TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    fn at(address: &str, answer: impl Fn(&str, &mut TcpStream) -> Option<()> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (log, heads_log, answer) = (Arc::clone(&asked), Arc::clone(&heads), Arc::new(answer));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let (log, heads, answer) = (Arc::clone(&log), Arc::clone(&heads_log), Arc::clone(&answer));
                thread::spawn(move || {
                    let mut line = String::new();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    _ = reader.read_line(&mut line);
                    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
                    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {}
                    heads.lock().unwrap().push(line);
                    log.lock().unwrap().push((path.clone(), stream.peer_addr().unwrap()));
                    if answer(&path, &mut stream).is_none() {
                        thread::sleep(Duration::from_secs(60));
                    }
                });
            }
        });
        Self { port, asked, heads }
    }

    /// A server of whom all is well, with this metrics page.
    fn well(metrics: &'static str) -> Self {
        Self::start(move |path, stream| {
            let body = match path {
                "/health" => "",
                "/v1/models" => r#"{"object":"list","data":[{"id":"microsoft/Phi-3","owned_by":"vllm"}]}"#,
                "/version" => r#"{"version":"0.32.0"}"#,
                "/metrics" => metrics,
                _ => return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").ok(),
            };
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).ok()
        })
    }

    fn paths(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
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
    models.health_endpoints = HealthEndpoints::Listed(["/health", "/v1/models", "/metrics"].map(str::to_owned).into());
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
    let mut nothing = Nothing::default();
    let mut origin = Origin { inventory, probes: Some(probes), ..nothing.origin() };
    sources::collect(Some(Section::Models), &mut origin, &mut Health::default())
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
    let (closed, _held) = nobody();
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

/// A port on which nobody listens. It is bound as long as the socket lives: a free one would be another test's server's next.
fn nobody() -> (Server, Socket) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (Server { port, asked: Arc::default(), heads: Arc::default() }, socket)
}

/// The model on a port, as discovery has found it.
fn model(port: u16, listens: bool, engine: Option<Engine>) -> Inventory {
    let model = Model {
        name: format!("port-{port}"),
        port,
        listens,
        pids: BTreeSet::new(),
        main: None,
        exe: None,
        unit: None,
        cgroup: None,
        served: None,
        unnamed: false,
        dormant: false,
        engine,
    };
    Inventory { models: vec![model] }
}

#[tokio::test]
async fn a_server_that_is_out_of_reach_is_not_called_down() {
    let (nobody, _held) = nobody();
    let port = nobody.port;
    let probes = probes(&[&nobody], false, quiet());
    until(&probes, "the refusal", |page| value(page, &nobody, "citadel_model_up", &[]) == Some(0.0)).await;
    let up = |listens| {
        let page = parse(&text(page_with(&probes, &model(port, listens, None)), Format::Text));
        value(&page, &nobody, "citadel_model_up", &[])
    };
    assert_eq!(up(false), Some(0.0));
    // In a container's own network, say.
    assert_eq!(up(true), None);
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

/// Probes one server as by default, with access of its own.
fn by_default(server: &Server, engine: Option<Engine>, access: Access) -> Probes {
    let mut models = Config::default().models;
    models.health_interval = Duration::from_millis(50);
    models.own.insert(server.label(), Own { access, ..Own::default() });
    let mut probes = Probes::new(&models, quiet());
    probes.set_models(&model(server.port, true, engine));
    probes
}

fn state(page: &Parsed, server: &Server) -> Option<String> {
    let is = |state: &&str| value(page, server, "citadel_model_state", &[("state", state)]) == Some(1.0);
    ["up", "down", "unauthorised"].iter().find(|state| is(state)).map(|state| (*state).to_owned())
}

#[tokio::test]
async fn by_default_a_known_engine_is_asked_for_its_health_and_its_version_once() {
    let server = Server::well(VLLM);
    let probes = by_default(&server, None, Access::default());
    let page =
        until(&probes, "several rounds", |_| server.paths().iter().filter(|path| *path == "/health").count() > 3);
    let page = page.await;
    assert_eq!(state(&page, &server).as_deref(), Some("up"));
    let paths = server.paths();
    // Who it is was not known before it had been asked.
    assert_eq!(paths[..2], ["/v1/models", "/metrics"]);
    assert_eq!(paths.iter().filter(|path| *path == "/version").count(), 1);
    let engine = [("engine", "vllm")];
    let labels = [("engine", "vllm"), ("version", "0.32.0")];
    assert_eq!(value(&page, &server, "citadel_engine_info", &labels), Some(1.0));
    assert_eq!(value(&page, &server, "citadel_engine_requests_running", &engine), Some(2.0));
    let prompt = [("engine", "vllm"), ("kind", "prompt")];
    assert_eq!(value(&page, &server, "citadel_engine_tokens_total", &prompt), Some(1.5e6));
    assert_eq!(value(&page, &server, "citadel_engine_page_success", &[]), Some(1.0));
    assert_eq!(value(&page, &server, "citadel_engine_page_bytes", &[]), Some(VLLM.len() as f64));
    // What the server says that it serves is in the model's info as well.
    let with = parse(&text(page_with(&probes, &model(server.port, true, None)), Format::Text));
    let info = with.samples.keys().find(|(name, _)| name == "citadel_model_info").unwrap();
    assert_eq!(info.1["served_model"], "microsoft/Phi-3");
}

/// litellm's `/health` sends a completion to each backend, and SGLang's generates a token.
#[tokio::test]
async fn by_default_no_server_is_asked_what_costs_it_work() {
    let answer = |path: &str, stream: &mut TcpStream| match path {
        "/v1/models" => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}").ok(),
        "/metrics" => write!(stream, "HTTP/1.1 307 X\r\nLocation: /metrics/\r\nContent-Length: 0\r\n\r\n").ok(),
        _ => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").ok(),
    };
    for (engine, must) in [
        (Some(Engine::LiteLlm), &["/health/liveliness", "/v1/models", "/metrics/"][..]),
        (Some(Engine::SgLang), &["/v1/models", "/metrics"]),
        (None, &["/v1/models", "/metrics"]),
    ] {
        let server = Server::start(answer);
        let probes = by_default(&server, engine, Access::default());
        let page = until(&probes, "three rounds", |_| server.paths().len() > 3 * must.len()).await;
        assert_eq!(state(&page, &server).as_deref(), Some("up"), "{engine:?}");
        assert_eq!(
            server.paths().into_iter().collect::<BTreeSet<_>>(),
            must.iter().map(|&path| path.to_owned()).collect()
        );
    }
}

#[tokio::test]
async fn a_server_that_wants_a_key_is_neither_up_nor_down_and_gets_the_key_that_is_configured() {
    let server = Server::start(|_, stream| write!(stream, "HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n").ok());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    std::fs::write(&file, "s3cret\n").unwrap();
    let headers = [("x-tenant".to_owned(), "ops".to_owned())].into();
    let access = Access { api_key_file: Some(file.clone()), headers, ..Access::default() };
    let probes = by_default(&server, None, access);
    let page = until(&probes, "a state", |page| state(page, &server).is_some()).await;
    assert_eq!(state(&page, &server).as_deref(), Some("unauthorised"));
    assert_eq!(value(&page, &server, "citadel_model_up", &[]), None);
    for head in server.heads.lock().unwrap().iter() {
        assert!(head.contains("authorization: Bearer s3cret\r\n") && head.contains("x-tenant: ops\r\n"), "{head}");
    }
    // Without the key nothing is asked, and that is no outage of the server.
    std::fs::remove_file(&file).unwrap();
    let unasked =
        |page: &Parsed| value(page, &server, "citadel_model_probe_status_code", &[("path", "/metrics")]).is_none();
    let page = until(&probes, "a round without the key", unasked).await;
    assert_eq!(state(&page, &server).as_deref(), Some("unauthorised"));
}
