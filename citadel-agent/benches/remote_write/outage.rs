//! An outage: CPU and memory while the receiver is down and when it is back, compared with Prometheus in agent mode.

use std::env;
use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use crate::pages::{Shape, target};
use crate::process::{Prometheus, start_agent};
use crate::sink::Sink;

const SHAPE: Shape = Shape::Small;

/// Warm-up with the receiver up.
const WARM: Duration = Duration::from_secs(20);

pub(crate) fn compare(outage: Duration) {
    let dir = env::temp_dir().join(format!("citadel-bench-outage-{}", std::process::id()));
    for name in ["agent", "prometheus"] {
        fs::create_dir_all(dir.join(name)).expect("a folder");
    }
    // One receiver each, to count the bytes separately.
    let (sink, prometheus_sink) = (Sink::start(), Sink::start());
    let program = env::current_exe().expect("this program");
    let (agent, said) = start_agent(&program, dir.join("agent"), &sink, SHAPE, ["auto"; 2]);
    let version = Prometheus::Installed;
    let prometheus = version.start(&dir.join("prometheus"), &prometheus_sink, target(SHAPE));
    thread::sleep(WARM);
    let begin = [agent.usage(), prometheus.usage()];
    let collected = said.collected();

    for sink in [&sink, &prometheus_sink] {
        sink.open.store(false, Ordering::SeqCst);
        sink.bytes.store(0, Ordering::SeqCst);
    }
    thread::sleep(outage);
    let away = [agent.usage(), prometheus.usage()];
    let (waiting, acknowledged) = (said.pending(), said.acknowledged());

    for sink in [&sink, &prometheus_sink] {
        sink.open.store(true, Ordering::SeqCst);
    }
    // The longest pause between two attempts is half a minute; draining starts after it.
    while said.acknowledged() == acknowledged {
        thread::sleep(Duration::from_millis(20));
    }
    let (back, before) = (Instant::now(), said.acknowledged());
    let mut most: f64 = 0.0;
    while said.pending() > 2 * SHAPE.series() {
        thread::sleep(Duration::from_millis(500));
        most = most.max(agent.usage().resident);
    }
    let (drained, drain_seconds) = (said.acknowledged() - before, back.elapsed().as_secs_f64());
    // Prometheus drains in its own way; both get the same total time.
    thread::sleep(Duration::from_secs(30));
    let end = [agent.usage(), prometheus.usage()];
    let samples = (said.collected() - collected) as f64;

    let millions = samples / 1e6;
    let cpu = |i: usize| (end[i].cpu_seconds - begin[i].cpu_seconds) / millions;
    let bytes = |i: usize| away[i].disk.saturating_sub(begin[i].disk) as f64 / waiting as f64;
    let sent = [&sink, &prometheus_sink].map(|sink| sink.received() as f64 / samples);
    let row = |what: &str, of: [f64; 2], digits: usize| {
        println!("| {what} | {:.digits$} | {:.digits$} | {:.2} |", of[0], of[1], of[0] / of[1]);
    };
    println!(
        "## Remote write through an outage\n\n{} series per second; the receiver is down for {} s and then back. {} \
         in agent mode scrapes the same page at the same time; it sends remote write 1.0, the agent 2.0.\n",
        SHAPE.series(),
        outage.as_secs(),
        version.version()
    );
    println!("| what | agent | Prometheus agent mode | ratio |\n| --- | ---: | ---: | ---: |");
    row("CPU, seconds per million samples, during and after the outage", [cpu(0), cpu(1)], 2);
    row("resident memory before the outage, MB", [begin[0].resident, begin[1].resident], 1);
    row("resident memory at the end of the outage, MB", [away[0].resident, away[1].resident], 1);
    row("bytes on disk per sample", [bytes(0), bytes(1)], 1);
    row("bytes sent per sample", sent, 1);
    println!(
        "\nThe agent's resident memory grew by {:.1} MB while {waiting} samples were pending (target: below 5 MB), and was at \
         most {most:.1} MB while they were sent: {drained} samples in {drain_seconds:.0} s, {:.0} per second (ten times the \
         live rate is {}).",
        away[0].resident - begin[0].resident,
        drained as f64 / drain_seconds,
        10 * SHAPE.series()
    );
    drop((agent, prometheus));
    _ = fs::remove_dir_all(dir);
}
