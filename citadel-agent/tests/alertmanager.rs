//! The whole way: pages -> rules -> real Alertmanagers, which receive, group and resolve. One of two peers is down.

mod support;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use citadel_agent::alerts::{Numbers, Running, prepare, read_saved};
use citadel_agent::config::{self, Config};
use citadel_agent::metrics::catalogue::models::CONNECTIONS_OPEN;
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::slot::Slot;

use serde_json::Value as Json;
use support::pages::every;
use support::{child, client};
use tempfile::TempDir;

/// Alertmanager groups for a second, the agent evaluates ten times a second; this is for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Receives what Alertmanager passes on, and remembers it.
struct Webhook {
    addr: SocketAddr,
    received: Arc<Mutex<Vec<Json>>>,
}

impl Webhook {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Json>>>::default();
        let into = Arc::clone(&received);
        // Ends with the process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(request) = stream.ok().and_then(|stream| client::receive_post(stream, "200 OK")) else {
                    continue;
                };
                if let Ok(json) = serde_json::from_slice(&request.body) {
                    into.lock().unwrap().push(json);
                }
            }
        });
        Self { addr, received }
    }

    /// What was received and fulfils `wanted`, once there is something.
    fn wait_for(&self, what: &str, wanted: impl Fn(&Json) -> bool) -> Json {
        eventually(what, || self.received.lock().unwrap().iter().find(|json| wanted(json)).cloned())
    }
}

/// A real Alertmanager that ends with this value.
struct Alertmanager {
    process: Child,
    addr: SocketAddr,
    _dir: TempDir,
}

