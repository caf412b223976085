//! What the tests of pages and listeners share: pages to expose, a fake agent, and a parser that owes nothing to the
//! encoders.
#![allow(dead_code, unreachable_pub, reason = "each test binary is a crate of its own and uses its own part")]

pub mod chance;
pub mod child;
pub mod client;
pub mod journal;
pub mod log_lines;
pub mod names;
pub mod origin;
pub mod pages;
pub mod prometheus;
pub mod promql;
pub mod receiver;
pub mod sending;
pub mod series;
pub mod text;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use std::{env, fs};

use citadel_agent::config::resolved::probing::HealthEndpoints;
use citadel_agent::config::resolved::{
    Config, Ebpf, Endpoints, Gpu, Local, LogFormat, Logs, Models, RemoteWrite, Services, Storage,
};
use citadel_agent::history::History;
use citadel_agent::http::{self, App, CollectError, Content, Dropped, Guard, Limits, Listener};
use citadel_agent::metrics::catalogue::{self, Kind, Section};
use citadel_agent::metrics::family::{Family, Page, Sample, Value};
use citadel_agent::trace::ModelRequests;
use citadel_agent_common::hist::Histogram;
use tokio::sync::{oneshot, watch};

/// Names that break naive encoders.
pub const NASTY: [&str; 7] = [
    "quote\" } 1",
    "back\\slash\\n",
    "two\nlines\r\n",
    "{a=\"b\",le=\"1\"}",
    "# HELP mixtral",
    "nul\0 and \u{85}\u{2028}\u{feff}\t\x7f",
    "ünïcödé 模型 🦀 <b>&amp;",
];

/// A page with every metric of the catalogue, once for each of `models`.
pub fn page(models: &[&str]) -> Page {
    let mut page = Page::default();
    for (i, model) in models.iter().enumerate() {
        let port = (11400 + i).to_string();
        for desc in catalogue::all() {
            let first = desc.labels.first() == Some(&"model");
            if !first && i > 0 {
                continue;
            }
            let value = match desc.kind {
                Kind::Histogram => Value::Histogram(Box::new(histogram(100))),
                Kind::Gauge if desc.name == "process_start_time_seconds" => Value::Float(1_700_000_000.25),
                _ => Value::Integer(42 + i as u64),
            };
            let label = |name: &&str| match *name {
                "model" => model.to_string(),
                "port" => port.clone(),
                "endpoint" => "chat_completions".to_owned(),
                "code" => "200".to_owned(),
                "status" => "unsupported".to_owned(),
                other => format!("some {other} <i>"),
            };
            let sample = Sample { labels: desc.labels.iter().map(|name| label(name).into()).collect(), value };
            match page.families.iter_mut().find(|family| std::ptr::eq(family.desc, desc)) {
                Some(family) => family.samples.push(sample),
                None => page.families.push(Family { desc, samples: vec![sample], began: None }),
            }
        }
    }
    page
}

/// As many observations, log-uniform from 1 us to 100 s, the same at every call.
pub fn histogram(observations: u32) -> Histogram {
    let mut histogram = Histogram::EMPTY;
    for i in 0..observations {
        histogram.observe((1e3 * 10f64.powf(8.0 * f64::from(i) / f64::from(observations))) as u64);
    }
    histogram
}

/// Compares with a file under `tests/fixtures`, or writes it if `UPDATE_FIXTURES` is set.
pub fn assert_golden(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    if env::var_os("UPDATE_FIXTURES").is_some() {
        fs::write(&path, page).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    let differs = golden.lines().zip(page.lines()).find(|(a, b)| a != b);
    assert!(
        golden == page,
        "{name} is not what is exposed now, first at {differs:#?}\n\
         if that is meant: UPDATE_FIXTURES=1 cargo test -p citadel-agent"
    );
}

/// An agent that answers what it is told to.
pub struct Fake {
    pub config: Mutex<Config>,
    pub page: Box<dyn Fn(Option<Section>) -> Result<Page, CollectError> + Send + Sync>,
    pub ready: Mutex<Result<(), String>>,
    /// The number of the reading of the sources; at 0 they are still being read.
    pub gate: watch::Sender<u64>,
    pub history: History,
    /// Those that are pending or firing, as `/status` has them.
    pub alerts: Mutex<serde_json::Value>,
    /// Single requests.
    pub requests: Mutex<Vec<ModelRequests>>,
}

impl Fake {
    pub fn new(page: impl Fn(Option<Section>) -> Result<Page, CollectError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            config: Mutex::new(config()),
            page: Box::new(page),
            ready: Mutex::new(Ok(())),
            gate: watch::Sender::new(1),
            history: History::default(),
            alerts: Mutex::new(serde_json::json!([])),
            requests: Mutex::default(),
        })
    }
}

