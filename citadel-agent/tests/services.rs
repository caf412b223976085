//! Units followed over a real bus: a private dbus-daemon, and on it a systemd that the test drives. The real one is met in the
//! VM.
#![expect(missing_docs, reason = "zbus makes public methods of the signals of a private type")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use citadel_agent::metrics::format::Format;
use citadel_agent::sources::services::Services;
use citadel_agent::sources::{self, Health, Origin};
use support::origin::{Nothing, text};
use support::text::{Parsed, parse};
use zbus::object_server::SignalEmitter;
use zbus::zvariant::{ObjectPath, OwnedObjectPath};
use zbus::{Connection, connection, interface};

/// A bus of the test's own.
struct Bus {
    daemon: Child,
    address: String,
}

impl Bus {
    fn start() -> Self {
        let mut daemon = Command::new("dbus-daemon")
            .args(["--session", "--nofork", "--nopidfile", "--print-address"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("dbus-daemon is needed: apt-get install dbus (cargo xtask test does it)");
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned() }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        _ = self.daemon.kill();
        _ = self.daemon.wait();
    }
}

/// What the stand-in says of a unit.
#[derive(Clone)]
struct Facts {
    active: &'static str,
    sub: &'static str,
    restarts: u32,
    /// `ExecMainCode` and `ExecMainStatus`.
    exit: (i32, i32),
    result: &'static str,
}

const RUNNING: Facts = Facts { active: "active", sub: "running", restarts: 0, exit: (0, 0), result: "success" };

type Shared = Arc<Mutex<Facts>>;

/// `org.freedesktop.systemd1.Unit` of one unit.
struct UnitObject(Shared);

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl UnitObject {
    #[zbus(property)]
    fn active_state(&self) -> String {
        self.0.lock().unwrap().active.to_owned()
    }
    #[zbus(property)]
    fn sub_state(&self) -> String {
        self.0.lock().unwrap().sub.to_owned()
    }
    #[zbus(property)]
    fn active_enter_timestamp(&self) -> u64 {
        1_600_000_000_500_000
    }
}

/// `org.freedesktop.systemd1.Service` of one unit.
struct ServiceObject(Shared);

#[interface(name = "org.freedesktop.systemd1.Service")]
impl ServiceObject {
    #[zbus(property, name = "Type")]
    fn kind(&self) -> String {
        "exec".to_owned()
    }
    #[zbus(property, name = "NRestarts")]
    fn n_restarts(&self) -> u32 {
        self.0.lock().unwrap().restarts
    }
    #[zbus(property)]
    fn result(&self) -> String {
        self.0.lock().unwrap().result.to_owned()
    }
    #[zbus(property)]
    fn exec_main_code(&self) -> i32 {
        self.0.lock().unwrap().exit.0
    }
    #[zbus(property)]
    fn exec_main_status(&self) -> i32 {
        self.0.lock().unwrap().exit.1
    }
}

type Listed = (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

/// `org.freedesktop.systemd1.Manager`. It matches no patterns itself: the test asks for exactly what it has.
#[derive(Clone, Default)]
struct Manager {
    loaded: Arc<Mutex<BTreeMap<String, OwnedObjectPath>>>,
    subscribers: Arc<Mutex<usize>>,
}

#[interface(name = "org.freedesktop.systemd1.Manager")]
#[expect(clippy::needless_pass_by_value, reason = "zbus hands arguments over")]
impl Manager {
    fn subscribe(&self) {
        *self.subscribers.lock().unwrap() += 1;
    }
    fn list_unit_files_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<(String, String)> {
        assert!(states.is_empty() && !patterns.is_empty());
        ["citadel-off.service", "citadel-@.service", "citadel-phi3.service"]
            .map(|name| (format!("/etc/systemd/system/{name}"), "enabled".to_owned()))
            .into()
    }
    fn list_units_by_patterns(&self, states: Vec<String>, patterns: Vec<String>) -> Vec<Listed> {
        assert!(states.is_empty() && !patterns.is_empty());
        let none = || OwnedObjectPath::from(ObjectPath::try_from("/").unwrap());
        let text = str::to_owned;
        let loaded = self.loaded.lock().unwrap();
        let listed = |(name, path): (&String, &OwnedObjectPath)| {
            (name.clone(), text(""), text("loaded"), text("?"), text("?"), text(""), path.clone(), 0, text(""), none())
        };
        loaded.iter().map(listed).collect()
    }
    #[zbus(signal)]
    async fn unit_new(emitter: &SignalEmitter<'_>, id: &str, unit: ObjectPath<'_>) -> zbus::Result<()>;
    #[zbus(signal)]
    async fn unit_removed(emitter: &SignalEmitter<'_>, id: &str, unit: ObjectPath<'_>) -> zbus::Result<()>;
}

/// A systemd that does what the test says.
struct Systemd {
    connection: Connection,
    manager: Manager,
    units: BTreeMap<&'static str, Shared>,
}

const MANAGER_PATH: &str = "/org/freedesktop/systemd1";

impl Systemd {
    async fn start(bus: &Bus) -> Self {
        let manager = Manager::default();
        let connection = connection::Builder::address(bus.address.as_str())
            .unwrap()
            .serve_at(MANAGER_PATH, manager.clone())
            .unwrap()
            .name("org.freedesktop.systemd1")
            .unwrap()
            .build()
            .await
            .unwrap();
        Self { connection, manager, units: BTreeMap::new() }
    }

    fn path(name: &str) -> String {
        format!("{MANAGER_PATH}/unit/{}", name.replace(['-', '.', '@'], "_"))
    }

    async fn load(&mut self, name: &'static str, facts: Facts) {
        let (shared, path) = (Arc::new(Mutex::new(facts)), Self::path(name));
        let server = self.connection.object_server();
        server.at(path.as_str(), UnitObject(Arc::clone(&shared))).await.unwrap();
        server.at(path.as_str(), ServiceObject(Arc::clone(&shared))).await.unwrap();
        self.units.insert(name, shared);
        let object = ObjectPath::try_from(path).unwrap();
        self.manager.loaded.lock().unwrap().insert(name.to_owned(), object.clone().into());
        let emitter = SignalEmitter::new(&self.connection, MANAGER_PATH).unwrap();
        Manager::unit_new(&emitter, name, object).await.unwrap();
    }

    async fn unload(&mut self, name: &'static str) {
        let path = Self::path(name);
        let server = self.connection.object_server();
        server.remove::<UnitObject, _>(path.as_str()).await.unwrap();
        server.remove::<ServiceObject, _>(path.as_str()).await.unwrap();
        self.units.remove(name);
        self.manager.loaded.lock().unwrap().remove(name);
        let emitter = SignalEmitter::new(&self.connection, MANAGER_PATH).unwrap();
        Manager::unit_removed(&emitter, name, ObjectPath::try_from(path).unwrap()).await.unwrap();
    }

    /// Changes a unit, and says so as systemd does.
    async fn change(&self, name: &str, change: impl FnOnce(&mut Facts)) {
        change(&mut self.units[name].lock().unwrap());
        let unit = self.connection.object_server().interface::<_, UnitObject>(Self::path(name)).await.unwrap();
        unit.get().await.active_state_changed(unit.signal_emitter()).await.unwrap();
    }
}

/// The page of the services.
fn page(services: &Services) -> Parsed {
    let mut nothing = Nothing::default();
    let mut origin = Origin { services: Some(services), ..nothing.origin() };
    let page = sources::collect(
        Some(citadel_agent::metrics::catalogue::Section::Services),
        &mut origin,
        &mut Health::default(),
    );
    parse(&text(page, Format::Text))
}

fn success(page: &Parsed) -> Option<f64> {
    page.value("citadel_source_success", &[("source", "systemd")])
}

/// The one state that a unit is in.
fn state(page: &Parsed, name: &str) -> Option<String> {
    let own = page.samples.iter().filter(|((family, labels), value)| {
        family == "node_systemd_unit_state" && labels["name"] == name && **value == 1.0
    });
    let states: Vec<_> = own.map(|((_, labels), _)| labels["state"].clone()).collect();
    assert!(states.len() <= 1, "{name} is in several states: {states:?}");
    states.into_iter().next()
}

/// Waits until the page is as wanted; how long that took.
async fn until(services: &Services, what: &str, wanted: impl Fn(&Parsed) -> bool) -> Duration {
    let begin = Instant::now();
    loop {
        let page = page(services);
        if wanted(&page) {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}: {:#?}", page.samples);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until it is known whether there is a systemd. Before that the page says nothing, whatever will come.
async fn until_answered(services: &Services) {
    until(services, "an answer, even if it is that there is no systemd", |_| services.has_answer()).await;
}

fn follow(bus: &Bus) -> Services {
    Services::start(vec!["citadel-*.service".to_owned()], Some(bus.address.clone()))
}

#[tokio::test]
async fn states_are_followed_from_start_to_crash_to_removal() {
    let bus = Bus::start();
    let mut systemd = Systemd::start(&bus).await;
    systemd.load("citadel-phi3.service", RUNNING).await;
    let services = follow(&bus);
    until(&services, "the first list", |page| state(page, "citadel-phi3.service").as_deref() == Some("active")).await;
    let first = page(&services);
    assert_eq!(success(&first), Some(1.0));
    let unit = ("name", "citadel-phi3.service");
    assert_eq!(first.value("citadel_unit_sub_state", &[unit, ("state", "running")]), Some(1.0));
    assert_eq!(first.value("node_systemd_unit_start_time_seconds", &[unit]), Some(1_600_000_000.5));
    let inactive = [unit, ("state", "inactive"), ("type", "exec")];
    assert_eq!(first.value("node_systemd_unit_state", &inactive), Some(0.0));
    // Installed, but not loaded: it does not run. A template is no unit.
    assert_eq!(state(&first, "citadel-off.service").as_deref(), Some("inactive"));
    assert_eq!(state(&first, "citadel-@.service"), None);

    systemd
        .change("citadel-phi3.service", |facts| {
            *facts = Facts { active: "activating", sub: "auto-restart", restarts: 1, exit: (2, 9), result: "signal" };
        })
        .await;
    let took = until(&services, "a crash", |page| {
        state(page, "citadel-phi3.service").as_deref() == Some("activating")
            && page.value("node_systemd_service_restart_total", &[unit]) == Some(1.0)
            && page.value("citadel_unit_last_exit_status", &[unit, ("how", "killed")]) == Some(9.0)
            && page.value("citadel_unit_last_result", &[unit, ("result", "signal")]) == Some(1.0)
    })
    .await;
    println!("the crash was seen after {took:?}");

    // A unit that starts later, one that nobody asked for, and one that goes.
    systemd.load("citadel-yi34b.service", RUNNING).await;
    systemd.load("session-7.scope", RUNNING).await;
    until(&services, "a new unit", |page| state(page, "citadel-yi34b.service").as_deref() == Some("active")).await;
    systemd.unload("citadel-yi34b.service").await;
    until(&services, "a removed unit", |page| state(page, "citadel-yi34b.service").is_none()).await;
    systemd.unload("citadel-phi3.service").await;
    // Its file is still there.
    until(&services, "a stopped unit", |page| state(page, "citadel-phi3.service").as_deref() == Some("inactive")).await;
}

#[tokio::test]
async fn a_bus_without_systemd_has_nothing_and_one_that_comes_back_is_followed_again() {
    let bus = Bus::start();
    let services = follow(&bus);
    until_answered(&services).await;
    assert_eq!(success(&page(&services)), None);

    let mut systemd = Systemd::start(&bus).await;
    systemd.load("citadel-phi3.service", RUNNING).await;
    until(&services, "systemd appears", |page| state(page, "citadel-phi3.service").as_deref() == Some("active")).await;

    // Gone is not absent: what was followed is missing now, and that is a failure.
    systemd.connection.close().await.unwrap();
    until(&services, "systemd goes", |page| {
        success(page) == Some(0.0) && state(page, "citadel-phi3.service").is_none()
    })
    .await;

    let mut systemd = Systemd::start(&bus).await;
    systemd.load("citadel-phi3.service", Facts { active: "failed", sub: "failed", ..RUNNING }).await;
    until(&services, "systemd comes back", |page| state(page, "citadel-phi3.service").as_deref() == Some("failed"))
        .await;
    assert_eq!(*systemd.manager.subscribers.lock().unwrap(), 1);
}

/// Any user may send signals to any connection of a bus, with any content.
#[tokio::test]
async fn a_stranger_on_the_bus_is_not_heard() {
    let bus = Bus::start();
    let mut systemd = Systemd::start(&bus).await;
    systemd.load("citadel-phi3.service", RUNNING).await;
    let services = follow(&bus);
    let phi3 =
        |wanted: &'static str| move |page: &Parsed| state(page, "citadel-phi3.service").as_deref() == Some(wanted);
    until(&services, "the first list", phi3("active")).await;

    let stranger = connection::Builder::address(bus.address.as_str()).unwrap().build().await.unwrap();
    let names = zbus::fdo::DBusProxy::new(&stranger).await.unwrap().list_names().await.unwrap();
    let unique: Vec<String> = names.iter().map(ToString::to_string).filter(|name| name.starts_with(':')).collect();
    assert!(unique.len() >= 3, "the agent, systemd and the stranger: {unique:?}");
    let owner = ("org.freedesktop.systemd1", ":1.0", "");
    for name in unique.iter().map(String::as_str) {
        let to = Some(name);
        let bus = "org.freedesktop.DBus";
        stranger.emit_signal(to, "/org/freedesktop/DBus", bus, "NameOwnerChanged", &owner).await.unwrap();
        for number in 0..2000 {
            let path = format!("/unit/{number}");
            let properties = "org.freedesktop.DBus.Properties";
            stranger.emit_signal(to, path.as_str(), properties, "PropertiesChanged", &"x").await.unwrap();
        }
        let long = vec![0u8; 20 << 20];
        stranger.emit_signal(to, "/a", "org.example.Long", "Signal", &long).await.unwrap();
    }
    systemd.change("citadel-phi3.service", |facts| facts.active = "failed").await;
    until(&services, "systemd is heard among them", phi3("failed")).await;
    assert_eq!(*systemd.manager.subscribers.lock().unwrap(), 1, "nobody but the bus can say that systemd has gone");
}

#[tokio::test]
async fn units_beyond_those_that_are_followed_are_named_as_missing() {
    let bus = Bus::start();
    let systemd = Systemd::start(&bus).await;
    let none = OwnedObjectPath::from(ObjectPath::try_from("/none").unwrap());
    for number in 0..300 {
        systemd.manager.loaded.lock().unwrap().insert(format!("citadel-{number:03}.service"), none.clone());
    }
    systemd.manager.loaded.lock().unwrap().insert("zz-model.service".to_owned(), none.clone());
    let services = follow(&bus);
    services.set_models(["zz-model.service"].into_iter());
    until(&services, "a model's unit is among the first", |page| state(page, "zz-model.service").is_some()).await;
    let page = page(&services);
    let names: std::collections::BTreeSet<&String> =
        page.samples.keys().filter_map(|(_, labels)| labels.get("name")).collect();
    assert_eq!((names.len(), success(&page)), (256, Some(0.0)));
}

#[tokio::test]
async fn other_patterns_and_the_models_units_are_taken_up() {
    let bus = Bus::start();
    let mut systemd = Systemd::start(&bus).await;
    systemd.load("vllm.service", RUNNING).await;
    let services = Services::start(vec![], Some(bus.address.clone()));
    until(&services, "nothing is wanted", |page| success(page) == Some(1.0)).await;
    assert_eq!(state(&page(&services), "vllm.service"), None);
    services.set_models(["vllm.service"].into_iter());
    until(&services, "a model's unit", |page| state(page, "vllm.service").as_deref() == Some("active")).await;
    systemd.change("vllm.service", |facts| facts.active = "failed").await;
    until(&services, "its failure", |page| state(page, "vllm.service").as_deref() == Some("failed")).await;
}

#[tokio::test]
async fn without_a_bus_there_is_nothing() {
    let services = Services::start(vec!["*".to_owned()], Some("unix:path=/nonexistent/bus".to_owned()));
    until_answered(&services).await;
    assert_eq!(success(&page(&services)), None);
}
