//! CPU and memory with a receiver that accepts everything, compared with Prometheus 3 in agent mode and vmagent, all
//! running at the same time.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::pages::{Shape, target};
use crate::process::{Measured, Prometheus, Usage, start_agent, start_vmagent, vmagent_version};
use crate::sink::Sink;

const SHAPE: Shape = Shape::Large;

/// Warm-up before the measurement.
const WARM: Duration = Duration::from_secs(20);

/// Another build of this program whose remote write is measured too, to see the effect of a change.
const BEFORE: &str = "CITADEL_BENCH_BEFORE";

struct Row {
    what: String,
    process: Measured,
    sink: Sink,
    /// Whether only the thread `remote-write` counts. The other programs do nothing but remote write, so their whole
    /// process counts.
    thread: bool,
}

pub(crate) fn compare(time: Duration) {
    let dir = env::temp_dir().join(format!("citadel-bench-cost-{}", std::process::id()));
    let folder = |name: &str| {
        let folder = dir.join(name);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    };
    let target = target(SHAPE);
    let mut rows = Vec::new();
    let own = env::current_exe().expect("this program");
    let before = env::var_os(BEFORE).map(|program| ("agent before, ", PathBuf::from(program)));
    for (build, program) in [("agent, ", own)].into_iter().chain(before) {
        for (protocol, histograms) in [("2.0", "classic"), ("2.0", "native"), ("1.0", "classic")] {
            let sink = Sink::start();
            let what = format!("{build}{protocol}, {histograms} histograms");
            let (process, _) = start_agent(&program, folder(&what), &sink, SHAPE, [protocol, histograms]);
            rows.push(Row { what, process, sink, thread: true });
        }
    }
    let sink = Sink::start();
    let version = Prometheus::Newest;
    let process = version.start(&folder("prometheus"), &sink, target);
    rows.push(Row { what: format!("{} in agent mode, 2.0", version.version()), process, sink, thread: false });
    let sink = Sink::start();
    let process = start_vmagent(&folder("vmagent"), &sink, target);
    rows.push(Row { what: format!("{}, 1.0", vmagent_version()), process, sink, thread: false });

    thread::sleep(WARM);
    let usage = || rows.iter().map(|row| (row.process.usage(), row.sink.received())).collect::<Vec<_>>();
    let begin = usage();
    thread::sleep(time);
    let end = usage();

    let samples = (SHAPE.series() * time.as_secs()) as f64;
    println!(
        "## Remote write, compared with Prometheus and vmagent\n\n{} series per second (500 models with a counter, a gauge and \
         a histogram each) for {} s, to receivers on this host that accept everything. The others scrape the same page as text, \
         where each histogram is 40 series; a sample is one of these series. All ran at the same time. The figures of the agent \
         are those of its remote write thread, which takes each collected page, stores it on disk, and sends it; those of the \
         others are of the whole process.\n",
        SHAPE.series(),
        time.as_secs()
    );
    println!(
        "| what | CPU, seconds per million samples | resident memory, MB | bytes sent per sample |\n| --- | ---: | ---: | ---: |"
    );
    for (row, (begin, end)) in rows.iter().zip(begin.iter().zip(&end)) {
        let cpu = |usage: &Usage| if row.thread { usage.thread_seconds } else { usage.cpu_seconds };
        println!(
            "| {} | {:.2} | {:.1} | {:.1} |",
            row.what,
            (cpu(&end.0) - cpu(&begin.0)) / samples * 1e6,
            end.0.resident,
            (end.1 - begin.1) as f64 / samples
        );
    }
    drop(rows);
    _ = fs::remove_dir_all(dir);
}
