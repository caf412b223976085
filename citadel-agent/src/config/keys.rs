//! Every key of the configuration, in one table: unknown keys are told by it, and `docs/configuration.md` repeats it.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// YAML path from the top of the file.
    pub path: &'static str,
    /// What may be written.
    pub kind: &'static str,
    /// What serves when the key is absent, as it would be written; empty: nothing does.
    pub default: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

macro_rules! keys {
    ($($path:literal: $kind:literal, $default:literal, $meaning:literal;)*) => {
        /// Every key, in the order of `docs/configuration.md`. A section is known by the keys below it.
        pub const KEYS: &[Key] = &[$(Key { path: $path, kind: $kind, default: $default, meaning: $meaning }),*];
    };
}

keys! {
    "local_collection.listen_address": "IP address in quotes", r#""::""#,
        "Address that both listeners bind. `\"::\"` takes IPv4 as well; a host without IPv6 falls back to `0.0.0.0`.";
    "local_collection.metrics_port": "TCP port, 1-65535", "8000", "Port of the metrics pages.";
    "local_collection.health_check_port": "TCP port, 1-65535", "8001", "Port of `/health`, `/ready` and `/status`.";
    "local_collection.log_level": "`TRACE`, `DEBUG`, `INFO`, `WARN` or `WARNING`, `ERROR`; any case", "INFO",
        "Level of the agent's own log; libraries stay at `INFO` or quieter. The environment variable `RUST_LOG` overrides it.";
    "local_collection.collection_interval": "duration, 100ms to 24h", "60",
        "How often sources that are not read at each scrape are read.";
    "local_collection.control_socket": "absolute path", "/run/citadel-agent/control.sock",
        "Unix socket by which `citadel-agent gpu` talks to the running agent; read when the agent starts.";
    "local_collection.endpoints.system_metrics": "path", "/metrics/system", "Page of the host metrics.";
    "local_collection.endpoints.gpu_metrics": "path", "/metrics/gpu", "Page of the GPU metrics.";
    "local_collection.endpoints.model_metrics": "path", "/metrics/models", "Page of the per-model metrics.";
    "local_collection.endpoints.storage_metrics": "path", "/metrics/storage", "Page of the storage metrics.";
    "local_collection.endpoints.service_metrics": "path", "/metrics/services", "Page of the service metrics.";
    "model_monitoring.ports": "mapping of model name to TCP port",
        "{mixtral: 11400, hermes: 11401, openchat: 11402, phi3: 11403, yi34b: 11404, coder: 11405, vision: 11500}",
        "The configured models. Writing the key replaces the whole default; `{}` configures none.";
    "model_monitoring.discover": "`\"FIRST-LAST\"`, one port, or `none`", r#""11400-11500""#,
        "Ports on which a new listener is measured without being configured.";
    "model_monitoring.health_endpoints": "list of at most 16 paths", "[/health, /v1/models, /metrics]",
        "Paths that the health probes ask of each model; `[]` probes none.";
    "model_monitoring.health_interval": "duration, 100ms to 24h", "15s", "How often they ask.";
    "model_monitoring.health_timeout": "duration, 100ms to 24h", "5s", "How long an answer may take.";
    "model_monitoring.relay": "`true` or `false`", "false",
        "Whether the models' own `/metrics` are passed on, with the labels `model` and `port`.";
    "model_monitoring.ask_for_names": "`true` or `false`", "true",
        "Whether a discovered server that neither its unit nor its command line names is asked for `/v1/models`.";
    "remote_monitoring.enabled": "`true` or `false`", "false", "Whether anything is sent to the dev-ops server.";
    "remote_monitoring.dev_ops_server": "host name or IP address", "",
        "The dev-ops server. Required when `enabled` is `true`.";
    "remote_monitoring.prometheus.remote_write_url": "http(s) URL", "", "Where remote write goes; absent: nowhere.";
    "remote_monitoring.prometheus.scrape_interval": "duration, 100ms to 24h", "15s",
        "How often Prometheus scrapes this host.";
    "remote_monitoring.prometheus.evaluation_interval": "duration, 100ms to 24h", "15s",
        "How often Prometheus evaluates its rules.";
    "remote_monitoring.grafana.dashboard_url": "http(s) URL", "", "Grafana, for links.";
    "remote_monitoring.grafana.datasource": "string", "", "Name of Grafana's data source.";
    "remote_monitoring.alerting.alert_manager_url": "http(s) URL", "", "Where alerts go; absent: nowhere.";
    "remote_monitoring.alerting.webhook_url": "http(s) URL", "", "Webhook that is told of alerts.";
    "ebpf.net": "`true` or `false`", "true", "Whether the `net` probes run: requests, tokens, TCP.";
    "ebpf.recvq": "`true` or `false`", "true",
        "Whether the `recvq` probe runs: how long requests lie in the receive queue. Needs `net`.";
    "ebpf.sched": "`true` or `false`", "true",
        "Whether the `sched` probes run: how long the models' threads wait for a CPU, and have one.";
    "ebpf.cgroup": "absolute path", "",
        "The cgroup v2 directory that the probes attach to; absent: the root of the mounted hierarchy.";
    "gpu.enabled": "`true` or `false`", "true", "Whether the GPUs are read.";
    "gpu.sampling_interval": "duration, 100ms to 24h", "1s",
        "How often the GPUs are sampled; energy is split among the models over each such interval.";
    "gpu.dcgm_compat": "`true` or `false`", "false",
        "Whether `/metrics/gpu` also carries the default metrics of dcgm-exporter, under its names and in its units.";
    "gpu.pcie_throughput": "`true` or `false`", "false",
        "Whether GPUs that count no PCIe bytes (before Hopper) are asked for their throughput instead: 40 ms a GPU and sample.";
    "gpu.nvml_library": "absolute path", "", "The NVML library; absent: `libnvidia-ml.so.1`, where the loader finds it.";
    "storage.smartctl": "program", "smartctl",
        "Asks disks for their health (smartmontools); a name without a slash is looked for on the path. Without it there are no `citadel_smart_*`.";
    "storage.smart_interval": "duration, 100ms to 24h", "5m", "How often disks are asked. A disk that sleeps is not woken.";
    "storage.directories": "list of at most 64 absolute paths", "[]",
        "Directories whose size and newest file are exported: models, backups.";
    "storage.directory_interval": "duration, 100ms to 24h", "5m", "How often they are walked.";
    "services.units": "list of at most 64 patterns", "[citadel-*.service]",
        "systemd units that are exported besides those that serve models; patterns as `systemctl` takes them.";
}

/// Names of the keys directly below `path`, sections included; the empty path is the top of the file.
pub(super) fn below(path: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = KEYS
        .iter()
        .filter_map(|key| match path {
            "" => Some(key.path),
            _ => key.path.strip_prefix(path)?.strip_prefix('.'),
        })
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .collect();
    names.dedup();
    names
}

/// The section that holds a key of this name, other than `path`: for a key that was written in the wrong place.
pub(super) fn home_of(name: &str, path: &str) -> Option<&'static str> {
    KEYS.iter()
        .filter_map(|key| key.path.rsplit_once('.'))
        .find(|(home, last)| *last == name && *home != path)
        .map(|(home, _)| home)
}
