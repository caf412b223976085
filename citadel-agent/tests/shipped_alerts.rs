//! Every shipped rule in simulated time, minutes after the agent's start: it fires once for what it is made for and stays,
//! however fast pages come and however slow the source is, and it does not fire for what looks alike.

use std::collections::BTreeSet;
use std::time::Duration;

use citadel_agent::alerts::{Engine, Phase, Settings, Texts};
use citadel_agent::config::resolved::Config;
use citadel_agent::config::resolved::alerts::Rule;
use citadel_agent::metrics::catalogue::agent::PROCESS_START;
use citadel_agent::metrics::catalogue::{self, Desc};
use citadel_agent::metrics::family::{Family, LabelValues, Page, Sample, Value};
use citadel_agent_common::hist::Histogram;

/// When the agent starts: 2026-01-01, in seconds.
const START: i64 = 1_767_225_600;

/// What happens does so at this second after the start.
const EVENT: i64 = 180;

/// What a series does.
#[derive(Clone, Copy)]
enum Does {
    /// Has this value.
    Is(f64),
    /// Has the first value until the event, then the second.
    Then(f64, f64),
    /// Is absent until the event, then has this value.
    Appears(f64),
    /// Is absent until the event, then grows by so much a minute.
    AppearsAndGrows(f64),
    /// Is absent until its source is read for the first time, a minute before the event.
    IsReadLate(f64),
    /// Begins at the first value and changes by so much a minute, from the event on by the last.
    Grows(f64, f64, f64),
    /// Observes so many nanoseconds each 5 seconds, from the event on the second.
    Takes(u64, u64),
}

use Does::{Appears, AppearsAndGrows, Grows, Is, IsReadLate, Takes, Then};

impl Does {
    fn at(self, second: i64) -> Option<Value> {
        let happened = second >= EVENT;
        let minutes = |seconds: i64| seconds as f64 / 60.0;
        let value = match self {
            Is(value) => value,
            Then(before, after) => {
                if happened {
                    after
                } else {
                    before
                }
            }
            Appears(value) => happened.then_some(value)?,
            AppearsAndGrows(pace) => happened.then(|| (minutes(second - EVENT) * pace).floor() + 1.0)?,
            IsReadLate(value) => (second >= EVENT - 60).then_some(value)?,
            Grows(from, before, after) => {
                let value = from + minutes(second.min(EVENT)) * before + minutes((second - EVENT).max(0)) * after;
                value.max(0.0)
            }
            Takes(before, after) => {
                let mut histogram = Histogram::EMPTY;
                (0..second / 5).for_each(|i| histogram.observe(if i * 5 < EVENT { before } else { after }));
                return Some(Value::Histogram(Box::new(histogram)));
            }
        };
        Some(Value::Float(value))
    }
}

/// A series: metric, labels as in PromQL without quotes, what it does. Labels that are not named are `x`.
type Series = (&'static str, &'static str, Does);

/// What makes one rule fire within so many minutes (besides its `for`), and what does not.
struct Case {
    rule: &'static str,
    minutes: i64,
    fires: &'static [Series],
    does_not: &'static [Series],
}

const fn case(rule: &'static str, fires: &'static [Series], does_not: &'static [Series]) -> Case {
    Case { rule, minutes: 0, fires, does_not }
}

const SECOND: u64 = 1_000_000_000;
const GB: f64 = 1e9;
const ROOT: &str = "fstype=ext4,mountpoint=/";

const REQUESTS: &str = "citadel_model_requests_total";
const ABORTED: &str = "citadel_model_requests_aborted_total";
const IN_FLIGHT: Series = ("citadel_model_requests_in_flight", "", Is(1.0));
const WELL_ANSWERED: Series = (REQUESTS, "endpoint=completions,code=200", Grows(0.0, 60.0, 60.0));
const GPU: Series = ("citadel_gpu_up", "", Is(1.0));

