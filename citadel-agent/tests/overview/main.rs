//! The page at `/` in a real browser: what it shows, live, on a phone, in the dark.

mod showcase;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use citadel_agent::http::{Content, Limits};
use citadel_agent::metrics::catalogue::agent::{PROBE_STATUS, SOURCE_SUCCESS};
use citadel_agent::metrics::catalogue::models::{
    GPU_ENERGY, INTER_TOKEN_LATENCY, MODEL_UP, REQUESTS, REQUESTS_IN_FLIGHT, REQUESTS_WITHOUT_USAGE,
    TIME_TO_FIRST_TOKEN, TOKENS,
};
use citadel_agent::metrics::catalogue::services::{UNIT_ACTIVE_STATE, UNIT_RESTARTS, UNIT_SUB_STATE};
use citadel_agent::metrics::catalogue::storage::{
    FS_AVAIL, FS_DEVICE_ERROR, FS_SIZE, MD_DISKS, MD_DISKS_REQUIRED, MD_STATE, SMART_HEALTHY,
};
use citadel_agent::metrics::catalogue::{self, Desc, engine};
use citadel_agent::metrics::family::{Family, Page, Sample, Value};
use citadel_agent::trace::ModelRequests;
use citadel_agent_common::hist::Histogram;
use support::client::get;
use support::{Fake, NASTY, Server};

/// A busy host: each time that it is asked, 50 more requests have ended, 5 of them badly. An hour of its past is known, an alert
/// fires, and a model that was there is gone.
fn host() -> Arc<Fake> {
    let host = asked();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for minute in 0..=60_u64 {
        let mut page = Page::default();
        for (model, port) in [("mixtral", "11400"), ("coder-2", "11433")] {
            page.add(&REQUESTS, [model, port, "chat_completions", "200"], Value::Integer(600 * minute));
            let seen = histogram(&[(80, 90 * minute), (1500, 5 * minute)]);
            page.add(&TIME_TO_FIRST_TOKEN, [model, port, "chat_completions"], seen);
            let seen = histogram(&[(20, 100 * minute), (45, 10 * minute)]);
            page.add(&INTER_TOKEN_LATENCY, [model, port, "chat_completions"], seen);
        }
        host.history.take(&page, now - i64::try_from(60 - minute).unwrap() * 60_000);
    }
    *host.alerts.lock().unwrap() = serde_json::json!([{
        "state": "firing",
        "since_ms": now - 300_000,
        "labels": {"alertname": "ModelTimeToFirstTokenHigh", "severity": "warning", "model": "phi<3>", "port": "11403"},
        "annotations": {"summary": "phi<3> is slow to its first token", "description": "<b>99 % of the last hour</b>"},
    }]);
    // Of the one that is down, and of one that is well.
    *host.requests.lock().unwrap() = vec![requests(11403, 7, 184.25, now), requests(11400, 2, 184.25, now)];
    host
}

/// So many requests of a model in flight, the oldest of which has waited for `oldest` seconds, and one that was slow.
fn requests(port: u16, in_flight: usize, oldest: f64, now_ms: i64) -> ModelRequests {
    let running = (0..in_flight).map(|n| {
        serde_json::json!({
            "endpoint": "chat_completions",
            "phase": if n == 0 { "waiting" } else { "streaming" },
            "elapsed": if n == 0 { oldest } else { (oldest - 0.1).min(8.0) / n as f64 },
            "waiting": if n == 0 { oldest } else { 0.021 },
            "events": (n > 0).then_some(30 - n),
        })
    });
    let slow = serde_json::json!({
        "ended_ms": now_ms - 400_000, "model": "", "port": port, "endpoint": "completions", "code": 200, "duration": oldest * 1.5,
        "time_to_first_byte": 1.25,
    });
    let all = serde_json::json!({
        "model": "", "port": port, "in_flight": in_flight, "running": running.collect::<Vec<_>>(), "slowest": [slow],
    });
    serde_json::from_value(all).unwrap()
}

