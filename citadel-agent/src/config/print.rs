//! A [`Config`] -> YAML that resolves to an equal one.

mod alerts;
mod probing;

pub use alerts::selector as selector_text;

use std::fmt::{Display, Write};
use std::time::Duration;

use super::resolved::remote_write::{Denied, Histograms, Protocol, Words};
use super::resolved::{Access, Config, Remote, RemoteWrite};

/// The effective values as YAML, defaults included; [`super::parse`] of it gives an equal [`Config`].
#[must_use]
pub fn print(config: &Config) -> String {
    let mut yaml = Yaml::default();
    let Config { local, models, remote, remote_write, ebpf, gpu, alerts, storage, services } = config;

    yaml.section(0, "remote_monitoring");
    yaml.value(1, "enabled", remote.is_some());
    if let Some(remote) = remote {
        print_remote(&mut yaml, remote);
    }

    yaml.section(0, "local_collection");
    yaml.value(1, "listen_address", quote(&local.listen_address.to_string()));
    yaml.value(1, "metrics_port", local.metrics_port);
    yaml.value(1, "health_check_port", local.health_check_port);
    yaml.value(1, "log_level", local.log_level);
    yaml.value(1, "collection_interval", duration(local.collection_interval));
    yaml.value(1, "control_socket", quote(&local.control_socket.display().to_string()));
    yaml.section(1, "endpoints");
    yaml.value(2, "system_metrics", quote(&local.endpoints.system));
    yaml.value(2, "gpu_metrics", quote(&local.endpoints.gpu));
    yaml.value(2, "model_metrics", quote(&local.endpoints.models));
    yaml.value(2, "storage_metrics", quote(&local.endpoints.storage));
    yaml.value(2, "service_metrics", quote(&local.endpoints.services));

    yaml.section(0, "model_monitoring");
    if models.ports.is_empty() {
        yaml.value(1, "ports", "{}");
    } else {
        yaml.section(1, "ports");
        for (port, name) in &models.ports {
            yaml.value(2, &key(name), port);
        }
    }
    match &models.discover {
        Some(range) => yaml.value(1, "discover", quote(&format!("{}-{}", range.start(), range.end()))),
        None => yaml.value(1, "discover", "none"),
    }
    probing::print(&mut yaml, models);

    print_remote_write(&mut yaml, remote_write);

    yaml.section(0, "ebpf");
    yaml.value(1, "net", ebpf.net);
    yaml.value(1, "recvq", ebpf.recvq);
    yaml.value(1, "sched", ebpf.sched);
    yaml.value(1, "syscalls", ebpf.syscalls);
    let calls: Vec<_> = ebpf.calls.iter().map(|call| call.name).collect();
    yaml.value(1, "syscall_names", format_args!("[{}]", calls.join(", ")));
    yaml.value(1, "syscall_form", ebpf.call_form.name());
    let cgroup = ebpf.cgroup.as_ref().map(|path| path.display().to_string());
    yaml.optional(1, "cgroup", cgroup.as_deref());

    yaml.section(0, "gpu");
    yaml.value(1, "enabled", gpu.enabled);
    yaml.value(1, "sampling_interval", duration(gpu.sampling_interval));
    yaml.value(1, "dcgm_compat", gpu.dcgm_compat.map_or_else(|| "false".to_owned(), |release| quote(release.name())));
    yaml.value(1, "pcie_throughput", gpu.pcie_throughput);
    yaml.value(1, "nvlink_fec", gpu.nvlink_fec);
    let library = gpu.nvml_library.as_ref().map(|path| path.display().to_string());
    yaml.optional(1, "nvml_library", library.as_deref());

    yaml.section(0, "storage");
    yaml.value(1, "smartctl", quote(&storage.smartctl.to_string_lossy()));
    yaml.value(1, "smart_interval", duration(storage.smart_interval));
    yaml.list(1, "directories", storage.directories.iter().map(|path| path.to_string_lossy()));
    yaml.value(1, "directory_interval", duration(storage.directory_interval));

    yaml.section(0, "services");
    yaml.list(1, "units", &services.units);

    alerts::print(&mut yaml, alerts);
    yaml.0
}

fn print_remote(yaml: &mut Yaml, remote: &Remote) {
    yaml.value(1, "dev_ops_server", quote(&remote.dev_ops_server));
    yaml.section(1, "prometheus");
    yaml.optional(2, "remote_write_url", remote.remote_write_url.as_deref());
    yaml.value(2, "scrape_interval", duration(remote.scrape_interval));
    yaml.value(2, "evaluation_interval", duration(remote.evaluation_interval));
    yaml.section(1, "grafana");
    yaml.optional(2, "dashboard_url", remote.grafana_url.as_deref());
    yaml.optional(2, "datasource", remote.grafana_datasource.as_deref());
    yaml.section(1, "alerting");
    yaml.optional(2, "alert_manager_url", remote.alert_manager_url.as_deref());
    yaml.optional(2, "webhook_url", remote.webhook_url.as_deref());
    let alertmanagers: Vec<_> = remote.alertmanagers.iter().map(|url| quote(url)).collect();
    yaml.value(2, "alertmanagers", format_args!("[{}]", alertmanagers.join(", ")));
    print_access(yaml, 2, &remote.alerting_access);
}