const CASES: &[Case] = &[
    case("ModelDown", &[("citadel_model_up", "", Then(1.0, 0.0))], &[("citadel_model_up", "", Is(1.0))]),
    case(
        "ModelFirstTokenSlow",
        &[("citadel_model_time_to_first_token_seconds", "", Takes(SECOND, 20 * SECOND))],
        &[("citadel_model_time_to_first_token_seconds", "", Takes(SECOND, 6 * SECOND))],
    ),
    case(
        "ModelTokensSlow",
        &[("citadel_model_inter_token_latency_seconds", "", Takes(SECOND / 50, 2 * SECOND))],
        &[("citadel_model_inter_token_latency_seconds", "", Takes(SECOND / 50, SECOND / 2))],
    ),
    Case {
        rule: "ModelErrors",
        minutes: 2,
        fires: &[IN_FLIGHT, WELL_ANSWERED, (REQUESTS, "endpoint=completions,code=503", AppearsAndGrows(10.0))],
        // Few of many, and what monitoring asks for.
        does_not: &[
            IN_FLIGHT,
            WELL_ANSWERED,
            (REQUESTS, "endpoint=completions,code=503", Appears(4.0)),
            (REQUESTS, "endpoint=health,code=503", AppearsAndGrows(10.0)),
        ],
    },
    case(
        "ModelAbortsRequests",
        &[IN_FLIGHT, (ABORTED, "side=server,phase=body", Appears(7.0))],
        &[IN_FLIGHT, (ABORTED, "side=server", Appears(4.0)), (ABORTED, "side=client", Appears(100.0))],
    ),
    Case {
        rule: "ModelClientsGiveUp",
        minutes: 6,
        fires: &[IN_FLIGHT, WELL_ANSWERED, (ABORTED, "side=client,phase=waiting", AppearsAndGrows(20.0))],
        does_not: &[
            IN_FLIGHT,
            WELL_ANSWERED,
            (ABORTED, "side=client,phase=waiting", AppearsAndGrows(5.0)),
            (ABORTED, "side=client,phase=streaming", AppearsAndGrows(50.0)),
        ],
    },
    case(
        "ModelServerLags",
        &[("citadel_model_receive_queue_seconds", "", Takes(SECOND / 100, 2 * SECOND))],
        &[("citadel_model_receive_queue_seconds", "", Takes(SECOND / 100, SECOND / 2))],
    ),
    case("GpuLost", &[("citadel_gpu_up", "", Then(1.0, 0.0))], &[GPU, ("citadel_gpu_released", "", Is(1.0))]),
    case(
        "GpuHot",
        &[("citadel_gpu_temperature_celsius", "sensor=gpu", Then(60.0, 90.0))],
        &[
            ("citadel_gpu_temperature_celsius", "sensor=gpu", Then(60.0, 87.0)),
            ("citadel_gpu_temperature_celsius", "sensor=memory", Is(94.0)),
        ],
    ),
    case(
        "GpuMemoryHot",
        &[("citadel_gpu_temperature_celsius", "sensor=memory", Then(60.0, 100.0))],
        &[("citadel_gpu_temperature_celsius", "sensor=memory", Then(60.0, 95.0))],
    ),
    case(
        "GpuMemoryFull",
        &[
            ("citadel_gpu_memory_used_bytes", "", Then(72.0 * GB, 79.5 * GB)),
            ("citadel_gpu_memory_total_bytes", "", Is(80.0 * GB)),
        ],
        &[
            ("citadel_gpu_memory_used_bytes", "", Then(0.0, 76.0 * GB)),
            ("citadel_gpu_memory_total_bytes", "", Is(80.0 * GB)),
        ],
    ),
    case(
        "GpuXid",
        &[GPU, ("citadel_gpu_xid_errors_total", "xid=79", Appears(1.0))],
        &[GPU, ("citadel_gpu_xid_errors_total", "xid=31", Appears(1.0))],
    ),
    case(
        "GpuProgramXid",
        &[GPU, ("citadel_gpu_xid_errors_total", "xid=31", Appears(1.0))],
        &[GPU, ("citadel_gpu_xid_errors_total", "xid=79", Appears(1.0))],
    ),
    case(
        "GpuEccUncorrected",
        &[GPU, ("citadel_gpu_ecc_errors_total", "kind=uncorrected", Then(42.0, 43.0))],
        // NVML opens after the first page.
        &[
            GPU,
            ("citadel_gpu_ecc_errors_total", "kind=uncorrected", IsReadLate(42.0)),
            ("citadel_gpu_ecc_errors_total", "kind=corrected", Then(42.0, 43.0)),
        ],
    ),
    case(
        "GpuRowRemapFailed",
        &[("citadel_gpu_remapped_rows", "kind=failure", Then(0.0, 1.0))],
        &[
            ("citadel_gpu_remapped_rows", "kind=failure", Is(0.0)),
            ("citadel_gpu_remapped_rows", "kind=pending", Is(1.0)),
        ],
    ),
    Case {
        rule: "GpuThrottled",
        minutes: 3,
        fires: &[("citadel_gpu_throttle_seconds_total", "reason=hw_slowdown", Grows(5000.0, 0.0, 30.0))],
        does_not: &[
            ("citadel_gpu_throttle_seconds_total", "reason=hw_slowdown", Grows(5000.0, 0.0, 3.0)),
            ("citadel_gpu_throttle_seconds_total", "reason=sw_thermal_slowdown", IsReadLate(9000.0)),
            ("citadel_gpu_throttle_seconds_total", "reason=sw_power_cap", Grows(0.0, 60.0, 60.0)),
        ],
    },
    case(
        "HostMemoryLow",
        &[
            ("node_memory_MemAvailable_bytes", "", Then(100.0 * GB, 3.0 * GB)),
            ("node_memory_MemTotal_bytes", "", Is(128.0 * GB)),
        ],
        &[
            ("node_memory_MemAvailable_bytes", "", Then(100.0 * GB, 10.0 * GB)),
            ("node_memory_MemTotal_bytes", "", Is(128.0 * GB)),
        ],
    ),
    case(
        "FilesystemFull",
        &[
            ("node_filesystem_avail_bytes", ROOT, Then(50.0 * GB, 3.0 * GB)),
            ("node_filesystem_size_bytes", ROOT, Is(100.0 * GB)),
        ],
        &[
            ("node_filesystem_avail_bytes", ROOT, Then(50.0 * GB, 6.0 * GB)),
            ("node_filesystem_size_bytes", ROOT, Is(100.0 * GB)),
            ("node_filesystem_avail_bytes", "fstype=squashfs,mountpoint=/snap", Is(0.0)),
            ("node_filesystem_size_bytes", "fstype=squashfs,mountpoint=/snap", Is(GB)),
        ],
    ),
    Case {
        rule: "FilesystemFillsUp",
        minutes: 4,
        fires: &[
            ("node_filesystem_avail_bytes", ROOT, Grows(24.0 * GB, 0.0, -0.3 * GB)),
            ("node_filesystem_size_bytes", ROOT, Is(100.0 * GB)),
        ],
        does_not: &[
            ("node_filesystem_avail_bytes", ROOT, Grows(24.0 * GB, 0.0, -0.03 * GB)),
            ("node_filesystem_size_bytes", ROOT, Is(100.0 * GB)),
        ],
    },
    case(
        "FilesystemInodesFull",
        &[("node_filesystem_files_free", ROOT, Then(5e5, 1e4)), ("node_filesystem_files", ROOT, Is(1e6))],
        // btrfs has no number of inodes, and says 0.
        &[
            ("node_filesystem_files_free", ROOT, Then(5e5, 6e4)),
            ("node_filesystem_files", ROOT, Is(1e6)),
            ("node_filesystem_files_free", "fstype=btrfs,mountpoint=/b", Is(0.0)),
            ("node_filesystem_files", "fstype=btrfs,mountpoint=/b", Is(0.0)),
        ],
    ),
    case(
        "FilesystemReadOnly",
        &[("node_filesystem_readonly", ROOT, Then(0.0, 1.0))],
        &[("node_filesystem_readonly", ROOT, Is(0.0)), ("node_filesystem_readonly", "fstype=iso9660", Is(1.0))],
    ),
    case(
        "FilesystemDoesNotAnswer",
        &[("node_filesystem_device_error", ROOT, Then(0.0, 1.0))],
        &[("node_filesystem_device_error", ROOT, Is(0.0))],
    ),
    case(
        "DiskUnhealthy",
        &[("citadel_smart_healthy", "device=sda", Then(1.0, 0.0))],
        &[("citadel_smart_healthy", "device=sda", Is(1.0))],
    ),
    case(
        "DiskMediaErrors",
        &[("citadel_smart_media_errors_total", "device=sda", Then(7.0, 8.0))],
        // Read late, and exchanged.
        &[
            ("citadel_smart_media_errors_total", "device=sda", IsReadLate(7.0)),
            ("citadel_smart_media_errors_total", "device=sdb", Then(7.0, 3.0)),
        ],
    ),
    case(
        "DiskPendingSectors",
        &[("citadel_smart_pending_sectors", "device=sda", Then(0.0, 8.0))],
        &[("citadel_smart_pending_sectors", "device=sda", Is(0.0))],
    ),
    case(
        "DiskWornOut",
        &[("citadel_smart_used_ratio", "device=sda", Then(0.89, 0.9))],
        &[("citadel_smart_used_ratio", "device=sda", Is(0.89))],
    ),
    case(
        "RaidDegraded",
        &[
            ("node_md_disks", "device=md0,state=active", Then(2.0, 1.0)),
            ("node_md_disks_required", "device=md0", Is(2.0)),
        ],
        &[
            ("node_md_disks", "device=md0,state=active", Is(2.0)),
            ("node_md_disks", "device=md0,state=spare", Is(0.0)),
            ("node_md_disks_required", "device=md0", Is(2.0)),
        ],
    ),
    case(
        "ServiceFailed",
        &[("node_systemd_unit_state", "name=a,state=failed", Then(0.0, 1.0))],
        &[
            ("node_systemd_unit_state", "name=a,state=failed", Is(0.0)),
            ("node_systemd_unit_state", "name=a,state=inactive", Is(1.0)),
        ],
    ),
    case(
        "ServiceRestarts",
        &[("node_systemd_service_restart_total", "name=a", Then(4.0, 7.0))],
        // Restarted by hand, which sets it to 0, and then twice by itself; and one that appears.
        &[
            ("node_systemd_service_restart_total", "name=a", Then(9.0, 2.0)),
            ("node_systemd_service_restart_total", "name=b", IsReadLate(9.0)),
        ],
    ),
    case(
        "AgentProbeBroken",
        &[("citadel_probe_status", "status=broken", Appears(1.0))],
        &[("citadel_probe_status", "status=unsupported", Appears(1.0))],
    ),
    case(
        "AgentSourceFails",
        &[("citadel_source_success", "source=nvme", Then(1.0, 0.0))],
        &[("citadel_source_success", "source=nvme", Is(1.0))],
    ),
    case(
        "AgentLosesEvents",
        &[("citadel_events_lost_total", "reason=pipeline_full", Then(0.0, 3.0))],
        &[("citadel_events_lost_total", "reason=pipeline_full", Is(0.0))],
    ),
    Case {
        rule: "RemoteWriteBehind",
        minutes: 11,
        fires: &[("citadel_remote_write_oldest_pending_seconds", "", Grows(10.0, 0.0, 60.0))],
        does_not: &[("citadel_remote_write_oldest_pending_seconds", "", Then(10.0, 500.0))],
    },
    case(
        "RemoteWriteLosesSamples",
        &[
            ("citadel_remote_write_collected_samples_total", "", Is(1e6)),
            ("citadel_remote_write_samples_total", "outcome=dropped", Appears(500.0)),
        ],
        // What an earlier agent lost, and what arrived.
        &[
            ("citadel_remote_write_collected_samples_total", "", IsReadLate(1e6)),
            ("citadel_remote_write_samples_total", "outcome=dropped", IsReadLate(500.0)),
            ("citadel_remote_write_samples_total", "outcome=acknowledged", Grows(0.0, 100.0, 100.0)),
        ],
    ),
    case(
        "AlertsWait",
        &[("citadel_alert_notifications_pending", "", Then(0.0, 3.0))],
        &[("citadel_alert_notifications_pending", "", Is(0.0))],
    ),
];

