//! Every key of the configuration, in one table: unknown keys are told by it, and `docs/configuration.md` repeats it.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// YAML path from the top of the file. `name[]` is an item of a list, `*` stands for any name.
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
    "model_monitoring.health_endpoints": "`auto`, or a list of at most 16 paths", "auto",
        "Paths that the health probes ask of each model. `auto` asks only what the server is known to answer without work; a list is asked as it is written; `[]` probes none.";
    "model_monitoring.health_interval": "duration, 100ms to 24h", "15s", "How often they ask.";
    "model_monitoring.health_timeout": "duration, 100ms to 24h", "5s", "How long an answer may take.";
    "model_monitoring.engine_metrics": "`true` or `false`", "true",
        "Whether the engines' metrics pages, among the paths that are asked, become `citadel_engine_*`.";
    "model_monitoring.relay": "`true` or `false`", "false",
        "Whether the models' own `/metrics` are passed on as well, whole, with the labels `model` and `port`. All pages together may take 16 MiB of memory (some 20 models of vLLM); the largest give way, and `citadel_model_relay_success` is 0 for them.";
    "model_monitoring.ask_for_names": "`true` or `false`", "true",
        "Whether a discovered server that neither its unit nor its command line names is asked for `/v1/models`.";
    "model_monitoring.models.*.health_endpoints": "`auto`, or a list of at most 16 paths", "",
        "Other paths for the model of this name, or on the port of this number. Absent here and below: as for all models.";
    "model_monitoring.models.*.health_interval": "duration, 100ms to 24h", "", "Another interval.";
    "model_monitoring.models.*.health_timeout": "duration, 100ms to 24h", "", "Another timeout.";
    "model_monitoring.models.*.scheme": "`auto`, `http` or `https`", "auto",
        "Whether the server speaks TLS; `auto` finds out.";
    "model_monitoring.models.*.server_name": "host name or IP address", "",
        "The name by which the server is asked, and that its certificate must be for; absent: `localhost`.";
    "model_monitoring.models.*.ca_file": "absolute path", "", "CA certificates to trust, PEM.";
    "model_monitoring.models.*.certificate_file": "absolute path", "",
        "The server's own certificate, PEM: no other is accepted.";
    "model_monitoring.models.*.api_key_file": "absolute path", "",
        "File that holds an API key, read for each request and sent as a bearer token. Over TLS it is sent only to a server whose certificate is verified: by one of the two above, else by the host's CAs.";
    "model_monitoring.models.*.headers": "mapping of header fields to values", "{}", "Further header fields of the probes.";
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
    "remote_monitoring.alerting.alert_manager_url": "http(s) URL", "", "The Alertmanager that alerts go to.";
    "remote_monitoring.alerting.webhook_url": "http(s) URL", "",
        "Told of alerts as well. `/api/v1/alerts` of an Alertmanager, which 0.27 removed, means `/api/v2/alerts` of that host; any other URL gets the same JSON.";
    "remote_monitoring.alerting.alertmanagers": "list of at most 16 http(s) URLs", "[]",
        "Further Alertmanagers; each gets every alert. Where no one is named in this section, no rule is evaluated.";
    "remote_monitoring.alerting.username": "string", "", "User name of basic authentication, at all of them.";
    "remote_monitoring.alerting.password_file": "absolute path", "", "File that holds its password, read for each request.";
    "remote_monitoring.alerting.bearer_token_file": "absolute path", "",
        "File that holds a bearer token, read for each request.";
    "remote_monitoring.alerting.ca_file": "absolute path", "",
        "CA certificates to trust, PEM, instead of the host's own; read again when the file changes.";
    "remote_monitoring.alerting.cert_file": "absolute path", "",
        "The agent's own certificate (mutual TLS), PEM, with those between it and its CA; read again when the file changes.";
    "remote_monitoring.alerting.key_file": "absolute path", "", "Its private key, PEM.";
    "remote_monitoring.alerting.headers": "mapping of header names to values", "{}",
        "Further header fields of each request, a tenant's for example.";
    "remote_write.interval": "duration, 100ms to 24h", "",
        "How often samples are collected for remote write; absent: every `remote_monitoring.prometheus.scrape_interval`.";
    "remote_write.directory": "absolute path", "",
        "Where samples are kept until they have arrived; absent: `remote-write` in the folder that systemd names (`STATE_DIRECTORY`), else `/var/lib/citadel-agent/remote-write`.";
    "remote_write.job": "string", "citadel-agent", "The label `job` of every series.";
    "remote_write.instance": "string", "", "The label `instance` of every series; absent: the host's name.";
    "remote_write.external_labels": "mapping of label name to value", "{}", "Further labels of every series.";
    "remote_write.histograms": "`auto`, `both`, `native` or `classic`", "auto",
        "How histograms are sent where the destination does not say. `auto`: classic ones, and native ones besides to a receiver that confirms remote write 2.0 and does not say that it is VictoriaMetrics or InfluxDB. The others are sent in 1.0 too; to a receiver that refuses native ones, `native` sends classic ones.";
    "remote_write.max_bytes": "bytes, 64KiB or more", r#""1GiB""#,
        "Most bytes kept; beyond them the oldest samples are dropped, and counted.";
    "remote_write.max_age": "age, 1h to 10 years", r#""7d""#, "Older samples are dropped, and counted.";
    "remote_write.min_free_bytes": "bytes", r#""512MiB""#,
        "What stays free on the file system: the oldest samples are dropped, and counted, as long as there is less.";
    "remote_write.destinations.*.url": "http(s) URL", "",
        "Where samples go. Required, except for the destination `prometheus`, which is `remote_monitoring.prometheus.remote_write_url`.";
    "remote_write.destinations.*.protocol": "`auto`, `1.0` or `2.0`", "auto",
        "Remote-write protocol; `auto` is 2.0, and 1.0 for a receiver that knows no other, which is remembered for a day.";
    "remote_write.destinations.*.histograms": "`auto`, `both`, `native` or `classic`", "",
        "How histograms are sent to this destination; absent: as `remote_write.histograms` says.";
    "remote_write.destinations.*.denied": "`park` or `drop`", "park",
        "When the receiver answers 401, 403, 404 or a redirect: wait and try once a minute, or drop what was not let in.";
    "remote_write.destinations.*.timeout": "duration, 100ms to 24h", "30s", "How long a request may take.";
    "remote_write.destinations.*.username": "string", "", "User name of basic authentication.";
    "remote_write.destinations.*.password_file": "absolute path", "", "File that holds its password, read for each request.";
    "remote_write.destinations.*.bearer_token_file": "absolute path", "",
        "File that holds a bearer token, read for each request.";
    "remote_write.destinations.*.ca_file": "absolute path", "",
        "CA certificates to trust, PEM, instead of the host's own; read again when the file changes.";
    "remote_write.destinations.*.cert_file": "absolute path", "",
        "The agent's own certificate (mutual TLS), PEM, with those between it and its CA; read again when the file changes.";
    "remote_write.destinations.*.key_file": "absolute path", "", "Its private key, PEM.";
    "remote_write.destinations.*.headers": "mapping of header names to values", "{}",
        "Further header fields of each request, a tenant's for example.";
    "ebpf.net": "`true` or `false`", "true", "Whether the `net` probes run: requests, tokens, TCP.";
    "ebpf.recvq": "`true` or `false`", "true",
        "Whether the `recvq` probe runs: how long requests lie in the receive queue. Needs `net`.";
    "ebpf.sched": "`true` or `false`", "true",
        "Whether the `sched` probes run: how long the models' threads wait for a CPU, and have one.";
    "ebpf.syscalls": "`true` or `false`", "true",
        "Whether the `syscalls` probes run: how long the models' system calls take, and which fail.";
    "ebpf.syscall_names": "list of system calls, at least one",
        "[read, write, poll, mmap, ioctl, readv, writev, sendto, recvfrom, sendmsg, recvmsg, fsync, futex, epoll_wait, openat, epoll_pwait, accept4, io_uring_enter, epoll_pwait2]",
        "Which system calls `syscalls` measures. Also: munmap, pread64, pwrite64, select, madvise, connect, accept, fdatasync, ppoll, splice, recvmmsg, sendmmsg.";
    "ebpf.syscall_form": "`auto` or `raw_tp`", "auto",
        "How `syscalls` sees them: `auto` takes fentry, which costs calls that are not measured nothing, and leaves the family out where the kernel does not allow it; `raw_tp` works on all kernels and slows every system call of the host (nginx keeps 0.89 of its throughput, also on ports of no model).";
    "ebpf.cgroup": "absolute path", "",
        "The cgroup v2 directory that the probes attach to; absent: the root of the mounted hierarchy.";
    "gpu.enabled": "`true` or `false`", "true", "Whether the GPUs are read.";
    "gpu.sampling_interval": "duration, 100ms to 24h", "1s",
        "How often the GPUs are sampled; energy is split among the models over each such interval.";
    "gpu.dcgm_compat": "`true`, `false`, `\"4.8\"` or `\"4.9\"`", "false",
        "Whether `/metrics/gpu` also carries the default metrics of dcgm-exporter, under the names and in the units of that release; `true` is `\"4.8\"`.";
    "gpu.pcie_throughput": "`true` or `false`", "false",
        "Whether GPUs that count no PCIe bytes (before Hopper) are asked for their throughput instead: 40 ms a GPU and sample.";
    "gpu.nvlink_fec": "`true` or `false`", "false",
        "Whether the bins of forward error correction are exported: 16 series an NVLink (NVLink 5 and newer).";
    "gpu.nvml_library": "absolute path", "", "The NVML library; absent: `libnvidia-ml.so.1`, where the loader finds it.";
    "alerts.enabled": "`true` or `false`", "true", "Whether alert rules are evaluated and alerts sent.";
    "alerts.shipped": "`true` or `false`", "true", "Whether the shipped rules are in force; `citadel-agent alerts rules` prints them.";
    "alerts.override.*.enabled": "`true` or `false`", "true", "`false`: the shipped rule of this name is not in force.";
    "alerts.override.*.threshold": "number", "", "Another threshold for its first condition.";
    "alerts.override.*.for": "duration, 0s to 31d", "", "Another `for`.";
    "alerts.override.*.keep_firing_for": "duration, 0s to 31d", "", "Another `keep_firing_for`.";
    "alerts.override.*.severity": "`info`, `warning` or `critical`", "", "Another severity.";
    "alerts.rules[].alert": "name", "", "Name of a rule of your own; one of a shipped rule's name replaces that.";
    "alerts.rules[].metric": "metric, perhaps with label matchers in braces", "",
        "What is watched, such as `citadel_model_requests_total{code=~\"5..\"}`. The metric must be in the catalogue.";
    "alerts.rules[].rate": "duration, 1s to 31d", "", "A counter's growth a second over that time.";
    "alerts.rules[].increase": "duration, 1s to 31d", "",
        "A counter's growth over that time, the first event included.";
    "alerts.rules[].quantile": "number, 0 to 1", "", "A quantile of what a histogram observed, with `over`.";
    "alerts.rules[].predict": "duration, 1s to 31d", "", "What a gauge will be so much later, along the line of the time `over`.";
    "alerts.rules[].over": "duration, 1s to 31d", "", "How far `quantile` and `predict` look back.";
    "alerts.rules[].divide_by.metric": "metric, perhaps with label matchers in braces", "", "Makes the value a ratio: the divisor.";
    "alerts.rules[].divide_by.rate": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].divide_by.increase": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].divide_by.quantile": "number, 0 to 1", "", "As above.";
    "alerts.rules[].divide_by.predict": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].divide_by.over": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].by": "list of label names", "",
        "The labels that values are summed to, over all others; absent: each series by itself.";
    "alerts.rules[].above": "number", "", "True when the value is greater. One of these six is needed.";
    "alerts.rules[].at_least": "number", "", "True when the value is greater or equal.";
    "alerts.rules[].below": "number", "", "True when the value is less.";
    "alerts.rules[].at_most": "number", "", "True when the value is less or equal.";
    "alerts.rules[].equal": "number", "", "True when the value is equal.";
    "alerts.rules[].not_equal": "number", "", "True when the value is another.";
    "alerts.rules[].and[].metric": "metric, perhaps with label matchers in braces", "",
        "A further condition (at most 4), which must be true of the same labels.";
    "alerts.rules[].and[].rate": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].and[].increase": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].and[].quantile": "number, 0 to 1", "", "As above.";
    "alerts.rules[].and[].predict": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].and[].over": "duration, 1s to 31d", "", "As above.";
    "alerts.rules[].and[].above": "number", "", "As above.";
    "alerts.rules[].and[].at_least": "number", "", "As above.";
    "alerts.rules[].and[].below": "number", "", "As above.";
    "alerts.rules[].and[].at_most": "number", "", "As above.";
    "alerts.rules[].and[].equal": "number", "", "As above.";
    "alerts.rules[].and[].not_equal": "number", "", "As above.";
    "alerts.rules[].for": "duration, 0s to 31d", "", "How long it must be true before the alert fires; absent: it fires at once.";
    "alerts.rules[].keep_firing_for": "duration, 0s to 31d", "", "How long the alert goes on firing when it is no longer true.";
    "alerts.rules[].severity": "`info`, `warning` or `critical`", "", "Value of the label `severity`.";
    "alerts.rules[].labels": "mapping of names to strings", "", "Further labels of the alert.";
    "alerts.rules[].annotations": "mapping of names to strings", "",
        "What a person is told. `{{ $labels.NAME }}`, `{{ $value }}` and `{{ $threshold }}` are filled in; the numbers take `| humanize`, `humanize1024`, `humanizeDuration` or `humanizePercentage`.";
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
        .map(|rest| rest.split('.').next().unwrap_or(rest).trim_end_matches("[]"))
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
