//! The agent as a service: what it tells systemd, and reloads that somebody waits for.

mod support;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A running agent without kernel programs, and the socket at which systemd would listen.
struct Service {
    child: Child,
    notifications: UnixDatagram,
    folder: TempDir,
    ports: [u16; 2],
}

impl Service {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let notifications = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        notifications.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        // Free a moment ago; nothing else here asks for ports by number.
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let ports = free.each_ref().map(|listener| listener.local_addr().unwrap().port());
        drop(free);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
        command.arg("run").env_remove("RUST_LOG").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.env("NOTIFY_SOCKET", folder.path().join("notify")).env("STATE_DIRECTORY", folder.path());
        command.env("WATCHDOG_USEC", "60000000").env_remove("WATCHDOG_PID");
        let config = folder.path().join("config.yaml");
        fs::write(&config, text(&folder, ports, "")).unwrap();
        let child = command.env("CITADEL_AGENT_CONFIG", config).spawn().unwrap();
        Self { child, notifications, folder, ports }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// Writes the configuration, with more keys, or as a whole other text.
    fn configure(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
    }

    fn with(&self, more: &str) -> String {
        text(&self.folder, self.ports, more)
    }

    /// The first notification that contains `what`.
    fn notified(&self, what: &str) -> String {
        let mut buffer = [0; 4096];
        let until = Instant::now() + Duration::from_secs(60);
        while Instant::now() < until {
            let length = self.notifications.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("{what} was not sent: {error}\n{}", fs::read_to_string(self.folder.path().join("log")).unwrap())
            });
            let text = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if text.contains(what) {
                return text;
            }
        }
        panic!("{what} was not sent");
    }

    fn reload(&self) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
        command.arg("reload").env("CITADEL_AGENT_CONFIG", self.config()).env_remove("RUST_LOG");
        command.output().unwrap()
    }

    fn page(&self, path: &str) -> u16 {
        support::client::get(SocketAddr::from(([127, 0, 0, 1], self.ports[0])), path, "").status
    }

    /// Whether the last load of the configuration succeeded, and when the one in force was loaded, as the metrics have it.
    fn loaded(&self) -> (bool, f64) {
        let answer = support::client::get(SocketAddr::from(([127, 0, 0, 1], self.ports[0])), "/metrics", "");
        let page = String::from_utf8(answer.body).unwrap();
        let value = |name: &str| {
            let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is missing")).parse::<f64>().unwrap()
        };
        let successful = value("citadel_config_last_reload_successful");
        assert!([0.0, 1.0].contains(&successful), "{successful}");
        (successful == 1.0, value("citadel_config_last_reload_success_timestamp_seconds"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn text(folder: &TempDir, [metrics, health]: [u16; 2], more: &str) -> String {
    format!(
        "local_collection:\n  listen_address: 127.0.0.1\n  metrics_port: {metrics}\n  health_check_port: {health}\n  \
         control_socket: {}\n{more}ebpf: {{net: false, recvq: false, sched: false, syscalls: false}}\ngpu: {{enabled: false}}\n\
         model_monitoring: {{ports: {{}}, discover: none}}\n",
        folder.path().join("control").display()
    )
}

#[test]
fn systemd_is_told_when_it_is_ready_that_it_lives_and_when_it_stops() {
    let mut service = Service::start();
    let ready = service.notified("READY=1");
    assert!(ready.contains("STATUS=0 models; probes: none"), "{ready}");
    assert_eq!(service.page("/metrics/system"), 200, "ready means that it answers");
    service.notified("WATCHDOG=1");
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(service.child.id().cast_signed(), libc::SIGTERM) };
    service.notified("STOPPING=1");
    assert!(service.child.wait().unwrap().success());
}

#[test]
fn a_reload_waits_for_its_outcome_and_fails_where_the_agent_refuses() {
    let service = Service::start();
    service.notified("READY=1");
    let (successful, at_start) = service.loaded();
    assert!(successful);

    service.configure(&service.with("  endpoints: {system_metrics: /host}\n"));
    let output = service.reload();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "configuration reloaded\n");
    // In force when the command has ended, not some time after.
    assert_eq!((service.page("/host"), service.page("/metrics/system")), (200, 404));
    let (successful, at_reload) = service.loaded();
    assert!(successful && at_reload > at_start, "{at_reload} is not after {at_start}");

    // A mistake in the file.
    service.configure(&service.with("  metrcs_port: 1\n"));
    let output = service.reload();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown key \"metrcs_port\""), "{output:?}");
    assert_eq!(service.page("/host"), 200);

    // A file that is right, and that this host cannot do.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    service.configure(&text(&service.folder, [port, service.ports[1]], ""));
    let output = service.reload();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("configuration not reloaded, keeping the current one: port "), "{said}");
    assert!(said.contains(&format!("port {port} is already used by ")), "{said}");
    // The current configuration is that of the reload before.
    assert_eq!(service.loaded(), (false, at_reload));
    assert_eq!(service.page("/host"), 200);
    let status = service.notified("configuration not reloaded");
    assert!(status.contains(&format!("port {port}")), "{status}");
}