/// How pages come: each so many seconds, with what the source read at the last multiple of so many.
#[derive(Clone, Copy, Debug)]
struct Pace {
    interval: i64,
    source: i64,
}

const PACES: [Pace; 4] = [
    Pace { interval: 1, source: 1 },
    Pace { interval: 15, source: 15 },
    Pace { interval: 15, source: 60 },
    Pace { interval: 60, source: 60 },
];

fn desc(name: &str) -> &'static Desc {
    catalogue::all().find(|desc| desc.name == name).unwrap_or_else(|| panic!("{name}"))
}

fn page(series: &[Series], second: i64) -> Page {
    let mut page = Page::default();
    page.add(&PROCESS_START, [], Value::Integer(START.try_into().unwrap()));
    for (name, labels, does) in series {
        let Some(value) = does.at(second) else { continue };
        let desc = desc(name);
        let named: Vec<_> = labels.split(',').filter_map(|label| label.split_once('=')).collect();
        let value_of = |label: &&str| named.iter().find(|(name, _)| name == label).map_or("x", |(_, value)| value);
        assert!(named.iter().all(|(name, _)| desc.labels.contains(name)), "{name}{{{labels}}}");
        let sample =
            Sample { labels: desc.labels.iter().map(|label| value_of(label).into()).collect::<LabelValues>(), value };
        match page.families.iter_mut().find(|family| family.desc.name == desc.name) {
            Some(family) => family.samples.push(sample),
            None => page.families.push(Family { desc, samples: vec![sample] }),
        }
    }
    page
}