fn asked() -> Arc<Fake> {
    let asked = AtomicU64::new(0);
    Fake::new(move |_| {
        let rounds = asked.fetch_add(1, Ordering::SeqCst);
        let mut page = Page::default();
        for (model, port, up) in [("mixtral", "11400", 1), ("phi<3>", "11403", 0), (NASTY[3], "11404", 1)] {
            let labels = [model, port, "chat_completions"];
            page.add(&MODEL_UP, [model, port], Value::Integer(up));
            page.add(&REQUESTS_IN_FLIGHT, [model, port], Value::Integer(3));
            page.add(&REQUESTS, [model, port, "chat_completions", "200"], Value::Integer(1000 + 45 * rounds));
            page.add(&REQUESTS, [model, port, "chat_completions", "500"], Value::Integer(7 + 5 * rounds));
            // Long ago it took a minute; lately 100 ms, and 2 s for two in a hundred.
            page.add(
                &TIME_TO_FIRST_TOKEN,
                labels,
                histogram(&[(60_000, 1000), (100, 98 * rounds), (2000, 2 * rounds)]),
            );
            page.add(&INTER_TOKEN_LATENCY, labels, histogram(&[(20, 1000 * (rounds + 1))]));
            page.add(&GPU_ENERGY, [model, port, "GPU-a"], Value::Integer(9000 + 1000 * rounds));
        }
        // Of three models, one has an engine that counts its tokens, of one all responses state them, and of one not all do.
        page.add(&engine::TOKENS, ["mixtral", "11400", "vllm", "generated"], Value::Integer(5000 + 400 * rounds));
        page.add(&engine::TOKENS, ["mixtral", "11400", "vllm", "prompt"], Value::Integer(50_000 * rounds));
        for (model, port) in [("mixtral", "11400"), ("phi<3>", "11403"), (NASTY[3], "11404")] {
            page.add(&TOKENS, [model, port, "completion"], Value::Integer(200 * rounds));
        }
        page.add(&REQUESTS_WITHOUT_USAGE, [NASTY[3], "11404"], Value::Integer(rounds));
        for (name, state, sub) in
            [("citadel-mixtral.service", "active", "running"), ("citadel-phi3.service", "failed", "failed")]
        {
            page.add(&UNIT_ACTIVE_STATE, [name, state, "exec"], Value::Integer(1));
            page.add(&UNIT_SUB_STATE, [name, sub], Value::Integer(1));
            page.add(&UNIT_RESTARTS, [name], Value::Integer(2));
        }
        for (path, avail, error) in [
            ("/", 60u64 << 30, 0),
            ("/srv/a-rather-long-path-to/the-models/of-this-host", 1 << 30, 0),
            ("/mnt/nas", 0, 1),
        ] {
            let labels = ["/dev/md0", "ext4", path];
            page.add(&FS_SIZE, labels, Value::Integer(100 << 30));
            page.add(&FS_AVAIL, labels, Value::Integer(avail));
            page.add(&FS_DEVICE_ERROR, labels, Value::Integer(error));
        }
        page.add(&MD_DISKS_REQUIRED, ["md0"], Value::Integer(4));
        page.add(&MD_DISKS, ["md0", "active"], Value::Integer(3));
        page.add(&MD_STATE, ["md0", "recovering"], Value::Integer(1));
        page.add(&SMART_HEALTHY, ["nvme3"], Value::Integer(0));
        page.add(&PROBE_STATUS, ["sched", "sched_switch", "unsupported", "this kernel has no BTF"], Value::Integer(1));
        page.add(&SOURCE_SUCCESS, ["hwmon"], Value::Integer(0));
        for (name, value) in [
            ("citadel_gpu_utilization_ratio", 0.87),
            ("citadel_gpu_memory_used_bytes", 6e10),
            ("citadel_gpu_memory_total_bytes", 8.5e10),
            ("citadel_gpu_power_watts", 612.0),
        ] {
            // Which labels they have is the catalogue's matter.
            let Some(desc) = catalogue::all().find(|desc| desc.name == name) else { continue };
            page.families.push(gpu(desc, value));
        }
        Ok(page)
    })
}