/// Runs `top` against the agent of this configuration.
fn top(config: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
    command.arg("top").args(args).env("CITADEL_AGENT_CONFIG", config).env_remove("RUST_LOG").stdin(Stdio::null());
    command.output().unwrap()
}

#[test]
fn top_shows_what_the_running_agent_knows() {
    let mut service = Service::start();
    service.notified("READY=1");
    // A model that listens and answers nobody.
    let model = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = model.local_addr().unwrap().port().to_string();
    let ports = format!("ports: {{stand-in: {port}}}");
    service.configure(&service.with("").replace("ports: {}", &ports));
    assert!(service.reload().status.success());
    let config = service.config();
    let wanted = |view: &serde_json::Value| {
        let model = view["models"].as_array().unwrap().first().cloned();
        // Once the memory of its process (this one) is in the history.
        model.filter(|model| model["memory_bytes"].as_f64().is_some())
    };
    let until = Instant::now() + Duration::from_secs(60);
    let (view, model) = loop {
        let output = top(&config, &["--format", "json"]);
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        if let Some(model) = wanted(&view) {
            break (view, model);
        }
        assert!(Instant::now() < until, "{view:#}");
        std::thread::sleep(Duration::from_millis(500));
    };
    assert_eq!((&model["name"], model["port"].to_string()), (&"stand-in".into(), port.clone()));
    assert!(model["memory_bytes"].as_f64().unwrap() > 1e6, "{model:#}");
    assert_eq!(
        (&model["requests_per_second"], &model["in_flight"]),
        (&().into(), &().into()),
        "no program counts them"
    );
    assert!(view["host"]["memory_total_bytes"].as_f64().unwrap() > 1e8, "{view:#}");

    // A pipe gets the table.
    let output = top(&config, &["--model", &port]);
    let table = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<_> = table.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("MODEL") && lines[1].starts_with("stand-in"), "{table}");
    assert!(!table.contains('\x1b'), "{table:?}");

    let output = top(&config, &["--model", "nobody"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("the agent knows no model 'nobody'; it knows: stand-in ({port})\n"));

    _ = service.child.kill();
    _ = service.child.wait();
    let output = top(&config, &["--once"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("start it with `sudo systemctl start citadel-agent`"), "{said}");
}

#[test]
fn a_mistaken_configuration_ends_the_start_with_a_code_that_is_not_tried_again() {
    let unit = include_str!("../../systemd/citadel-agent.service");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.yaml");
    fs::write(&config, "local_collection: {metrics_port: 0}").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
    let output = command.arg("run").arg("--config").arg(&config).output().unwrap();
    let code = output.status.code().unwrap();
    assert!(unit.lines().any(|line| line == format!("RestartPreventExitStatus={code}")), "{code}");
}
