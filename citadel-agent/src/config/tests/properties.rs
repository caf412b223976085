//! Properties: printing loses nothing, and nothing that can be written makes the reader panic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use citadel_agent_common::calls::CALLS;
use proptest::prelude::*;
use tracing::Level;

use super::OPERATORS;
use crate::config::resolved::probing::{self, HealthEndpoints, Own, Scheme};
use crate::config::resolved::{
    Access, CallForm, Config, DcgmRelease, Ebpf, Endpoints, Gpu, Local, LogFormat, Logs, Models, Remote, RemoteWrite,
    Services, Storage,
};
use crate::config::{parse, print};

fn interval() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1u64..86_400).prop_map(Duration::from_secs),
        (100u64..86_400_000).prop_map(Duration::from_millis),
        (100_000_000u64..86_400_000_000_000).prop_map(Duration::from_nanos),
    ]
}

fn url() -> impl Strategy<Value = String> {
    "https?://([a-z]{1,9}(\\.[a-z]{1,5})?|\\[::1\\]|10\\.0\\.0\\.1)(:[1-9][0-9]{0,3})?(/[a-zA-Z0-9._~%?=&-]{0,20})?"
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,9}[^\\pC\\pZ]\\PC{0,9}"
}

fn path() -> impl Strategy<Value = PathBuf> {
    text().prop_map(|rest| PathBuf::from(format!("/{rest}")))
}

fn gpu() -> impl Strategy<Value = Gpu> {
    let release = prop::option::of(prop::sample::select(vec![DcgmRelease::V4_8, DcgmRelease::V4_9]));
    (any::<[bool; 3]>(), release, interval(), prop::option::of(path())).prop_map(
        |([enabled, pcie_throughput, nvlink_fec], dcgm_compat, sampling_interval, nvml_library)| Gpu {
            enabled,
            sampling_interval,
            dcgm_compat,
            pcie_throughput,
            nvlink_fec,
            nvml_library,
        },
    )
}

prop_compose! {
    /// Distinct ports: the agent's own two, and those of the models.
    fn ports()(mut ports in prop::collection::btree_set(1u16.., 2..40).prop_map(|ports| ports.into_iter().collect::<Vec<_>>()).prop_shuffle())
        (models in prop::collection::vec("[a-zA-Z0-9][a-zA-Z0-9._/:+@-]{0,20}", ports.len() - 2), own in Just(ports.split_off(ports.len() - 2)), ports in Just(ports))
    -> (u16, u16, BTreeMap<u16, String>) {
        let mut names = BTreeSet::new();
        let models = ports.into_iter().zip(models).filter(|(_, name)| names.insert(name.clone())).collect();
        (own[0], own[1], models)
    }
}

fn local(metrics_port: u16, health_check_port: u16) -> BoxedStrategy<Local> {
    let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
    let pages = prop::collection::btree_set("(/[a-zA-Z0-9_~-][a-zA-Z0-9._~-]{0,5}){1,4}", 5)
        .prop_filter("those are taken", |pages| {
            ["/metrics", "/last-hour", "/requests"].into_iter().all(|path| !pages.contains(path))
        })
        .prop_map(|pages| pages.into_iter().collect::<Vec<_>>())
        .prop_shuffle();
    let formats = [LogFormat::Auto, LogFormat::Text, LogFormat::Json];
    let log = (prop::sample::select(levels.to_vec()), prop::sample::select(formats.to_vec()));
    let hosts = prop::collection::btree_set("[a-z0-9-]{1,9}(\\.[a-z0-9-]{1,9}){0,3}", 0..4).prop_map(Vec::from_iter);
    let web = (prop::option::of(path()), hosts);
    (any::<IpAddr>(), web, log, interval(), path(), pages)
        .prop_map(move |(listen_address, web, (log_level, log_format), collection_interval, control_socket, pages)| {
            let (web_config_file, allowed_hosts) = web;
            let [system, gpu, models, storage, services] = pages.try_into().expect("five pages");
            let endpoints = Endpoints { system, gpu, models, storage, services };
            Local {
                listen_address,
                metrics_port,
                health_check_port,
                web_config_file,
                allowed_hosts,
                log_level,
                log_format,
                collection_interval,
                control_socket,
                endpoints,
            }
        })
        // Boxed: strategies that contain all others overflow the stack of a test.
        .boxed()
}

fn remote() -> impl Strategy<Value = Remote> {
    let host = prop_oneof![
        "[a-z0-9-]{1,9}(\\.[a-z0-9-]{1,9}){0,3}".boxed(),
        any::<IpAddr>().prop_map(|ip| ip.to_string()).boxed()
    ];
    let optional = || prop::option::of(url());
    let alertmanagers = prop::collection::btree_set(url(), 0..4).prop_map(Vec::from_iter);
    let alerting = (optional(), optional(), alertmanagers);
    (host, optional(), interval(), interval(), optional(), prop::option::of(text()), alerting).prop_map(
        |(
            dev_ops_server,
            remote_write_url,
            scrape_interval,
            evaluation_interval,
            grafana_url,
            grafana_datasource,
            (alert_manager_url, webhook_url, alertmanagers),
        )| Remote {
            dev_ops_server,
            remote_write_url,
            scrape_interval,
            evaluation_interval,
            grafana_url,
            grafana_datasource,
            alert_manager_url,
            webhook_url,
            alertmanagers,
            alerting_access: Access::default(),
        },
    )
}

