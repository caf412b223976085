//! `cargo xtask run --demo`: stand-in models that know their own timing, a small load, and the agent's numbers next to
//! theirs. Everything that is started stops with the demo: each process is a [`Group`], which ends on drop.

mod load;
mod table;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use self::load::Load;
use self::table::{Row, Truth};
use crate::group::{self, Group};
use crate::scrape::{self, Page};
use crate::workspace::Workspace;
use crate::{build, process};

/// The agent's ports: metrics and health.
const METRICS_PORT: u16 = 8000;
const HEALTH_PORT: u16 = 8001;

/// Refresh interval of the table.
const INTERVAL: Duration = Duration::from_secs(2);

/// The stand-ins' dependencies, from PyPI.
const PYTHON_PACKAGES: [&str; 2] = ["fastapi==0.165.0", "uvicorn==0.54.0"];

/// A stand-in model and its speed.
struct Model {
    name: &'static str,
    port: u16,
    /// Seconds before the first chunk.
    first_token: f64,
    /// Seconds between chunks.
    between_tokens: f64,
    tokens: u32,
}

const MODELS: [Model; 3] = [
    Model { name: "demo-fast", port: 11400, first_token: 0.040, between_tokens: 0.008, tokens: 40 },
    Model { name: "demo-steady", port: 11401, first_token: 0.150, between_tokens: 0.025, tokens: 30 },
    Model { name: "demo-slow", port: 11402, first_token: 0.600, between_tokens: 0.060, tokens: 15 },
];

/// Clients of each model.
const CLIENTS: usize = 2;

/// Fails, naming the port, when a port of the demo is in use.
pub(crate) fn check_ports() -> Result<()> {
    let models = MODELS.iter().map(|model| (model.port, "a stand-in model"));
    let agent = [(METRICS_PORT, "the agent's metrics"), (HEALTH_PORT, "the agent's health")];
    for (port, what) in models.chain(agent) {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| {
            format!("port {port}, needed for {what}, is in use; stop the process that listens on it (`ss -ltnp`)")
        })?;
    }
    Ok(())
}

/// Runs the demo with the agent `binary`, for some seconds or until Ctrl-C.
///
/// # Errors
/// Something did not start or has exited, or the agent and the models disagree.
pub(crate) fn main(workspace: &Workspace, binary: &Path, seconds: Option<u64>, rest: &[OsString]) -> Result<()> {
    let folder = workspace.root.join("target/demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let python = python(workspace, &folder)?;
    if let Some(sudo) = process::sudo(binary)? {
        // Asks for the password now, in the foreground; what follows runs in the background.
        process::run(Command::new(sudo).arg("-v"))?;
    }
    group::catch_signals();

    let mut models = MODELS.iter().map(|model| StandIn::start(model, &python, &folder)).collect::<Result<Vec<_>>>()?;
    for StandIn { model, group, .. } in &mut models {
        group.wait_until(Duration::from_secs(20), || scrape::get(model.port, "/health").is_ok())?;
    }

    let config = folder.join("agent.yaml");
    fs::write(&config, config_text()).with_context(|| format!("cannot write {}", config.display()))?;
    let mut command = build::agent_command(binary, Some(&config))?;
    let mut agent = Group::spawn("the agent", command.args(rest), group::log(&folder, "agent"), false)?;
    agent.wait_until(Duration::from_secs(20), || scrape::get(HEALTH_PORT, "/ready").is_ok())?;

    eprintln!("demo: {CLIENTS} clients per model; of ten requests, one is aborted and two are not streamed");
    let load = Load::start(MODELS.iter().map(|model| model.port), CLIENTS);
    let begin = Instant::now();
    let over = || group::stopping() || seconds.is_some_and(|seconds| begin.elapsed().as_secs() >= seconds);
    while !over() {
        let shown = Instant::now();
        while shown.elapsed() < INTERVAL && !over() {
            thread::sleep(Duration::from_millis(100));
            agent.check()?;
        }
        table::show(&rows(&mut models)?);
    }

    eprintln!("demo: waiting for the clients to finish");
    load.finish();
    // A model notices an aborted stream only on its next write.
    thread::sleep(Duration::from_secs(1));
    let rows = rows(&mut models)?;
    table::show(&rows);
    let wrong: Vec<&str> = rows.iter().filter(|row| !row.agrees()).map(|row| row.name).collect();
    if !wrong.is_empty() {
        bail!("the agent and the model counted different requests for {}", wrong.join(", "));
    }
    eprintln!("demo: the agent and the models counted the same requests");
    Ok(())
}

/// A running stand-in.
struct StandIn {
    model: &'static Model,
    group: Group,
    answers: BufReader<ChildStdout>,
}

impl StandIn {
    fn start(model: &'static Model, python: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(python);
        command.args(["-c", include_str!("model.py"), model.name, &model.port.to_string()]);
        command.args([model.first_token.to_string(), model.between_tokens.to_string(), model.tokens.to_string()]);
        let mut group = Group::spawn(model.name, &mut command, group::log(folder, model.name), true)?;
        let answers = group.child.stdout.take().context("no pipe from the model")?;
        Ok(Self { model, group, answers: BufReader::new(answers) })
    }

    /// What the model itself has counted and timed so far.
    fn truth(&mut self) -> Result<Truth> {
        self.group.check()?;
        let mut ask = self.group.child.stdin.as_ref().context("no pipe to the model")?;
        let mut line = String::new();
        writeln!(ask).and_then(|()| self.answers.read_line(&mut line)).context("asking the model")?;
        Truth::parse(&line).with_context(|| format!("{} answered {line:?}", self.model.name))
    }
}

fn rows(models: &mut [StandIn]) -> Result<Vec<Row>> {
    let page = Page::parse(&scrape::get(METRICS_PORT, "/metrics/models").context("scraping the agent")?);
    models.iter_mut().map(|model| Ok(Row::new(model.model.name, &page, model.truth()?))).collect()
}

/// A Python with the stand-ins' dependencies, in a virtual environment under `folder`.
fn python(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    if !process::succeeds(Command::new(&python).args(["-c", "import fastapi, uvicorn"])) {
        let mut create = workspace.command("/usr/bin/python3");
        process::run(create.args(["-m", "venv", "--clear"]).arg(&venv))?;
        let mut install = workspace.command(&python);
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PYTHON_PACKAGES);
        process::run(&mut install).context("the stand-in models need FastAPI and uvicorn from PyPI")?;
    }
    Ok(python)
}

/// A configuration as an operator would write it, for the demo's models only; nothing leaves this host.
fn config_text() -> String {
    let mut text = format!(
        "remote_monitoring:\n  enabled: false\nlocal_collection:\n  metrics_port: {METRICS_PORT}\n  \
         health_check_port: {HEALTH_PORT}\nmodel_monitoring:\n  ports:\n"
    );
    for model in &MODELS {
        // Writing to a `String` cannot fail.
        let _ = writeln!(text, "    {}: {}", model.name, model.port);
    }
    text
}
