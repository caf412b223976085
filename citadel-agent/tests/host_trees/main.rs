//! Whole hosts as fixture trees: each has a golden page, and no damage to any of its files makes a source panic or lie.

mod collection;

#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use citadel_agent::config::Config;
use citadel_agent::host::Roots;
use citadel_agent::logging;
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::{Page, Value};
use citadel_agent::metrics::format::Format;
use citadel_agent::sources::{self, Health, Origin, background};
use proptest::prelude::*;
use support::assert_golden;
use support::origin::{self, Nothing};
use support::text::{Parsed, parse};

const HOSTS: [&str; 3] = ["gpu-host", "vm", "container"];

/// Families that come from the running kernel rather than from files, and what differs from run to run.
const RUNNING: [&str; 8] = [
    "node_uname_info",
    "node_time_seconds",
    "node_time_zone",
    "node_timex_",
    "node_filesystem_",
    "citadel_source_duration_seconds",
    "citadel_agent_",
    "process_",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// A host: a fixture tree, unpacked.
struct Host {
    folder: tempfile::TempDir,
    /// The tree's files, without links.
    files: Vec<PathBuf>,
    context: background::Context,
    runtime: tokio::runtime::Runtime,
}

impl Host {
    fn unpack(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let text = fs::read_to_string(fixture("hosts").join(name).with_extension("tree")).unwrap();
        let mut files = Vec::new();
        for entry in text.split("==> ").skip(1) {
            let (head, content) = entry.split_once('\n').unwrap();
            let (path, target) = head.split_once(" -> ").map_or((head, None), |(path, target)| (path, Some(target)));
            let file = root.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            match target {
                Some(target) => symlink(target, &file).unwrap(),
                None if path.ends_with('/') => fs::create_dir_all(&file).unwrap(),
                None => {
                    fs::write(&file, content).unwrap();
                    files.push(file);
                }
            }
        }
        let mut config = Config::default();
        config.storage.smartctl = smartctl(folder.path(), name == "gpu-host");
        let context = background::Context::new(Arc::new(config), Roots::below(&root));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { folder, files, context, runtime }
    }

    /// What a scrape reads, all of it: also what a scrape would not wait for.
    fn page(&self) -> Page {
        let readers = background::Readers::default();
        self.runtime.block_on(readers.refresh(None, &self.context, Duration::from_secs(60)));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !readers.is_idle() {
            assert!(Instant::now() < deadline, "a source is never done");
            std::thread::sleep(Duration::from_millis(2));
        }
        self.collect(&readers)
    }

    /// What the scrape reads itself.
    fn quick_page(&self) -> Page {
        self.collect(&background::Readers::default())
    }

    fn collect(&self, readers: &background::Readers) -> Page {
        self.collect_with(readers, &mut Health::default())
    }

    fn collect_with(&self, readers: &background::Readers, health: &mut Health) -> Page {
        let mut nothing = Nothing::default();
        let mut origin =
            Origin { config: &self.context.config, roots: &self.context.roots, readers, ..nothing.origin() };
        sources::collect(None, &mut origin, health)
    }
}

/// A program that answers as smartctl does on the GPU host, or finds no disks.
fn smartctl(folder: &Path, disks: bool) -> PathBuf {
    let answers = fixture("smartctl");
    let answers = answers.display();
    let script = if disks {
        format!(
            "#!/bin/sh\nfor last; do :; done\ncase \"$1\" in --scan) exec cat {answers}/scan.json;; esac\n\
             case \"$*\" in *--nocheck=standby,5*) ;; *) exit 1;; esac\nexec cat {answers}/\"${{last##*/}}\".json\n"
        )
    } else {
        "#!/bin/sh\necho '{}'\n".to_owned()
    };
    let path = folder.join("smartctl");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn text(mut page: Page) -> String {
    page.families.retain(|family| !RUNNING.iter().any(|prefix| family.desc.name.starts_with(prefix)));
    origin::text(page, Format::Text)
}

#[test]
fn each_host_has_its_golden_page() {
    for name in ["vm", "container"] {
        assert_golden(&format!("hosts/{name}.prom"), &text(Host::unpack(name).page()));
    }
}

/// The big host has 128 CPUs and a dozen disks: its page is 200 KB of which nobody would read a difference. Of each family: how
/// many series there are, what they add up to, and the first one.
#[test]
fn the_big_host_has_its_golden_families() {
    let page = text(Host::unpack("gpu-host").page());
    let mut families: BTreeMap<&str, (usize, f64, &str)> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let family = families.entry(series.split('{').next().unwrap()).or_insert((0, 0.0, line));
        family.0 += 1;
        family.1 += value.parse::<f64>().unwrap();
    }
    let lines = families.iter().map(|(name, (series, sum, first))| {
        let first = first.strip_prefix(name).unwrap().trim_start();
        format!("{name}: {series} series, sum {sum:?}, first {first}\n")
    });
    assert_golden("hosts/gpu-host.families", &lines.collect::<String>());
}

#[test]
fn promtool_finds_nothing_but_what_it_finds_in_node_exporters_names() {
    for name in HOSTS {
        let page = Host::unpack(name).page();
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is needed: apt-get install prometheus (cargo xtask test does it)");
        promtool.stdin.take().unwrap().write_all(text(page).as_bytes()).unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
        // 3: the page is well-formed, and a name is not to promtool's taste. node_exporter's own are not either.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{name}: {}\n{said}", output.status);
        let ours: Vec<_> = said.lines().filter(|line| !line.starts_with("node_")).collect();
        assert!(ours.is_empty(), "{name}: {ours:#?}");
        let taste = ["snake_case", "use base unit", "abbreviated unit", "should not contain \"_total\"", "non-counter"];
        let others: Vec<_> = said.lines().filter(|line| !taste.iter().any(|what| line.contains(what))).collect();
        assert!(others.is_empty(), "{name}: {others:#?}");
    }
}

#[test]
fn a_disk_that_sleeps_is_not_woken_and_keeps_its_values() {
    let host = Host::unpack("gpu-host");
    let value = |page: &Parsed, name: &str| page.value(name, &[("device", "sda")]);
    let awake = parse(&text(host.page()));
    assert_eq!(value(&awake, "citadel_smart_asleep"), Some(0.0));
    // The real smartctl says of /dev/null that it sleeps: an ATA disk that answers nothing.
    let scan = r#"{"devices":[{"name":"/dev/sda","type":"sat"}]}"#;
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --scan) echo '{scan}';; *) exec smartctl \"$1\" \"$2\" \"$3\" \"$4\" \"$5\" -- /dev/null;; esac\n"
    );
    fs::write(host.folder.path().join("smartctl"), script).unwrap();
    let asleep = parse(&text(host.page()));
    assert_eq!(value(&asleep, "citadel_smart_asleep"), Some(1.0), "smartctl is needed: apt-get install smartmontools");
    for name in ["citadel_smart_temperature_celsius", "citadel_smart_reallocated_sectors_total"] {
        assert_eq!(value(&asleep, name), value(&awake, name), "{name}");
        assert!(value(&awake, name).is_some(), "{name}");
    }
}