impl App for Fake {
    fn config(&self) -> Arc<Config> {
        Arc::new(self.config.lock().unwrap().clone())
    }

    fn refresh(&self, _: Option<Section>, _: Duration) -> Pin<Box<dyn Future<Output = u64> + Send>> {
        let mut gate = self.gate.subscribe();
        Box::pin(async move { *gate.wait_for(|reading| *reading > 0).await.unwrap() })
    }

    fn collect(&self, section: Option<Section>) -> Result<Page, CollectError> {
        (self.page)(section)
    }

    fn history(&self) -> History {
        self.history.clone()
    }

    fn requests(&self) -> Vec<ModelRequests> {
        self.requests.lock().unwrap().clone()
    }

    fn active_alerts(&self) -> serde_json::Value {
        self.alerts.lock().unwrap().clone()
    }

    fn status(&self) -> serde_json::Value {
        serde_json::json!({"families": [{"name": "net", "verdict": "ok"}]})
    }

    fn ready(&self) -> Result<(), String> {
        self.ready.lock().unwrap().clone()
    }
}

/// The configuration that [`Fake`] begins with.
pub fn config() -> Config {
    let path = str::to_owned;
    Config {
        local: Local {
            listen_address: Ipv4Addr::LOCALHOST.into(),
            metrics_port: 8000,
            health_check_port: 8001,
            web_config_file: None,
            allowed_hosts: Vec::new(),
            log_level: tracing::Level::INFO,
            log_format: LogFormat::Auto,
            collection_interval: Duration::from_secs(60),
            control_socket: "/run/citadel-agent/control.sock".into(),
            endpoints: Endpoints {
                system: path("/metrics/system"),
                gpu: path("/metrics/gpu"),
                models: path("/metrics/models"),
                storage: path("/metrics/storage"),
                services: path("/metrics/services"),
            },
        },
        models: Models {
            ports: BTreeMap::from([(11403, "phi<3>".to_owned())]),
            discover: Some(11400..=11500),
            health_endpoints: HealthEndpoints::Listed(vec![]),
            health_interval: Duration::from_secs(15),
            health_timeout: Duration::from_secs(5),
            relay: false,
            engine_metrics: true,
            ask_for_names: true,
            own: BTreeMap::new(),
        },
        remote: None,
        remote_write: RemoteWrite::default(),
        ebpf: Ebpf::default(),
        alerts: Config::default().alerts,
        storage: Storage::default(),
        services: Services::default(),
        logs: Logs::default(),
        gpu: Gpu::default(),
    }
}

/// A listener on loopback that serves until it is dropped.
pub struct Server {
    pub addr: SocketAddr,
    pub dropped: Arc<Dropped>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(content: Content, app: Arc<Fake>, limits: Limits) -> Self {
        Self::guarded(content, app, limits, None)
    }

    /// One whose clients have to pass what a web configuration file says.
    pub fn guarded(content: Content, app: Arc<Fake>, limits: Limits, file: Option<&Path>) -> Self {
        let guard = Arc::new(Guard::new(Guard::prepare(file).unwrap()));
        let socket = http::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let addr = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let dropped = Arc::<Dropped>::default();
        let listener = Listener { content, app, guard, limits, dropped: Arc::clone(&dropped) };
        // What the test has logged of its own thread, it has logged of this one.
        let log = tracing::dispatcher::get_default(Clone::clone);
        let thread = thread::spawn(move || {
            let _log = tracing::dispatcher::set_default(&log);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let shutdown = async { _ = stopped.await };
            runtime.block_on(listener.serve(socket, shutdown)).unwrap();
        });
        Self { addr, dropped, stop: Some(stop), thread: Some(thread) }
    }

    /// How many connections were dropped for this reason.
    pub fn dropped(&self, reason: &str) -> u64 {
        self.dropped.counts().filter(|(_, name, _)| *name == reason).map(|(.., count)| count).sum()
    }

    /// How many requests were refused for this reason.
    pub fn refused(&self, reason: &str) -> u64 {
        self.dropped.refusals().filter(|(_, name, _)| *name == reason).map(|(.., count)| count).sum()
    }

    /// Begins the shutdown.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Waits until it is over.
    pub fn join(mut self) {
        self.stop();
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
