//! `docs/metrics.md`, made from the catalogue.

use std::fmt::Write as _;

use super::buckets::Buckets;
use super::catalogue::omitted::OMITTED;
use super::catalogue::{self, Desc, Kind, Section, Since};

/// The sections of the document: which, its heading, and what there is to say about it.
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
        "`gpu` is the UUID, `index` NVML's index, `name` the product's name. What the GPU itself counts (energy, throttling, ECC, \
         NVLink, replays) began with its driver or its board, not with the agent. See [gpu.md](gpu.md).",
    ),
    (
        Section::System,
        "The host: `/metrics/system`",
        "node_exporter's names, labels, types and values, as Debian's version 1.5.0 has them with its collector `meminfo_numa` and \
         all network devices, so that dashboards and rules work unchanged. A test holds each of them against it.",
    ),
    (
        Section::Storage,
        "Storage: `/metrics/storage`",
        "`node_*` as above, for every mount point but those below /dev, /proc and /sys. Disks' health (`citadel_smart_*`) and \
         directories (`citadel_directory_*`) are read at their own intervals; a disk's time and bytes are its own counters.",
    ),
    (
        Section::Services,
        "Services: `/metrics/services`",
        "systemd's units: those that serve models and those of `services.units`. States follow systemd's own signals.",
    ),
    (
        Section::Agent,
        "The agent itself: on every page",
        "What is measured, what is not and why, and what the agent costs.",
    ),
];

/// The text of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "<!-- Made from citadel-agent/src/metrics/catalogue: UPDATE_DOCS=1 cargo test -p citadel-agent docs -->\n\
         # Metrics\n\n\
         `/metrics` carries all of them. The format follows `Accept`: Prometheus text 0.0.4, OpenMetrics 1.0, or Prometheus'\n\
         delimited protobuf.\n\n\
         Histograms count into native buckets, schema 3 (8 an octave, 9 % wide); durations of 0.95 us or less are in the zero\n\
         bucket. Only protobuf carries native histograms. The classic buckets `le` are sums of the native ones, the same in\n\
         every format:\n\n\
         | families | classic bounds | series a histogram, with sum and count |\n|---|---|---|\n",
    );
    for buckets in Buckets::ALL {
        let families = catalogue::all().filter(|desc| desc.buckets == Some(buckets));
        let families: Vec<_> = families.map(|desc| format!("`{}`", desc.name)).collect();
        _ = writeln!(text, "| {} | {} | {} |", families.join(", "), buckets.about(), buckets.classic().series());
    }
    text.push_str(
        "\nHalf an octave is a factor of 1.41: a quantile that is computed from such buckets is at most that far off.\n\n\
         A counter *since the start* is 0 when the agent starts (`process_start_time_seconds`), as histograms are: OpenMetrics has\n\
         that time as `_created` beside each, protobuf and remote write 2.0 as the start time. One *of a lifetime* is kept by a\n\
         device. Any other goes on from before: from the boot of the host, the load of a driver, the start of a process; and remote\n\
         write's counts are kept over restarts. What is not measured is absent, never 0.\n",
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
        "\n## What node_exporter has and the agent has not\nOf the families that node_exporter exports by default. \
         `*` is any ending.\n\n| family | why it is left out |\n|---|---|\n",
    );
    for (family, why) in OMITTED {
        _ = writeln!(text, "| `{family}` | {why} |");
    }
    text
}

fn row(text: &mut String, desc: &Desc) {
    let kind = match desc.kind {
        Kind::Counter => match desc.since {
            Some(Since::Start) => "counter, since the start",
            Some(Since::Lifetime) => "counter, of a lifetime",
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