#[test]
fn a_source_that_hangs_gives_way_and_comes_back() {
    let host = Host::unpack("vm");
    let fifo = host.folder.path().join("root/sys/class/net/eth0/operstate");
    fs::remove_file(&fifo).unwrap();
    // Opening it waits for somebody who writes.
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let readers = background::Readers::default();
    let success = |within: Duration| {
        host.runtime.block_on(readers.refresh(None, &host.context, within));
        let page = parse(&text(host.collect(&readers)));
        let success = |source| page.value("citadel_source_success", &[("source", source)]);
        let speed = page.value("node_network_speed_bytes", &[("device", "eth0")]);
        (success("netclass"), speed.is_some(), success("cpu"), success("mdadm"))
    };
    // Said before the scraper gives up, with everything else on the page; and again: it is not read a second time meanwhile.
    for _ in 0..2 {
        let begin = Instant::now();
        assert_eq!(success(Duration::from_millis(300)), (Some(0.0), false, Some(1.0), Some(1.0)));
        assert!(begin.elapsed() < Duration::from_secs(20), "the page waited for it");
    }
    fs::write(&fifo, "up\n").unwrap();
    fs::remove_file(&fifo).unwrap();
    fs::write(&fifo, "up\n").unwrap();
    assert_eq!(success(Duration::from_secs(60)), (Some(1.0), true, Some(1.0), Some(1.0)));
}