fn storage() -> impl Strategy<Value = Storage> {
    let path = || text().prop_map(|rest| PathBuf::from(format!("/{rest}")));
    let program = prop_oneof!["[a-z0-9.-]{1,9}".prop_map(PathBuf::from), path()];
    (program, interval(), prop::collection::btree_set(path(), 0..5), interval()).prop_map(
        |(smartctl, smart_interval, directories, directory_interval)| Storage {
            smartctl,
            smart_interval,
            directories: directories.into_iter().collect(),
            directory_interval,
        },
    )
}

prop_compose! {
    fn own()
        (
            paths in prop::option::of(prop::option::of(prop::collection::btree_set("/[!\"$-~]{0,20}", 0..3))),
            health_interval in prop::option::of(interval()),
            health_timeout in prop::option::of(interval()),
            file in prop::option::of(path()),
            pinned in any::<bool>(),
            api_key_file in prop::option::of(path()),
            server_name in prop::option::of("[a-z]{1,9}"),
            headers in prop::collection::btree_map("x-[a-z]{1,9}", "[a-z]{1,3}[ -~]{0,9}", 0..3),
        )
    -> Own {
        let listed = |paths: Option<BTreeSet<String>>| {
            paths.map_or(HealthEndpoints::Auto, |paths| HealthEndpoints::Listed(paths.into_iter().collect()))
        };
        let (ca_file, certificate_file) = if pinned { (None, file) } else { (file, None) };
        let scheme = if api_key_file.is_some() { Scheme::Https } else { Scheme::Auto };
        let access = probing::Access { scheme, server_name, ca_file, certificate_file, api_key_file, headers };
        Own { health_endpoints: paths.map(listed), health_interval, health_timeout, access }
    }
}

prop_compose! {
    pub(super) fn config()
        ((metrics_port, health_check_port, ports) in ports())
        (
            local in local(metrics_port, health_check_port),
            ports in Just(ports),
            discover in prop::option::of((1u16.., 1u16..).prop_map(|(a, b)| a.min(b)..=a.max(b)))
                .prop_filter("own ports are not discovered", move |discover| discover.as_ref().is_none_or(|range| !range.contains(&metrics_port) && !range.contains(&health_check_port))),
            health_endpoints in prop::collection::btree_set("/[!\"$-~]{0,20}", 0..5),
            ask_for_names in any::<bool>(),
            remote in prop::option::of(remote()),
            [net, recvq, sched, syscalls] in any::<[bool; 4]>(),
            calls in prop::sample::subsequence(CALLS.iter().collect::<Vec<_>>(), 1..=CALLS.len()).prop_shuffle(),
            call_form in prop::sample::select(vec![CallForm::Auto, CallForm::RawTp]),
            (max_connections, cgroup) in (prop::option::of(0..1_000_000u64), prop::option::of(path())),
            gpu in gpu(),
            (health_interval, health_timeout, relay, engine_metrics, auto) in (interval(), interval(), any::<bool>(), any::<bool>(), any::<bool>()),
            own in prop::collection::btree_map("[a-z0-9][a-z0-9._/-]{0,9}", own(), 0..3),
            storage in storage(),
            units in prop::collection::btree_set("[a-z@*?.:_-]{1,20}", 0..5),
        )
    -> Config {
        let health_endpoints =
            if auto { HealthEndpoints::Auto } else { HealthEndpoints::Listed(health_endpoints.into_iter().collect()) };
        let models = Models {
            ports, discover, health_endpoints, health_interval, health_timeout, relay, engine_metrics, ask_for_names, own,
        };
        let services = Services { units: units.into_iter().collect() };
        let alerts = Config::default().alerts;
        let ebpf = Ebpf { net, recvq, sched, syscalls, calls, call_form, max_connections, client_addresses: auto, cgroup };
        Config { local, models, remote, remote_write: RemoteWrite::default(), ebpf, gpu, alerts, storage, services, logs: Logs::default() }
    }
}

/// The operator's file with some bytes replaced: near enough to YAML to reach every reader.
fn mutated() -> impl Strategy<Value = String> {
    let spliced = prop_oneof![
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just("- ".to_owned()),
        Just(": ".to_owned()),
        Just("{".to_owned()),
        Just("*a".to_owned()),
        Just("&a ".to_owned()),
        Just("!!int ".to_owned()),
        Just("\"".to_owned()),
        Just("---\n".to_owned()),
        Just("1e9".to_owned()),
        Just(".nan".to_owned()),
        "\\PC{0,3}",
    ];
    prop::collection::vec((0..OPERATORS.len(), 0usize..12, spliced), 1..8).prop_map(|edits| {
        let mut bytes = OPERATORS.as_bytes().to_vec();
        for (at, removed, inserted) in edits {
            let at = at.min(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, inserted.into_bytes());
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Accepted or refused, but whatever is accepted prints to what is accepted again.
fn holds(text: &str) -> Result<(), TestCaseError> {
    match parse("FILE", text) {
        Ok(config) => prop_assert_eq!(parse("FILE", &print(&config)), Ok(config)),
        Err(errors) => {
            prop_assert!(!errors.mistakes().is_empty());
            // One line a mistake, so that nothing from the file can pass for a line of ours.
            prop_assert_eq!(errors.to_string().lines().count(), errors.mistakes().len().min(101));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn printing_and_parsing_gives_the_same_configuration(config in config()) {
        let text = print(&config);
        prop_assert_eq!(parse("FILE", &text), Ok(config), "{}", text);
    }

    #[test]
    fn no_text_panics(text in any::<String>()) {
        holds(&text)?;
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        holds(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn no_yaml_punctuation_panics(text in "[-:{}\\[\\],&*!|>'\"%@`#? \t\na0]{0,80}") {
        holds(&text)?;
    }

    #[test]
    fn no_edit_of_a_real_file_panics(text in mutated()) {
        holds(&text)?;
    }
}
