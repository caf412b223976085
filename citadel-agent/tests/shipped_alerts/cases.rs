//! What makes each shipped rule fire, and what looks alike and must not.

use super::Does::{Appears, AppearsAndGrows, Grows, Is, IsReadLate, Takes, Then};
use super::{Case, Series, case};

const SECOND: u64 = 1_000_000_000;
const GB: f64 = 1e9;
const ROOT: &str = "fstype=ext4,mountpoint=/";

const REQUESTS: &str = "citadel_model_requests_total";
const ABORTED: &str = "citadel_model_requests_aborted_total";
const SLOWDOWN: &str = "citadel_model_slowdown";
const IN_FLIGHT: Series = ("citadel_model_requests_in_flight", "", Is(1.0));
const WELL_ANSWERED: Series = (REQUESTS, "endpoint=completions,code=200", Grows(0.0, 60.0, 60.0));
const EVENTS: &str = "citadel_model_log_events_total";
const GPU: Series = ("citadel_gpu_up", "", Is(1.0));

pub(super) const CASES: &[Case] = &[
    case(
        "ModelDown",
        &[("citadel_model_up", "", Then(1.0, 0.0)), ("citadel_model_gone", "", Is(0.0))],
        // One is up, one was never there.
        &[
            ("citadel_model_up", "port=1", Is(1.0)),
            ("citadel_model_gone", "port=1", Is(0.0)),
            ("citadel_model_up", "port=2", Is(0.0)),
        ],
    ),
    case("ModelGone", &[("citadel_model_gone", "", Then(0.0, 1.0))], &[("citadel_model_gone", "", Is(0.0))]),
    Case {
        rule: "ModelStalled",
        minutes: 6,
        fires: &[IN_FLIGHT, ("citadel_model_response_bytes_total", "", Grows(0.0, 6000.0, 0.0))],
        // One streams slowly, one is idle.
        does_not: &[
            ("citadel_model_requests_in_flight", "port=1", Is(2.0)),
            ("citadel_model_response_bytes_total", "port=1", Grows(0.0, 6000.0, 60.0)),
            ("citadel_model_requests_in_flight", "port=2", Is(0.0)),
            ("citadel_model_response_bytes_total", "port=2", Grows(0.0, 6000.0, 0.0)),
        ],
    },
    Case {
        rule: "ModelNoTraffic",
        minutes: 31,
        fires: &[IN_FLIGHT, (REQUESTS, "endpoint=completions,code=200", Grows(0.0, 60.0, 0.0))],
        // One request in ten minutes, and a model that nobody has asked for anything but its health.
        does_not: &[
            (REQUESTS, "port=1,endpoint=completions,code=200", Grows(1.0, 0.1, 0.1)),
            (REQUESTS, "port=2,endpoint=health,code=200", Grows(0.0, 60.0, 60.0)),
        ],
    },
    case(
        "ModelRequestHangs",
        &[
            ("citadel_model_longest_wait_seconds", "", Then(0.0, 300.0)),
            ("citadel_model_connections_held_back", "", Is(0.0)),
        ],
        // An old request to which bytes are sent, and a client that does not read.
        &[
            ("citadel_model_longest_wait_seconds", "port=1", Then(0.0, 20.0)),
            ("citadel_model_oldest_request_seconds", "port=1", Then(0.0, 900.0)),
            ("citadel_model_connections_held_back", "port=1", Is(0.0)),
            ("citadel_model_longest_wait_seconds", "port=2", Then(0.0, 300.0)),
            ("citadel_model_connections_held_back", "port=2", Is(1.0)),
        ],
    ),
    case(
        "ModelQueueing",
        &[("citadel_engine_requests_waiting", "reason=capacity", Then(0.0, 8.0))],
        &[("citadel_engine_requests_waiting", "reason=capacity", Is(2.0))],
    ),
    case(
        "ModelStarvedOfCpu",
        &[("citadel_model_runqueue_latency_seconds", "", Takes(SECOND / 10_000, SECOND / 4))],
        &[("citadel_model_runqueue_latency_seconds", "", Takes(SECOND / 1000, SECOND / 50))],
    ),
    Case {
        rule: "ModelNetworkLoss",
        minutes: 6,
        fires: &[
            IN_FLIGHT,
            WELL_ANSWERED,
            ("citadel_model_tcp_retransmits_total", "", Grows(0.0, 0.0, 600.0)),
            ("citadel_model_connections_held_back", "", Is(0.0)),
        ],
        // Clients that do not read.
        does_not: &[
            IN_FLIGHT,
            WELL_ANSWERED,
            ("citadel_model_tcp_retransmits_total", "", Grows(0.0, 0.0, 600.0)),
            ("citadel_model_connections_held_back", "", Is(3.0)),
        ],
    },
    case(
        "ModelUnauthorised",
        &[("citadel_model_state", "state=unauthorised", Then(0.0, 1.0))],
        &[("citadel_model_state", "state=unauthorised", Is(0.0)), ("citadel_model_state", "state=down", Is(1.0))],
    ),
    case(
        "ModelLatencyEncrypted",
        &[
            ("citadel_model_connections_total", "protocol=tls", Grows(0.0, 0.0, 60.0)),
            ("citadel_model_connections_total", "protocol=http2", Is(0.0)),
        ],
        &[
            ("citadel_model_connections_total", "protocol=tls", Is(0.0)),
            ("citadel_model_connections_total", "protocol=http1", Grows(0.0, 60.0, 60.0)),
        ],
    ),
    case(
        "ModelFirstTokenSlow",
        &[("citadel_model_time_to_first_token_seconds", "", Takes(SECOND, 20 * SECOND))],
        &[("citadel_model_time_to_first_token_seconds", "", Takes(SECOND, 6 * SECOND))],
    ),
    case(
        "ModelTokensSlow",
        &[(SLOWDOWN, "latency=inter_token", Then(1.0, 3.0))],
        &[(SLOWDOWN, "latency=inter_token", Then(1.0, 1.8)), (SLOWDOWN, "latency=receive_queue", Then(1.0, 3.0))],
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
            (REQUESTS, "endpoint=models,code=503", AppearsAndGrows(10.0)),
        ],
    },
    case(
        "ModelAbortsRequests",
        &[
            IN_FLIGHT,
            (ABORTED, "side=server,phase=body", Appears(7.0)),
            ("citadel_model_stopped_on_request", "", Is(0.0)),
        ],
        // Few, those of clients, and those of a server that is restarted.
        &[
            IN_FLIGHT,
            (ABORTED, "side=server", Appears(4.0)),
            (ABORTED, "side=client", Appears(100.0)),
            ("citadel_model_stopped_on_request", "", Is(0.0)),
            (ABORTED, "port=1,side=server", Appears(7.0)),
            ("citadel_model_requests_in_flight", "port=1", Is(1.0)),
            ("citadel_model_stopped_on_request", "port=1", Then(0.0, 1.0)),
        ],
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
            (ABORTED, "endpoint=health,side=client,phase=waiting", AppearsAndGrows(50.0)),
        ],
    },
    case(
        "ModelServerLags",
        &[(SLOWDOWN, "latency=receive_queue", Then(1.0, 9.0))],
        &[(SLOWDOWN, "latency=receive_queue", Then(1.0, 3.0)), (SLOWDOWN, "latency=inter_token", Then(1.0, 9.0))],
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
    case("GpuMissing", &[("citadel_gpu_missing", "", Then(0.0, 1.0))], &[("citadel_gpu_missing", "", Is(0.0))]),
    case(
        "GpuFellOffBus",
        &[GPU, ("citadel_gpu_fallen_off_bus_total", "", Appears(1.0))],
        &[GPU, ("citadel_gpu_fallen_off_bus_total", "", Is(0.0))],
    ),
    case(
        "GpuNeedsRecovery",
        &[("citadel_gpu_recovery_action", "action=reset", Then(0.0, 1.0))],
        &[
            ("citadel_gpu_recovery_action", "action=none", Is(1.0)),
            ("citadel_gpu_recovery_action", "action=reset", Is(0.0)),
        ],
    ),
    case(
        "GpuMemoryUnrepairable",
        &[("citadel_gpu_memory_unrepairable", "", Then(0.0, 1.0))],
        &[("citadel_gpu_memory_unrepairable", "", Is(0.0))],
    ),
    case(
        "GpuSramErrors",
        &[("citadel_gpu_sram_ecc_threshold_exceeded", "", Then(0.0, 1.0))],
        // Errors below the threshold.
        &[
            ("citadel_gpu_sram_ecc_threshold_exceeded", "", Is(0.0)),
            ("citadel_gpu_sram_ecc_errors_total", "kind=corrected", Then(4.0, 9.0)),
        ],
    ),
    case(
        "GpuRepairPending",
        &[("citadel_gpu_repair_pending", "repair=channel", Then(0.0, 1.0))],
        &[("citadel_gpu_repair_pending", "repair=channel", Is(0.0))],
    ),
    case(
        "GpuPagesPending",
        &[("citadel_gpu_retired_pages_pending", "", Then(0.0, 1.0))],
        &[
            ("citadel_gpu_retired_pages_pending", "", Is(0.0)),
            ("citadel_gpu_retired_pages", "cause=double_bit", Is(3.0)),
        ],
    ),
    case(
        "GpuLinkRecoveryFailed",
        &[("citadel_gpu_nvlink_recoveries_total", "result=failed", Then(2.0, 3.0))],
        // Failed before, and read late; and a link that recovers.
        &[
            ("citadel_gpu_nvlink_recoveries_total", "link=0,result=failed", IsReadLate(2.0)),
            ("citadel_gpu_nvlink_recoveries_total", "link=1,result=successful", Then(2.0, 3.0)),
        ],
    ),
    case(
        "GpuFabricUnhealthy",
        &[("citadel_gpu_fabric_health", "health=unhealthy", Then(0.0, 1.0))],
        &[("citadel_gpu_fabric_health", "health=healthy", Is(1.0))],
    ),
    case(
        "GpuPcieNarrow",
        &[("citadel_gpu_pcie_link_width", "", Then(16.0, 8.0)), ("citadel_gpu_pcie_link_max_width", "", Is(16.0))],
        &[("citadel_gpu_pcie_link_width", "", Is(16.0)), ("citadel_gpu_pcie_link_max_width", "", Is(16.0))],
    ),
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
        "AgentConfigRefused",
        &[("citadel_config_last_reload_successful", "", Then(1.0, 0.0))],
        &[("citadel_config_last_reload_successful", "", Is(1.0))],
    ),
    case(
        "AgentSourceFails",
        &[("citadel_source_success", "source=nvme", Then(1.0, 0.0))],
        &[("citadel_source_success", "source=nvme", Is(1.0))],
    ),
    case(
        "AgentLosesEvents",
        &[("citadel_events_lost_total", "reason=pipeline_full", Then(0.0, 3.0))],
        &[("citadel_events_lost_total", "reason=trace_full", Then(0.0, 3.0))],
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
    case(
        "ModelOutOfGpuMemory",
        &[(EVENTS, "event=cuda_out_of_memory", Then(0.0, 1.0))],
        &[(EVENTS, "event=slow", Then(0.0, 9.0))],
    ),
    case(
        "ModelNcclTimeout",
        &[(EVENTS, "event=nccl_timeout", Then(0.0, 8.0))],
        &[(EVENTS, "event=engine_dead", Then(0.0, 9.0))],
    ),
    case(
        "ModelEngineDead",
        &[(EVENTS, "event=engine_dead", Then(0.0, 1.0))],
        &[(EVENTS, "event=engine_dead", Is(0.0))],
    ),
    case(
        "ModelOomKilled",
        &[(EVENTS, "event=oom_kill", Then(0.0, 1.0))],
        &[(EVENTS, "event=oom_kill,model=", Then(0.0, 1.0)), (EVENTS, "event=xid,model=", Then(0.0, 1.0))],
    ),
    case(
        "HostOomKill",
        &[(EVENTS, "event=oom_kill,model=", Then(0.0, 1.0))],
        &[(EVENTS, "event=oom_kill", Then(0.0, 1.0)), (EVENTS, "event=xid,model=", Then(0.0, 1.0))],
    ),
    case(
        "XidLogged",
        &[(EVENTS, "event=xid,model=", Then(0.0, 2.0))],
        &[(EVENTS, "event=oom_kill,model=", Then(0.0, 1.0))],
    ),
    case(
        "LogsWait",
        &[("citadel_log_oldest_pending_seconds", "", Then(1.0, 700.0))],
        &[("citadel_log_oldest_pending_seconds", "", Then(1.0, 500.0))],
    ),
    case(
        "LogsLost",
        &[("citadel_log_journal_lost_seconds_total", "", Then(60.0, 3600.0))],
        // What was lost before this agent.
        &[("citadel_log_journal_lost_seconds_total", "", IsReadLate(60.0))],
    ),
    case(
        "ListenOverflows",
        &[("node_netstat_TcpExt_ListenOverflows", "", Grows(5.0, 0.0, 60.0))],
        &[("node_netstat_TcpExt_ListenOverflows", "", Is(5.0))],
    ),
    case(
        "ClockUnsynchronised",
        &[("node_timex_sync_status", "", Then(1.0, 0.0))],
        &[("node_timex_sync_status", "", Is(1.0))],
    ),
];