thread_local! {
    /// What this thread has logged at WARN.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// What is logged at WARN while `work` runs, on its thread.
    fn of(work: impl FnOnce()) -> Vec<String> {
        // One log for the process: whether a line is wanted is remembered for all threads.
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(|| {
            let (subscriber, _) =
                logging::subscriber(tracing::Level::WARN, None, logging::Format::Json, logging::Sink::Other, || Log)
                    .unwrap();
            tracing::subscriber::set_global_default(subscriber).unwrap();
        });
        LOG.take();
        work();
        let text = String::from_utf8(LOG.take()).unwrap();
        // The fixtures have no process of the agent's own.
        text.lines().filter(|line| !line.contains(r#""source":"process""#)).map(str::to_owned).collect()
    }
}

#[test]
fn what_cannot_be_read_is_skipped_counted_and_logged_once_and_the_rest_stays() {
    let host = Host::unpack("gpu-host");
    let root = host.folder.path().join("root");
    // None of these files is there, and reading what is for 128 CPUs takes a while.
    fs::remove_dir_all(root.join("sys")).unwrap();
    let whole = parse(&text(host.quick_page()));
    let edit = |name: &str, edit: fn(String) -> String| {
        let file = root.join(name);
        fs::write(&file, edit(fs::read_to_string(&file).unwrap())).unwrap();
    };
    edit("proc/meminfo", |text| text.replacen('\n', "\n\n", 1));
    edit("run/udev/data/b8:0", |text| text.trim_end().to_owned());
    edit("proc/net/snmp", |text| format!("odd\n{text}"));
    fs::remove_file(root.join("proc/pressure/io")).unwrap();
    fs::create_dir(root.join("proc/pressure/io")).unwrap();
    let mut health = Health::default();
    let mut page = || parse(&text(host.collect_with(&background::Readers::default(), &mut health)));
    let mut pages = Vec::new();
    let log = Log::of(|| pages.extend([page(), page(), page()]));

    let skipped = |page: &Parsed, source| page.value("citadel_source_skipped_total", &[("source", source)]);
    for (times, page) in [1.0, 2.0, 3.0].into_iter().zip(&pages) {
        for source in ["meminfo", "diskstats", "netstat", "pressure"] {
            assert_eq!(skipped(page, source), Some(times), "{source}");
            assert_eq!(page.value("citadel_source_success", &[("source", source)]), Some(1.0), "{source}");
        }
        assert_eq!(skipped(page, "vmstat"), Some(0.0));
    }
    let lost: Vec<_> =
        whole.samples.iter().filter(|(series, value)| pages[2].samples.get(*series) != Some(value)).collect();
    let lost: BTreeSet<&str> = lost.iter().map(|((name, _), _)| name.as_str()).collect();
    // The disk's last property is cut off, and with it its label.
    let expected = [
        "citadel_source_skipped_total",
        "node_disk_info",
        "node_pressure_io_stalled_seconds_total",
        "node_pressure_io_waiting_seconds_total",
    ];
    assert_eq!(lost, BTreeSet::from(expected));
    assert_eq!(log.len(), 4, "{log:#?}");
    for what in [r#""what":"meminfo","example":"""#, r#""source":"diskstats","what":"udev""#, r#""example":"odd""#] {
        assert!(log.iter().any(|line| line.contains(what)), "{what}: {log:#?}");
    }
}

#[test]
fn a_source_of_which_nothing_can_be_read_has_failed() {
    let host = Host::unpack("vm");
    let file = host.folder.path().join("root/proc/loadavg");
    fs::write(&file, "odd\n").unwrap();
    let success = |page: &Parsed| page.value("citadel_source_success", &[("source", "loadavg")]);
    let mut page = Page::default();
    let log = Log::of(|| page = host.quick_page());
    assert_eq!(success(&parse(&text(page))), Some(0.0));
    assert!(log.iter().any(|line| line.contains("loadavg: odd")), "{log:#?}");
    fs::remove_file(&file).unwrap();
    assert_eq!(success(&parse(&text(host.quick_page()))), None);
}

#[test]
fn nothing_is_skipped_or_logged_on_a_healthy_host() {
    for name in HOSTS {
        let host = Host::unpack(name);
        let mut page = Page::default();
        let mut log = Log::of(|| page = host.page());
        // Two of the GPU host's disks are behind a controller that does not let smartctl through.
        log.retain(|line| !line.contains("INQUIRY failed"));
        assert!(log.is_empty(), "{name}: {log:#?}");
        for ((family, labels), value) in &parse(&text(page)).samples {
            assert!(family != "citadel_source_skipped_total" || *value == 0.0, "{name}: {labels:?}");
        }
    }
}

/// Panics of any thread since the start.
fn count_panics() -> &'static AtomicUsize {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let say = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::Relaxed);
            say(info);
        }));
    });
    &PANICS
}