fn gpu(desc: &'static Desc, value: f64) -> Family {
    let label = |name: &&str| match *name {
        "index" => "0".to_owned(),
        "name" => "NVIDIA H100 80GB HBM3".to_owned(),
        _ => "GPU-1".to_owned(),
    };
    Family {
        desc,
        samples: vec![Sample {
            labels: desc.labels.iter().map(|name| label(name).into()).collect(),
            value: Value::Float(value),
        }],
        began: None,
    }
}

fn histogram(milliseconds: &[(u64, u64)]) -> Value {
    let mut histogram = Histogram::EMPTY;
    for (duration, count) in milliseconds {
        (0..*count).for_each(|_| histogram.observe(duration * 1_000_000));
    }
    Value::Histogram(Box::new(histogram))
}

/// A page around the agent's, as wide as a phone, which after three polls says what the browser makes of it.
const PHONE: &str = r##"<!doctype html><body style="margin:0"><iframe id="phone" src="/" style="border:0;width:WIDTHpx;height:4600px"></iframe>
<pre id="report"></pre><script>
const drawn = (canvas) => !!canvas && canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some((value) => value > 0);
const phone = document.getElementById("phone");
phone.contentWindow.refused = [];
phone.addEventListener("load", () => { phone.contentWindow.refused = phone.contentWindow.refused || []; phone.contentDocument.addEventListener("securitypolicyviolation", (event) => phone.contentWindow.refused.push(event.violatedDirective + " " + event.sourceFile)); });
setTimeout(() => {
  const inner = document.getElementById("phone").contentDocument, main = inner.documentElement;
  const wide = [...inner.querySelectorAll("*")].filter((node) => node.getBoundingClientRect().right > main.clientWidth + 1);
  const lines = (node) => { const range = inner.createRange(); range.selectNodeContents(node); return new Set([...range.getClientRects()].map((rect) => Math.round(rect.top))).size; };
  document.getElementById("report").textContent = JSON.stringify({
    width: main.clientWidth, scrolls: main.scrollWidth, wide: wide.map((node) => node.textContent),
    broken: [...inner.querySelectorAll("dd")].filter((node) => node.textContent.length < 20 && lines(node) > 1).map((node) => node.textContent),
    back: getComputedStyle(inner.body).backgroundColor, text: inner.body.innerText, loads: performance.getEntriesByType("resource").length,
    plots: [...inner.querySelectorAll(".plot")].map((plot) => ({ says: plot.getAttribute("aria-label"), drawn: drawn(plot.querySelector("canvas")) })),
    refused: inner.defaultView.refused,
    lists: [...inner.querySelectorAll("details")].map((list) => list.open),
    others: inner.defaultView.performance.getEntriesByType("resource").map((entry) => entry.name).filter((name) => !name.startsWith(location.origin)),
  });
}, 16000)</script>"##;

/// Serves [`PHONE`] at `/phone`, and what the agent serves at all other paths.
fn phone(agent: SocketAddr, width: u32) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let (mut head, mut accept) = (String::new(), String::new());
                _ = reader.read_line(&mut head);
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    if line.to_lowercase().starts_with("accept:") {
                        accept = line.clone();
                    }
                    line.clear();
                }
                let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
                if path == "/phone" {
                    let page = PHONE.replace("WIDTH", &width.to_string());
                    _ = write!(
                        stream,
                        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
                        page.len()
                    );
                    return;
                }
                let mut upstream = TcpStream::connect(agent).unwrap();
                write!(upstream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{accept}\r\n")
                    .unwrap();
                let mut answer = Vec::new();
                upstream.read_to_end(&mut answer).unwrap();
                _ = stream.write_all(&answer);
            });
        }
    });
    address
}

/// Runs the browser; time passes for the page as quickly as it has nothing to wait for.
fn chromium(arguments: &[&str], url: &str) -> String {
    let profile = tempfile::tempdir().unwrap();
    let output = Command::new("chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .args([
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--virtual-time-budget=20000",
        ])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(arguments)
        .arg(url)
        .output()
        .expect("a browser is needed: apt-get install chromium (cargo xtask test does it)");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the browser makes of the page at this width.
fn report(width: u32, arguments: &[&str]) -> serde_json::Value {
    let server = Server::start(Content::Metrics, host(), Limits::default());
    report_of(server.addr, width, arguments)
}