fn rule(name: &str) -> Rule {
    Config::default().alerts.rules.into_iter().find(|rule| rule.name == name).unwrap_or_else(|| panic!("{name}"))
}

fn seconds(duration: Duration) -> i64 {
    duration.as_secs().try_into().unwrap()
}

/// From when to when the rule fires, in seconds after the start, until long after the event.
fn firing(rule: &Rule, series: &[Series], pace: Pace) -> Vec<(i64, i64)> {
    let settings = Settings {
        rules: vec![rule.clone()],
        interval: Duration::from_secs(pace.interval.unsigned_abs()),
        settling: Duration::ZERO,
        labels: Texts::new(),
        generator_url: None,
    };
    let mut engine = Engine::new(settings, vec![], START * 1000, START * 1000);
    let mut periods: Vec<(i64, i64)> = Vec::new();
    let end = EVENT + seconds(rule.hold) + 2400;
    // The first page comes a moment after the start.
    for second in (1..end).step_by(pace.interval.unsigned_abs().try_into().unwrap()) {
        engine.evaluate(&page(series, second / pace.source * pace.source), (START + second) * 1000);
        if engine.alerts().any(|alert| matches!(alert.phase, Phase::Firing { .. })) {
            match periods.last_mut() {
                Some((_, until)) if *until == second - pace.interval => *until = second,
                _ => periods.push((second, second)),
            }
        }
    }
    periods
}