/// What can happen to a file.
#[derive(Clone, Debug)]
enum Damage {
    /// It ends early.
    Cut(prop::sample::Index),
    /// Some bytes are others.
    Garbled(Vec<(prop::sample::Index, u8)>),
    /// It holds something else altogether.
    Garbage(Vec<u8>),
    /// A number is larger than any type.
    Huge,
    /// A directory is in its place.
    Directory,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => any::<prop::sample::Index>().prop_map(Damage::Cut),
        3 => prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8).prop_map(Damage::Garbled),
        2 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Damage::Garbage),
        1 => Just(Damage::Huge),
        1 => Just(Damage::Directory),
    ]
}

fn apply(damage: &Damage, file: &Path) {
    let mut content = fs::read(file).unwrap();
    match damage {
        Damage::Cut(at) => content.truncate(at.index(content.len() + 1)),
        Damage::Garbled(bytes) if !content.is_empty() => {
            for (at, byte) in bytes {
                let at = at.index(content.len());
                content[at] = *byte;
            }
        }
        Damage::Garbled(_) => {}
        Damage::Garbage(bytes) => content = bytes.clone(),
        Damage::Huge => {
            let text = String::from_utf8_lossy(&content).replace(|c: char| c.is_ascii_digit(), "99999999999");
            content = text.into_bytes();
        }
        Damage::Directory => {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
            return;
        }
    }
    fs::write(file, content).unwrap();
}

fn restore(file: &Path, content: &[u8]) {
    if file.is_dir() {
        fs::remove_dir(file).unwrap();
    }
    fs::write(file, content).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_a_source_panic_or_spoils_the_page(
        host in prop::sample::select(&HOSTS[..]),
        damages in prop::collection::vec((any::<prop::sample::Index>(), damage()), 64),
    ) {
        let panics = count_panics().load(Ordering::Relaxed);
        let host = Host::unpack(host);
        for (file, damage) in &damages {
            let file = file.get(&host.files);
            let content = fs::read(file).unwrap();
            apply(damage, file);
            let page = host.page();
            prop_assert_eq!(count_panics().load(Ordering::Relaxed), panics, "{:?} of {}", damage, file.display());
            prop_assert!(encode(page.clone(), Format::OpenMetrics).is_ok(), "{:?} of {}", damage, file.display());
            for sample in page.families.iter().flat_map(|family| &family.samples) {
                if let Value::Float(value) = sample.value {
                    prop_assert!(value.is_finite(), "{:?} of {}: {:?}", damage, file.display(), sample);
                }
            }
            restore(file, &content);
        }
    }
}

/// Files of lines that each stand for themselves: where one is cut off, the lines before the cut are still true.
const OF_LINES: [&str; 12] = [
    "proc/stat",
    "proc/meminfo",
    "proc/vmstat",
    "proc/loadavg",
    "proc/diskstats",
    "proc/schedstat",
    "proc/net/dev",
    "proc/net/snmp",
    "proc/net/netstat",
    "proc/net/snmp6",
    "proc/net/sockstat",
    "proc/pressure/io",
];

#[test]
fn a_file_that_is_cut_off_gives_fewer_numbers_never_other_ones() {
    let host = Host::unpack("gpu-host");
    // None of these files is there, and reading what is for 128 CPUs takes a while.
    fs::remove_dir_all(host.folder.path().join("root/sys")).unwrap();
    let whole = parse(&text(host.quick_page()));
    for name in OF_LINES {
        let file = host.folder.path().join("root").join(name);
        let content = fs::read(&file).unwrap();
        let lengths: BTreeMap<usize, ()> = (0..8).map(|i| (content.len() * i / 8, ())).collect();
        for length in
            lengths.into_keys().flat_map(|length| [length, length + 1]).filter(|length| *length < content.len())
        {
            fs::write(&file, &content[..length]).unwrap();
            let cut = parse(&text(host.quick_page()));
            let own = ["citadel_source_success", "citadel_source_skipped_total"];
            for (series, value) in cut.samples.iter().filter(|((name, _), _)| !own.contains(&name.as_str())) {
                assert_eq!(whole.samples.get(series), Some(value), "{name} cut to {length} bytes: {series:?}");
            }
        }
        fs::write(&file, &content).unwrap();
    }
}