fn report_of(agent: SocketAddr, width: u32, arguments: &[&str]) -> serde_json::Value {
    let phone = phone(agent, width);
    let dom = chromium(&[arguments, &["--dump-dom"]].concat(), &format!("http://{phone}/phone"));
    let report =
        dom.split("<pre id=\"report\">").nth(1).and_then(|rest| rest.split("</pre>").next()).unwrap_or_default();
    let plain = report.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").replace("&nbsp;", " ");
    serde_json::from_str(&plain).unwrap_or_else(|error| panic!("{error}: {dom}"))
}

#[test]
fn a_phone_shows_all_of_it_without_scrolling_sideways() {
    let report = report(390, &[]);
    assert_eq!(report["width"], 390);
    assert_eq!(report["scrolls"], 390, "{:#}", report["wide"]);
    assert_eq!(report["wide"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(report["broken"], serde_json::json!([]), "a number is on more than one line");
    assert_eq!(report["others"].as_array().unwrap().len(), 0, "it loads something from elsewhere");
    let text = report["text"].as_str().unwrap();
    assert_eq!(
        report["refused"].as_array().unwrap().len(),
        0,
        "the page's own policy refuses a part of it: {report:#}"
    );
    // Of mixtral three, of the model that is gone three.
    let plots = report["plots"].as_array().unwrap();
    assert_eq!(plots.len(), 6, "{report:#}");
    assert!(plots.iter().all(|plot| plot["drawn"] == true), "{plots:#?}");
    let first = plots.iter().find(|plot| plot["says"].as_str().unwrap().starts_with("time to first token")).unwrap();
    // 80 ms, within a bucket of 9 %.
    let says = first["says"].as_str().unwrap();
    let p50: f64 =
        says.split("p50 ").nth(1).and_then(|rest| rest.split([' ', '\u{a0}']).next()).unwrap().parse().unwrap();
    assert!((73.0..=88.0).contains(&p50), "{says}");
    for part in [
        "Alerts",
        "ModelTimeToFirstTokenHigh",
        "phi<3> is slow to its first token",
        "<b>99 % of the last hour</b>",
        "coder-2",
        "gone",
        "Host",
        "Models",
        "mixtral",
        "phi<3>",
        NASTY[3],
        "up",
        "down",
        "11403",
        "Services",
        "citadel-phi3.service",
        "failed",
        "Storage",
        "/srv/a-rather-long-path-to/the-models/of-this-host",
        "99 %",
        "not responding",
        "md0",
        "3 of 4",
        "failing",
        "Not measured",
        "sched/sched_switch",
        "this kernel has no BTF",
        "hwmon",
        "/metrics/models",
        "port 8001",
        "live",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// What is wrong is open: of a model that is well, the reader opens the list.
#[test]
fn requests_of_a_model_that_is_down_are_listed_the_oldest_first() {
    let report = report(390, &[]);
    let text = report["text"].as_str().unwrap().replace('\u{a0}', " ");
    let listed = text.split("Running: ").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(listed.starts_with("the oldest 5 of 7"), "{text}");
    let at = |what: &str| listed.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
    assert!(at("184.3 s") < at("8.00 s") && at("8.00 s") < at("4.00 s"), "{text}");
    for part in
        ["waiting", "streaming, 29 events", "21.0 ms", "Slowest of the last hour", "276.4 s", "1.25 s", "completions"]
    {
        assert!(listed.contains(part), "{part} in {text}");
    }
    assert!(!listed.contains("1.60 s"), "the sixth: {text}");
    assert_eq!(text.matches("Running: ").count(), 1, "of the other one the list is closed: {text}");
    assert_eq!(report["lists"], serde_json::json!([true, false]));
}

#[test]
fn rates_and_quantiles_are_those_of_the_last_minute_not_of_all_time() {
    let report = report(390, &[]);
    let text = report["text"].as_str().unwrap();
    let value = |name: &str| text.split(name).nth(1).unwrap().trim().lines().next().unwrap().to_owned();
    // 50 more at each poll, every five seconds of the page's own time.
    let rate: f64 = value("requests\n").trim_end_matches("/s").parse().unwrap();
    assert!((9.0..=11.0).contains(&rate), "{rate}: {text}");
    let errors: f64 = value("errors\n").trim_end_matches("/s").parse().unwrap();
    assert!((0.9..=1.1).contains(&errors), "{errors}: {text}");
    // The cells are 9 % wide.
    let first = value("first token p50 / p99\n");
    let (p50, p99) = first.split_once(" / ").unwrap();
    let p50: f64 = p50.trim_end_matches(" ms").parse().unwrap();
    let p99: f64 = p99.trim_end_matches(" s").parse().unwrap();
    assert!((91.0..=109.0).contains(&p50) && (1.8..=2.2).contains(&p99), "{first}");
}

#[test]
fn tokens_are_the_engines_or_those_that_all_responses_state() {
    let report = report(390, &[]);
    let text = report["text"].as_str().unwrap();
    let values: Vec<_> =
        text.split("generated tokens\n").skip(1).map(|rest| rest.trim().lines().next().unwrap()).collect();
    assert_eq!(values.len(), 2, "{text}");
    for (tokens, joules) in [(80.0, 2.5), (40.0, 5.0)] {
        let near = |text: &str, expected: f64| (text.parse::<f64>().unwrap() / expected - 1.0).abs() < 0.1;
        let found = values.iter().any(|value| {
            let (rate, each) = value.split_once("/s, ").unwrap_or_else(|| panic!("{values:?}"));
            near(rate, tokens) && near(each.split_whitespace().next().unwrap(), joules)
        });
        assert!(found, "{tokens} tokens per second of {joules} J in {values:?}");
    }
}

#[test]
fn it_is_dark_in_the_dark() {
    let brightness = |arguments: &[&str]| {
        let report = report(390, arguments);
        let back = report["back"].as_str().unwrap();
        let numbers =
            back.trim_start_matches("rgb(").trim_end_matches(')').split(", ").map(|n| n.parse::<u32>().unwrap());
        numbers.sum::<u32>() / 3
    };
    let (light, dark) = (
        brightness(&["--blink-settings=preferredColorScheme=1"]),
        brightness(&["--blink-settings=preferredColorScheme=0"]),
    );
    assert!(light > 200 && dark < 60, "{light} in the light, {dark} in the dark");
}

/// A model with a fault is shown with its cause, and those without one are well. With `UPDATE_PICTURES`, pictures of this are made for the
/// documents.
#[test]
fn the_page_of_the_documents_names_the_cause() {
    let server = Server::start(Content::Metrics, showcase::host(), Limits::default());
    let report = report_of(server.addr, 1280, &[]);
    let text = report["text"].as_str().unwrap();
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} in {text}"));
    assert!(place("hermes") < place("mixtral"), "the worst model comes first: {text}");
    assert!(text.contains("before the server reads them"), "{text}");

    let folder = PathBuf::from(match env::var_os("UPDATE_PICTURES") {
        Some(_) => concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/images"),
        None => env!("CARGO_TARGET_TMPDIR"),
    });
    for (name, width, height, scheme) in
        [("page.png", 1280, 1250, 1), ("page-dark.png", 1280, 1250, 0), ("page-phone.png", 390, 1500, 1)]
    {
        let phone = phone(server.addr, width);
        let picture = folder.join(name);
        _ = fs::remove_file(&picture);
        let arguments = [
            format!("--screenshot={}", picture.display()),
            format!("--window-size={width},{height}"),
            format!("--blink-settings=preferredColorScheme={scheme}"),
        ];
        chromium(&arguments.each_ref().map(String::as_str), &format!("http://{phone}/phone"));
        let bytes = fs::read(&picture).unwrap();
        assert!(bytes.starts_with(b"\x89PNG") && bytes.len() > 20_000, "{} bytes", bytes.len());
    }
}

#[test]
fn numbers_alone_are_json() {
    let server = Server::start(Content::Metrics, host(), Limits::default());
    let answer = get(server.addr, "/", "Accept: application/json\r\n");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(json["models"][0]["requests"], 1007.0);
    let html = get(server.addr, "/", "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n");
    assert_eq!(html.header("content-type"), Some("text/html; charset=utf-8"));
}
