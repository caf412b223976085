//! The real binary, asked over HTTP and by its own command line.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use citadel_agent::config::resolved::Ebpf;
use citadel_agent::config::{self, Config};
use fake_nvml::hosts::{h100, host};
use fake_nvml::install::Installed;
use fake_nvml::scenario::Hang;

use crate::host::{PATIENCE, value};
use crate::support::client;
use crate::support::text::{Parsed, parse};

/// What the issue asks of `/metrics/models` while NVML hangs.
const LIMIT: Duration = Duration::from_millis(50);

struct Agent {
    process: Child,
    port: u16,
    config: PathBuf,
}

impl Agent {
    /// Starts the agent on ports of its own, without kernel probes, and waits until it is ready.
    fn start(folder: &Path, fake: &Installed) -> Self {
        Self::with_models(folder, fake, &[])
    }

    fn with_models(folder: &Path, fake: &Installed, models: &[(u16, &str)]) -> Self {
        // From picking ports to listening at them, no other test picks any.
        let _picking = PICKING.lock().unwrap_or_else(PoisonError::into_inner);
        let [metrics, health] = free_ports();
        let mut settings = Config::default();
        settings.local.listen_address = [127, 0, 0, 1].into();
        settings.local.metrics_port = metrics;
        settings.local.health_check_port = health;
        settings.local.control_socket = folder.join("control.sock");
        settings.models.ports = models.iter().map(|&(port, name)| (port, name.to_owned())).collect();
        settings.models.discover = None;
        settings.ebpf = Ebpf { net: false, recvq: false, sched: false, syscalls: false, ..Ebpf::default() };
        settings.gpu.nvml_library = Some(fake.library());
        settings.gpu.sampling_interval = Duration::from_millis(200);
        let config = folder.join("config.yaml");
        fs::write(&config, config::print(&settings)).unwrap();
        let mut process = command(&["run"], &config).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap()).lines();
        let ready = log.by_ref().map_while(Result::ok).any(|line| line.contains("ready:"));
        assert!(ready, "the agent ended before it was ready");
        // Read on, so that the pipe never fills up.
        std::thread::spawn(move || log.count());
        Self { process, port: metrics, config }
    }

    fn get(&self, path: &str) -> (String, Duration) {
        let begin = Instant::now();
        let answer = client::get(([127, 0, 0, 1], self.port).into(), path, "");
        (answer.text().to_owned(), begin.elapsed())
    }

    fn parsed(&self, path: &str) -> Parsed {
        parse(&self.get(path).0)
    }

    fn order(&self, words: &[&str]) -> Output {
        command(words, &self.config).output().unwrap()
    }

    #[track_caller]
    fn until(&self, what: &str, met: impl Fn(&Parsed) -> bool) {
        let begin = Instant::now();
        while !met(&self.parsed("/metrics/gpu")) {
            assert!(begin.elapsed() < PATIENCE, "no {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

fn command(words: &[&str], config: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_citadel-agent"));
    command.args(words).arg("--config").arg(config).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

static PICKING: Mutex<()> = Mutex::new(());

fn free_ports() -> [u16; 2] {
    // Both at once, so that they differ.
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

#[test]
fn pages_answer_at_once_while_nvml_hangs_for_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let mut scenario = host(vec![h100(0, &[(101, 1024, 50)])]);
    let fake = Installed::new(folder.path(), &scenario, &[]).unwrap();
    let agent = Agent::start(folder.path(), &fake);
    agent.until("GPU", |page| value(page, "citadel_gpu_up", &[]) == Some(1.0));

    scenario.hang = Some(Hang { call: "nvmlDeviceGetUtilizationRates".to_owned(), gpu: 0, seconds: 60 });
    fake.set(&scenario).unwrap();
    let hung = Instant::now();
    let mut times = Vec::new();
    agent.until("sign of the hang", |page| value(page, "citadel_gpu_up", &[]) == Some(0.0));
    for _ in 0..50 {
        times.push(agent.get("/metrics/models").1);
    }
    assert!(hung.elapsed() < Duration::from_secs(50), "the call was out all the time");
    times.sort();
    println!(
        "/metrics/models during the hang: fastest {:?}, median {:?}, slowest {:?}",
        times[0], times[25], times[49]
    );
    // The median: what a busy machine adds to some is not the agent's.
    assert!(times[25] < LIMIT, "{times:?}");
    // Ending does not wait either.
    let stopping = Instant::now();
    drop(agent);
    assert!(stopping.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_command_line_lets_go_of_nvml_and_takes_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Installed::new(folder.path(), &host(vec![h100(0, &[])]), &[]).unwrap();
    let agent = Agent::start(folder.path(), &fake);
    agent.until("GPU", |page| value(page, "citadel_gpu_up", &[]) == Some(1.0));

    let released = agent.order(&["gpu", "release", "--for", "5m"]);
    let said = String::from_utf8_lossy(&released.stdout).into_owned();
    assert!(released.status.success() && said.contains("300 s"), "{released:?}");
    assert!(!fake.is_open());
    assert_eq!(value(&agent.parsed("/metrics/gpu"), "citadel_gpu_released", &[]), Some(1.0));

    assert!(agent.order(&["gpu", "resume"]).status.success());
    agent.until("return", |page| value(page, "citadel_gpu_up", &[]) == Some(1.0));
    assert!(fake.is_open());

    let wrong = agent.order(&["gpu", "release", "--for", "2 fortnights"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    let config = agent.config.clone();
    drop(agent);
    let nobody = command(&["gpu", "release"], &config).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("check that it is running"), "{nobody:?}");
}

#[test]
fn a_socket_that_a_killed_agent_left_behind_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Installed::new(folder.path(), &host(vec![h100(0, &[])]), &[]).unwrap();
    // Killed: it removes nothing.
    drop(Agent::start(folder.path(), &fake));
    assert!(folder.path().join("control.sock").exists());
    let agent = Agent::start(folder.path(), &fake);
    assert!(agent.order(&["gpu", "resume"]).status.success());
}

#[test]
fn a_servers_whole_process_tree_is_found_on_the_gpu() {
    let folder = tempfile::tempdir().unwrap();
    // This process listens on a model's port, and a child of its holds the GPU, as the workers of a server do.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut worker = Command::new("sleep").arg("60").spawn().unwrap();
    let gpu = h100(0, &[(std::process::id(), 100, 5), (worker.id(), 2000, 40), (1, 7, 0)]);
    let fake = Installed::new(folder.path(), &host(vec![gpu]), &[]).unwrap();
    let agent = Agent::with_models(folder.path(), &fake, &[(server.local_addr().unwrap().port(), "phi3")]);
    let memory = 2100.0 * 1048576.0;
    let models = || agent.parsed("/metrics/models");
    let of = |name, model| value(&models(), name, &[("model", model)]);
    agent.until("model", |_| of("citadel_model_gpu_memory_bytes", "phi3") == Some(memory));
    assert_eq!(of("citadel_model_gpu_sm_ratio", "phi3"), Some(0.45));
    // The memory of process 1, which is no model's, and what the driver keeps.
    assert_eq!(of("citadel_model_gpu_memory_bytes", ""), Some(24.0 * 1048576.0));
    agent.until("energy", |_| of("citadel_model_gpu_energy_joules_total", "phi3") > Some(0.0));
    let labels = [("pid", &*worker.id().to_string()), ("model", "phi3")];
    assert!(value(&agent.parsed("/metrics/gpu"), "citadel_gpu_process_memory_bytes", &labels).is_some());
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn a_worker_in_a_pid_namespace_of_its_own_is_its_models() {
    // As in a container: inside it is process 1, and NVML names it by the number that it has outside.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let own: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let mut holder = Command::new("unshare")
        .args(own)
        .args(["--pid", "--fork", "--kill-child", "sleep", "60"])
        .spawn()
        .expect("unshare is part of util-linux");
    let children = format!("/proc/{0}/task/{0}/children", holder.id());
    let begin = Instant::now();
    let worker: u32 = loop {
        let listed = fs::read_to_string(&children).unwrap_or_default();
        if let Some(Ok(pid)) = listed.split_whitespace().next().map(str::parse) {
            break pid;
        }
        assert!(begin.elapsed() < PATIENCE, "no process in a namespace: run as root, or allow user namespaces");
        std::thread::sleep(Duration::from_millis(10));
    };
    let folder = tempfile::tempdir().unwrap();
    let fake = Installed::new(folder.path(), &host(vec![h100(0, &[(worker, 2000, 40)])]), &[]).unwrap();
    let agent = Agent::with_models(folder.path(), &fake, &[(server.local_addr().unwrap().port(), "phi3")]);
    let memory = || value(&agent.parsed("/metrics/models"), "citadel_model_gpu_memory_bytes", &[("model", "phi3")]);
    agent.until("model", |_| memory() == Some(2000.0 * 1048576.0));
    holder.kill().unwrap();
    holder.wait().unwrap();
}

#[test]
fn orders_that_make_no_sense_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let fake = Installed::new(folder.path(), &host(vec![h100(0, &[])]), &[]).unwrap();
    let agent = Agent::start(folder.path(), &fake);
    let say = |line: &str| {
        let mut stream = UnixStream::connect(folder.path().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        // Cut off where the rest of a line was not read.
        _ = stream.read_to_string(&mut answer);
        answer
    };
    for (line, refusal) in [
        ("{\"version\":1,\"order\":{\"order\":\"gpu_release\",\"seconds\":18446744073709551615}}\n", "more than 24h"),
        ("{\"version\":1,\"order\":{\"order\":\"gpu_release\"}}\n", "missing field"),
        ("{\"version\":1,\"order\":{\"order\":\"format_disk\"}}\n", "invalid request"),
        ("\n", "not valid JSON"),
    ] {
        let answer = say(line);
        assert!(answer.contains("failed") && answer.contains(refusal), "{line}: {answer}");
    }
    say(&"x".repeat(100_000));
    agent.until("GPU", |page| value(page, "citadel_gpu_released", &[]) == Some(0.0));
}