/// Only the section `alerts`, with all rules in force.
#[must_use]
pub fn print_alerts(config: &Config) -> String {
    let mut yaml = Yaml::default();
    alerts::print(&mut yaml, &config.alerts);
    yaml.0
}

fn print_remote_write(yaml: &mut Yaml, remote_write: &RemoteWrite) {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    yaml.section(0, "remote_write");
    let interval = remote_write.interval.map_or_else(|| "null".to_owned(), duration);
    yaml.value(1, "interval", interval);
    yaml.optional(1, "directory", path(&remote_write.directory).as_deref());
    yaml.value(1, "job", quote(&remote_write.job));
    yaml.optional(1, "instance", remote_write.instance.as_deref());
    if remote_write.external_labels.is_empty() {
        yaml.value(1, "external_labels", "{}");
    } else {
        yaml.section(1, "external_labels");
        for (name, value) in &remote_write.external_labels {
            yaml.value(2, &key(name), quote(value));
        }
    }
    yaml.value(1, "histograms", word(Histograms::WORDS, &remote_write.histograms));
    yaml.value(1, "max_bytes", remote_write.max_bytes);
    yaml.value(1, "max_age", duration(remote_write.max_age));
    yaml.value(1, "min_free_bytes", remote_write.min_free_bytes);
    yaml.section(1, "destinations");
    for (name, destination) in &remote_write.destinations {
        yaml.section(2, &key(name));
        yaml.optional(3, "url", destination.url.as_deref());
        yaml.value(3, "protocol", quote(word(Protocol::WORDS, &destination.protocol)));
        let histograms = destination.histograms.as_ref().map(|histograms| word(Histograms::WORDS, histograms));
        yaml.optional(3, "histograms", histograms);
        yaml.value(3, "denied", word(Denied::WORDS, &destination.denied));
        yaml.value(3, "timeout", duration(destination.timeout));
        print_access(yaml, 3, &destination.access);
    }
}

fn print_access(yaml: &mut Yaml, depth: usize, access: &Access) {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    yaml.optional(depth, "username", access.username.as_deref());
    yaml.optional(depth, "password_file", path(&access.password_file).as_deref());
    yaml.optional(depth, "bearer_token_file", path(&access.bearer_token_file).as_deref());
    yaml.optional(depth, "ca_file", path(&access.ca_file).as_deref());
    yaml.optional(depth, "cert_file", path(&access.cert_file).as_deref());
    yaml.optional(depth, "key_file", path(&access.key_file).as_deref());
    if access.headers.is_empty() {
        yaml.value(depth, "headers", "{}");
    } else {
        yaml.section(depth, "headers");
        for (name, value) in &access.headers {
            yaml.value(depth + 1, &key(name), quote(value));
        }
    }
}

/// How a value is written.
fn word<T: PartialEq>(words: Words<T>, value: &T) -> &'static str {
    words.iter().find(|(_, other)| other == value).map_or("", |(word, _)| word)
}

#[derive(Default)]
struct Yaml(String);

impl Yaml {
    fn section(&mut self, depth: usize, name: &str) {
        self.line(depth, format_args!("{name}:"));
    }

    fn value(&mut self, depth: usize, name: &str, value: impl Display) {
        self.line(depth, format_args!("{name}: {value}"));
    }

    /// A value that may be absent: written as `null`, so that the reader sees that the key exists.
    fn optional(&mut self, depth: usize, name: &str, value: Option<&str>) {
        self.value(depth, name, value.map_or_else(|| "null".to_owned(), quote));
    }

    fn list(&mut self, depth: usize, name: &str, items: impl IntoIterator<Item = impl AsRef<str>>) {
        let items: Vec<_> = items.into_iter().map(|item| quote(item.as_ref())).collect();
        self.value(depth, name, format_args!("[{}]", items.join(", ")));
    }

    fn line(&mut self, depth: usize, text: impl Display) {
        writeln!(self.0, "{:1$}{text}", "", depth * 2).expect("a String takes all that is written to it");
    }
}

/// A model's name as a key: bare where no reader could take it for anything else.
fn key(name: &str) -> String {
    match name.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c)) {
        true => name.to_owned(),
        false => quote(name),
    }
}

/// A double-quoted scalar: a JSON string is one (YAML 1.2.2, 7.3.1).
fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn duration(duration: Duration) -> String {
    quote(&humantime::format_duration(duration).to_string())
}
