//! Host and storage: CPU, memory, network, file systems, disks.

use super::grafana::{Dashboard, Variable};
use super::panel::{Kind, Panel};
use super::query::{HOST, by, sum};

/// What has no disk of its own to fill.
const FILES: &str = r#"fstype!~"tmpfs|ramfs|squashfs|overlay|iso9660""#;
const FULL: &[(f64, &str)] = &[(0.9, "orange"), (0.95, "red")];

pub(crate) fn dashboard() -> Dashboard {
    Dashboard {
        file: "host",
        title: "host and storage",
        about: "CPU, memory, network, file systems and disks of each host, under node_exporter's names.",
        variables: &[Variable::Instances],
        annotations: vec![super::alerts(HOST), super::agent_started(HOST), super::configuration_loaded(HOST)],
        rows: vec![
            ("Now", now()),
            ("CPU and memory", cpu()),
            ("Network", network()),
            ("File systems", filesystems()),
            ("Disks", disks()),
        ],
    }
}

fn graph(title: &'static str, unit: &'static str) -> Panel {
    Panel::new(Kind::Graph, title, unit)
}

fn used(all: &str, free: &str, matchers: &str) -> String {
    format!("1 - {} / {}", HOST.series(free, matchers), HOST.series(all, matchers))
}

fn now() -> Vec<Panel> {
    let stat = |title, unit| Panel::new(Kind::Stat, title, unit);
    let boot = by("max", "", &HOST.series("node_boot_time_seconds", ""));
    let idle = by("avg", "", &HOST.rate("node_cpu_seconds_total", r#"mode="idle""#));
    vec![
        stat("CPU", "percentunit").thresholds(FULL).query(format!("1 - {idle}"), ""),
        stat("Memory", "percentunit")
            .thresholds(FULL)
            .query(by("max", "", &used("node_memory_MemTotal_bytes", "node_memory_MemAvailable_bytes", "")), ""),
        stat("Waiting for memory", "percentunit")
            .thresholds(&[(0.1, "orange"), (0.3, "red")])
            .query(by("max", "", &HOST.rate("node_pressure_memory_waiting_seconds_total", "")), ""),
        stat("Waiting for disks", "percentunit")
            .thresholds(&[(0.3, "orange"), (0.7, "red")])
            .query(by("max", "", &HOST.rate("node_pressure_io_waiting_seconds_total", "")), ""),
        stat("Fullest file system", "percentunit")
            .thresholds(FULL)
            .query(by("max", "", &used("node_filesystem_size_bytes", "node_filesystem_avail_bytes", FILES)), ""),
        stat("Disks that fail", "short")
            .thresholds(&[(1.0, "red")])
            .query(HOST.or_zero(&by("count", "", &format!("{} == 0", HOST.series("citadel_smart_healthy", "")))), ""),
        stat("Killed for memory in 24 h", "short")
            .thresholds(&[(1.0, "red")])
            .query(by("max", "", &format!("increase({}[24h])", HOST.series("node_vmstat_oom_kill", ""))), ""),
        stat("Up for", "s").query(format!("time() - {boot}"), ""),
    ]
}

fn cpu() -> Vec<Panel> {
    let pressure = |what: &str| by("max", "", &HOST.rate(&format!("node_pressure_{what}_seconds_total"), ""));
    vec![
        graph("CPU", "short")
            .query(HOST.sum_rate("mode", "node_cpu_seconds_total", r#"mode!="idle""#), "{{mode}}")
            .about("Cores."),
        graph("Load", "short")
            .query(HOST.series("node_load1", ""), "1 min")
            .query(HOST.series("node_load15", ""), "15 min"),
        graph("Pressure", "percentunit")
            .max(1.0)
            .query(pressure("cpu_waiting"), "CPU")
            .query(pressure("memory_waiting"), "memory")
            .query(pressure("io_waiting"), "I/O")
            .about("Part of the time in which some process waited.")
            .link("Who: one model", "citadel-model"),
        graph("Memory", "bytes")
            .query(HOST.series("node_memory_MemTotal_bytes", ""), "total")
            .query(HOST.series("node_memory_MemAvailable_bytes", ""), "available")
            .query(HOST.series("node_memory_Cached_bytes", ""), "cached"),
        graph("Memory of models", "bytes")
            .query(sum("model", &HOST.series("citadel_model_memory_bytes", r#"kind="pss""#)), "{{model}}"),
        graph("Swap", "bytes").query(
            format!(
                "{} - {}",
                HOST.series("node_memory_SwapTotal_bytes", ""),
                HOST.series("node_memory_SwapFree_bytes", "")
            ),
            "used",
        ),
        graph("CPU of models", "short")
            .query(HOST.sum_rate("model", "citadel_model_cpu_seconds_total", ""), "{{model}}")
            .about("Cores."),
        graph("Context switches", "cps").query(HOST.rate("node_context_switches_total", ""), ""),
        graph("Temperature", "celsius").query(HOST.series("node_hwmon_temp_celsius", ""), "{{chip}} {{sensor}}"),
    ]
}

fn network() -> Vec<Panel> {
    vec![
        graph("Network", "Bps")
            .query(HOST.sum_rate("device", "node_network_receive_bytes_total", r#"device!="lo""#), "{{device}} in")
            .query(HOST.sum_rate("device", "node_network_transmit_bytes_total", r#"device!="lo""#), "{{device}} out"),
        graph("Network errors and drops", "cps")
            .query(HOST.sum_rate("device", "node_network_receive_errs_total", ""), "{{device}} in")
            .query(HOST.sum_rate("device", "node_network_transmit_errs_total", ""), "{{device}} out")
            .query(HOST.sum_rate("device", "node_network_receive_drop_total", ""), "{{device}} dropped"),
        graph("TCP", "cps")
            .query(HOST.rate("node_netstat_Tcp_RetransSegs", ""), "retransmits")
            .query(HOST.rate("node_netstat_TcpExt_ListenOverflows", ""), "listen overflows")
            .about("Listen overflows: a server did not accept in time, and connections were dropped."),
    ]
}

fn filesystems() -> Vec<Panel> {
    let files_used = used("node_filesystem_files", "node_filesystem_files_free", FILES);
    vec![
        graph("Used", "percentunit")
            .max(1.0)
            .thresholds(FULL)
            .query(used("node_filesystem_size_bytes", "node_filesystem_avail_bytes", FILES), "{{mountpoint}}"),
        graph("Available", "bytes").query(HOST.series("node_filesystem_avail_bytes", FILES), "{{mountpoint}}"),
        graph("Inodes used", "percentunit").max(1.0).thresholds(FULL).query(files_used, "{{mountpoint}}"),
        graph("Read-only, or not answering", "short")
            .thresholds(&[(1.0, "red")])
            .query(by("max", "mountpoint", &HOST.series("node_filesystem_readonly", FILES)), "{{mountpoint}} read-only")
            .query(
                by("max", "mountpoint", &HOST.series("node_filesystem_device_error", "")),
                "{{mountpoint}} does not answer",
            ),
        graph("Directories", "bytes").query(HOST.series("citadel_directory_size_bytes", ""), "{{path}}"),
        graph("Newest file of a directory", "s")
            .query(
                format!("time() - {}", HOST.series("citadel_directory_newest_file_timestamp_seconds", "")),
                "{{path}}",
            )
            .about("Its age: of a backup directory, when the last backup was made."),
    ]
}

fn disks() -> Vec<Panel> {
    let each = |name: &str| {
        format!(
            "{} / ({} > 0)",
            HOST.sum_rate("device", &format!("node_disk_{name}_time_seconds_total"), ""),
            HOST.sum_rate("device", &format!("node_disk_{name}s_completed_total"), "")
        )
    };
    vec![
        graph("Throughput", "Bps")
            .query(HOST.sum_rate("device", "node_disk_read_bytes_total", ""), "{{device}} read")
            .query(HOST.sum_rate("device", "node_disk_written_bytes_total", ""), "{{device}} written"),
        graph("Time of an operation", "s")
            .query(each("read"), "{{device}} read")
            .query(each("write"), "{{device}} write")
            .about("Mean; absent where there was none."),
        graph("Busy", "percentunit")
            .max(1.0)
            .query(HOST.sum_rate("device", "node_disk_io_time_seconds_total", ""), "{{device}}"),
        graph("SMART health", "short")
            .max(1.0)
            .query(HOST.series("citadel_smart_healthy", ""), "{{device}}")
            .about("0: the disk says that it fails. Off unless it is set up: docs/installation.md."),
        graph("Endurance used, spare left", "percentunit")
            .query(HOST.series("citadel_smart_used_ratio", ""), "{{device}} used")
            .query(HOST.series("citadel_smart_available_spare_ratio", ""), "{{device}} spare"),
        graph("Errors of the medium", "short")
            .query(HOST.series("citadel_smart_media_errors_total", ""), "{{device}} errors")
            .query(HOST.series("citadel_smart_pending_sectors", ""), "{{device}} pending sectors"),
        graph("Disk temperature", "celsius").query(HOST.series("citadel_smart_temperature_celsius", ""), "{{device}}"),
        graph("RAID: disks that are missing", "short").thresholds(&[(1.0, "red")]).query(
            format!(
                "{} - {}",
                by("max", "device", &HOST.series("node_md_disks_required", "")),
                by("max", "device", &HOST.series("node_md_disks", r#"state="active""#))
            ),
            "{{device}}",
        ),
    ]
}