#[test]
fn there_is_a_case_for_every_shipped_rule() {
    let shipped: BTreeSet<_> = Config::default().alerts.rules.into_iter().map(|rule| rule.name).collect();
    let tried: BTreeSet<_> = CASES.iter().map(|case| case.rule.to_owned()).collect();
    assert_eq!(shipped, tried);
    assert_eq!(CASES.len(), shipped.len());
}

#[test]
fn every_rule_fires_once_and_stays_in_the_first_minutes_of_the_agent() {
    let mut wrong = Vec::new();
    for (case, pace) in CASES.iter().flat_map(|case| PACES.map(|pace| (case, pace))) {
        let rule = rule(case.rule);
        // An observation comes each 5 seconds.
        let (hold, late) = (seconds(rule.hold), pace.interval + pace.source + 5);
        let (earliest, latest) = (EVENT + hold, EVENT + hold + case.minutes * 60 + late);
        let periods = firing(&rule, case.fires, pace);
        let is_right = |&(from, until): &(i64, i64)| (earliest..=latest).contains(&from) && until - from >= 600 - late;
        if periods.len() != 1 || !periods.iter().all(is_right) {
            wrong.push(format!("{}, {pace:?}: {periods:?}, to begin from {earliest} to {latest}", case.rule));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_rule_fires_for_what_looks_alike() {
    for (case, pace) in CASES.iter().flat_map(|case| PACES.map(|pace| (case, pace))) {
        assert_eq!(firing(&rule(case.rule), case.does_not, pace), [], "{}, {pace:?}", case.rule);
    }
}
