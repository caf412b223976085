//! Generates `docs/metrics.md` from the catalogue.

use std::fmt::Write as _;

use super::buckets::Buckets;
use super::catalogue::omitted::OMITTED;
use super::catalogue::{self, Desc, Kind, Section, Since};

/// The sections of the document: section, heading, introduction.
const SECTIONS: [(Section, &str, &str); 6] = [
    (
        Section::Models,
        "Models: `/metrics/models`",
        "`model` is the configured or discovered name, `port` the TCP port. `endpoint` is one of `chat_completions`, \
         `completions`, `responses`, `embeddings`, `rerank`, `models`, `health`, `metrics`, `other`; `code` is the exact HTTP \
         status.",
    ),
    (
        Section::Gpu,
        "GPUs: `/metrics/gpu`",
        "`gpu` is the UUID, `index` the NVML index, `name` the product name. Counters kept by the GPU itself (energy, throttling, \
         ECC, NVLink, replays) started with its driver or its board, not with the agent. See [gpu.md](gpu.md).",
    ),
    (
        Section::System,
        "The host: `/metrics/system`",
        "Names, labels, types and values are those of node_exporter 1.5.0 (Debian) with the `meminfo_numa` collector enabled and \
         all network devices, so that dashboards and rules work unchanged. A test compares each metric with node_exporter.",
    ),
    (
        Section::Storage,
        "Storage: `/metrics/storage`",
        "`node_*` as above, for every mount point except those below /dev, /proc and /sys. Disk health (`citadel_smart_*`) and \
         directories (`citadel_directory_*`) are read at intervals of their own. Counters marked *lifetime* are kept by the disk.",
    ),
    (
        Section::Services,
        "Services: `/metrics/services`",
        "systemd units: those that serve models, and those in `services.units`. States are updated by systemd's D-Bus signals.",
    ),
    (
        Section::Agent,
        "The agent itself: on every page",
        "What is measured, what is not and why, and what the agent itself uses.",
    ),
];

/// The text of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "<!-- Made from citadel-agent/src/metrics/catalogue: UPDATE_DOCS=1 cargo test -p citadel-agent docs -->\n\
         # Metrics\n\n\
         `/metrics` has all metrics. The `Accept` header selects the format: Prometheus text 0.0.4, OpenMetrics 1.0, or the\n\
         delimited Prometheus protobuf format.\n\n\
         Histograms use native buckets with schema 3 (8 buckets per power of two, each 9 % wide); durations up to 0.95 us are\n\
         in the zero bucket. Only protobuf carries native histograms. The classic buckets (`le`) are sums of native buckets\n\
         and the same in every format:\n\n\
         | families | classic bounds | series per histogram, with sum and count |\n|---|---|---|\n",
    );
    for buckets in Buckets::ALL {
        let families = catalogue::all().filter(|desc| desc.buckets == Some(buckets));
        let families: Vec<_> = families.map(|desc| format!("`{}`", desc.name)).collect();
        _ = writeln!(text, "| {} | {} | {} |", families.join(", "), buckets.about(), buckets.classic().series());
    }
    text.push_str(
        "\nTwo buckets per power of two are a factor of 1.41 wide: a quantile computed from them is off by at most that factor.\n\n\
         Counters marked *since start* start at 0 when the agent starts (`process_start_time_seconds`). Histograms, and counters\n\
         marked *since attached*, are counted by the kernel programs, and start at 0 when these are attached. When systemd restarts\n\
         the agent, they continue ([how](architecture.md#restarts)), and `citadel_probe_start_time_seconds` stays. OpenMetrics\n\
         exposes these times as `_created`, protobuf and remote write 2.0 as the start timestamp. Counters marked\n\
         *lifetime* are kept by a device. All other counters started earlier: when the host booted, a driver was loaded or a\n\
         process started. Counters of what remote write and logs sent are kept across restarts of the agent. What cannot be\n\
         measured is absent, never 0.\n",
    );
    for (section, heading, about) in SECTIONS {
        let mut entries = catalogue::all().filter(|desc| desc.section == section).peekable();
        if entries.peek().is_none() {
            continue;
        }
        _ = write!(
            text,
            "\n## {heading}\n{about}\n\n| name | type | unit | labels | meaning |\n|---|---|---|---|---|\n"
        );
        entries.for_each(|desc| row(&mut text, desc));
    }
    text.push_str(
        "\n## node_exporter metrics that the agent omits\nOf the families that node_exporter exports by default. \
         `*` matches any suffix.\n\n| family | reason |\n|---|---|\n",
    );
    for (family, why) in OMITTED {
        _ = writeln!(text, "| `{family}` | {why} |");
    }
    text
}

fn row(text: &mut String, desc: &Desc) {
    let kind = match desc.kind {
        Kind::Counter => match desc.since {
            Some(Since::Start) => "counter, since start",
            Some(Since::Programs) => "counter, since attached",
            Some(Since::Lifetime) => "counter, lifetime",
            Some(Since::Before) | None => "counter",
        },
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Unknown => "untyped",
    };
    let unit = desc.unit.name();
    let help = desc.help.replace('|', "\\|").replace('\n', " ");
    _ = writeln!(text, "| `{}` | {kind} | {unit} | {} | {help} |", desc.name, desc.labels.join(", "));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{env, fs, path::Path};

    #[test]
    fn docs_are_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&path, markdown()).expect("docs/metrics.md can be written");
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == markdown(),
            "docs/metrics.md is not what the catalogue says: run UPDATE_DOCS=1 cargo test -p citadel-agent docs"
        );
    }

    #[test]
    fn every_metric_is_in_the_docs() {
        let text = markdown();
        for desc in catalogue::all() {
            assert!(text.contains(&format!("| `{}` |", desc.name)), "{} has a section that the docs lack", desc.name);
        }
    }
}