impl Alertmanager {
    /// Listens on `addr` and passes groups (by alert name) on to `webhook`.
    fn start(addr: SocketAddr, webhook: SocketAddr) -> Self {
        let dir = TempDir::new().unwrap();
        let config = format!(
            "route: {{receiver: hook, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers:\n- name: hook\n  webhook_configs: [{{url: 'http://{webhook}/', send_resolved: true}}]\n"
        );
        fs::write(dir.path().join("alertmanager.yml"), config).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let process = Command::new("prometheus-alertmanager")
            .arg(format!("--config.file={}", dir.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Alertmanager is needed: apt-get install prometheus-alertmanager (cargo xtask test does it)");
        let manager = Self { process, addr, _dir: dir };
        eventually("Alertmanager answers", || manager.alerts());
        manager
    }

    /// The alerts that it holds, as its own API tells them.
    fn alerts(&self) -> Option<Vec<Json>> {
        client::get_json(self.addr, "/api/v2/alerts")?.as_array().cloned()
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// An address that is free now; were it taken by the time it is needed, the test would fail and say so.
fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// Tells `up` of the alerts by the v1 URL that the operator's file has, and `down`, where nobody listens.
fn config(up: SocketAddr, down: SocketAddr, threshold: u32) -> Config {
    let text = format!(
        "remote_monitoring:
  enabled: true
  dev_ops_server: 127.0.0.1
  prometheus: {{evaluation_interval: 100ms}}
  grafana: {{dashboard_url: 'http://127.0.0.1:3000'}}
  alerting: {{alert_manager_url: 'http://{down}', webhook_url: 'http://{up}/api/v1/alerts'}}
alerts:
  shipped: false
  rules:
    - alert: ManyConnections
      metric: citadel_model_connections_open
      above: {threshold}
      severity: warning
      labels: {{team: ml}}
      annotations: {{summary: '{{{{ $labels.model }}}} has {{{{ $value }}}}'}}
"
    );
    config::parse("test", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The agent's alerts on a thread of their own, fed with a number of connections for each of two models.
struct Alerts {
    open: Arc<Mutex<[u64; 2]>>,
    numbers: Slot<Numbers>,
    commands: tokio::sync::mpsc::UnboundedSender<Config>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Alerts {
    fn start(config: Config, state: &Path) -> Self {
        let (commands, mut incoming) = tokio::sync::mpsc::unbounded_channel();
        let (open, numbers) = (Arc::<Mutex<[u64; 2]>>::default(), Slot::default());
        let (shown, figures, state) = (Arc::clone(&open), numbers.clone(), state.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pages = || {
                    let shown = Arc::clone(&shown);
                    every(move || Some(page(*shown.lock().unwrap())))
                };
                let mut running = Running::new(figures).in_folder(&state);
                running.replace(prepare(&config).unwrap(), pages()).await;
                while let Some(config) = incoming.recv().await {
                    running.replace(prepare(&config).unwrap(), pages()).await;
                }
                running.stop().await;
            });
        });
        Self { open, numbers, commands, thread: Some(thread) }
    }

    fn open(&self, connections: [u64; 2]) {
        *self.open.lock().unwrap() = connections;
    }

    fn numbers(&self) -> Numbers {
        self.numbers.newest().map_or_else(Numbers::default, |newest| Numbers::clone(&newest.value))
    }

    /// The planned stop, to its end.
    fn stop(mut self) {
        self.commands = tokio::sync::mpsc::unbounded_channel().0;
        self.thread.take().unwrap().join().unwrap();
    }
}

fn page(connections: [u64; 2]) -> Page {
    let mut page = Page::default();
    for (model, open) in ["phi3", "hermes"].into_iter().zip(connections) {
        page.add(&CONNECTIONS_OPEN, [model, "11400"], Value::Integer(open));
    }
    page
}

fn statuses(group: &Json) -> Vec<(&str, &str)> {
    let alerts = group["alerts"].as_array().map_or(&[][..], Vec::as_slice);
    let mut statuses: Vec<_> = alerts
        .iter()
        .map(|alert| (alert["labels"]["model"].as_str().unwrap(), alert["status"].as_str().unwrap()))
        .collect();
    statuses.sort_unstable();
    statuses
}

#[test]
fn it_receives_groups_and_resolves_while_another_peer_is_down() {
    let webhook = Webhook::start();
    let state = TempDir::new().unwrap();
    let (up, down) = (free(), free());
    let manager = Alertmanager::start(up, webhook.addr);
    let alerts = Alerts::start(config(up, down, 3), state.path());
    alerts.open([5, 7]);

    // Both alerts come as one group, with everything that they have.
    let group =
        webhook.wait_for("a group of two", |group| statuses(group) == [("hermes", "firing"), ("phi3", "firing")]);
    assert_eq!(group["groupLabels"], serde_json::json!({"alertname": "ManyConnections"}));
    let alert = group["alerts"].as_array().unwrap().iter().find(|alert| alert["labels"]["model"] == "phi3").unwrap();
    assert_eq!(alert["annotations"]["summary"], "phi3 has 5");
    assert_eq!(alert["generatorURL"], "http://127.0.0.1:3000");
    for (label, value) in [("severity", "warning"), ("team", "ml"), ("job", "citadel-agent"), ("port", "11400")] {
        assert_eq!(alert["labels"][label], value);
    }

    // One ends, and the other one goes on.
    alerts.open([5, 0]);
    webhook.wait_for("one resolved", |group| statuses(group) == [("hermes", "resolved"), ("phi3", "firing")]);
    let still = eventually("one left", || manager.alerts().filter(|alerts| alerts.len() == 1)).remove(0);

    // The peer that is down has been waited for all the time; when it comes, it is told the same.
    let numbers = alerts.numbers();
    let of = |addr: SocketAddr| numbers.peers.iter().find(|peer| peer.peer == addr.to_string()).unwrap();
    assert!(of(down).failures > 0 && of(down).pending == 2 && of(down).delivered == 0, "{numbers:?}");
    assert!(of(up).delivered >= 3 && of(up).failures == 0 && of(up).rejected == 0, "{numbers:?}");
    let late = Alertmanager::start(down, webhook.addr);
    let told = eventually("the late peer is told", || late.alerts().filter(|alerts| alerts.len() == 1)).remove(0);
    for field in ["labels", "annotations", "startsAt", "fingerprint"] {
        assert_eq!(told[field], still[field], "{field}");
    }

    // A reload that changes no rule's outcome, a planned stop and a restart: it goes on firing, since when it began.
    let count = |numbers: &Numbers| numbers.peers.iter().map(|peer| peer.delivered).max().unwrap_or(0);
    let delivered = count(&alerts.numbers());
    alerts.commands.send(config(up, down, 4)).unwrap();
    eventually("counters go on over a reload", || (count(&alerts.numbers()) > delivered).then_some(()));
    alerts.stop();
    assert_eq!(read_saved(&state.path().join("alerts.json")).unwrap().alerts.len(), 2);
    let before = webhook.received.lock().unwrap().len();
    let again = Alerts::start(config(up, down, 4), state.path());
    again.open([6, 0]);
    let updated = eventually("the new value", || {
        let alerts = manager.alerts()?;
        alerts.into_iter().find(|alert| alert["annotations"]["summary"] == "phi3 has 6")
    });
    assert_eq!(updated["startsAt"], still["startsAt"]);
    assert!(
        webhook.received.lock().unwrap()[before..].iter().all(|group| group["status"] == "firing"),
        "no resolve by a stop"
    );

    // And the end of it.
    again.open([0, 0]);
    webhook.wait_for("all resolved", |group| {
        group["status"] == "resolved" && statuses(group).contains(&("phi3", "resolved"))
    });
    eventually("nothing fires", || manager.alerts().filter(Vec::is_empty));
    again.stop();
}

/// The real agent, which ends with this value. By SIGKILL: it has no time to save anything.
struct Agent {
    _running: child::Running,
}

impl Agent {
    /// Watches its own open files, of which it always has some, and tells `peer`.
    fn start(dir: &Path, peer: SocketAddr, ports: [u16; 2]) -> Self {
        let [metrics, health] = ports;
        let text = format!(
            "local_collection: {{listen_address: 127.0.0.1, metrics_port: {metrics}, health_check_port: {health}}}
ebpf: {{net: false}}
model_monitoring: {{ports: {{}}, discover: none}}
remote_monitoring:
  enabled: true
  dev_ops_server: 127.0.0.1
  prometheus: {{evaluation_interval: 100ms}}
  alerting: {{alert_manager_url: 'http://{peer}'}}
alerts:
  shipped: false
  rules: [{{alert: OpenFiles, metric: process_open_fds, above: 0, for: 1s, severity: info}}]
"
        );
        fs::write(dir.join("config.yaml"), text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
        command
            .args(["run", "--config"])
            .arg(dir.join("config.yaml"))
            .env("STATE_DIRECTORY", dir)
            .env_remove("RUST_LOG");
        let agent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { _running: child::Running(agent) }
    }
}

#[test]
fn an_agent_that_is_killed_goes_on_firing_where_it_was() {
    let peer = Webhook::start();
    let dir = TempDir::new().unwrap();
    let ports = [free().port(), free().port()];
    let agent = Agent::start(dir.path(), peer.addr, ports);
    let first = peer.wait_for("the alert", |alerts| alerts[0]["labels"]["alertname"] == "OpenFiles");
    let health = SocketAddr::from((Ipv4Addr::LOCALHOST, ports[1]));
    let status = client::get_json(health, "/status").unwrap();
    assert_eq!(status["alerts"]["active"][0]["state"], "firing");
    assert_eq!(status["alerts"]["active"][0]["labels"], first[0]["labels"]);
    drop(agent);

    let before = peer.received.lock().unwrap().len();
    let _agent = Agent::start(dir.path(), peer.addr, ports);
    // At once: it does not wait for the rule's `for` again.
    let again = eventually("the alert again", || peer.received.lock().unwrap().get(before).cloned());
    for field in ["labels", "startsAt"] {
        assert_eq!(again[0][field], first[0][field], "{field}");
    }
    let received = peer.received.lock().unwrap();
    let ends =
        |json: &Json| (json[0]["startsAt"].as_str().map(str::to_owned), json[0]["endsAt"].as_str().map(str::to_owned));
    // A resolved one would end before now; these end minutes after they began.
    assert!(received.iter().map(ends).all(|(starts, ends)| ends > starts), "{received:?}");
}
