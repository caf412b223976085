//! systemd units and the health of models: `/metrics/services`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Services;

    UNIT_ACTIVE_STATE: Gauge None "node_systemd_unit_state" ["name", "state", "type"]
        "1 for the state of the unit, else 0.";
    UNIT_START_TIME: Gauge Seconds "node_systemd_unit_start_time_seconds" ["name"]
        "When the unit became active last, in seconds since the epoch.";
    UNIT_RESTARTS: Counter(Before) None "node_systemd_service_restart_total" ["name"]
        "Times that systemd has started the service again by itself.";
    UNIT_TASKS: Gauge None "node_systemd_unit_tasks_current" ["name"]
        "Threads of the unit.";
    UNIT_MEMORY: Gauge Bytes "citadel_unit_memory_bytes" ["name"]
        "Memory of the unit's cgroup, page cache included.";
    UNIT_SUB_STATE: Gauge None "citadel_unit_sub_state" ["name", "state"]
        "Always 1; what the unit does within its state, such as running or auto-restart.";
    UNIT_RESULT: Gauge None "citadel_unit_last_result" ["name", "result"]
        "Always 1; how the service's last run ended, such as success, exit-code, signal, oom-kill or timeout.";
    UNIT_LAST_EXIT_STATUS: Gauge None "citadel_unit_last_exit_status" ["name", "how"]
        "With what the service's main process ended last: the exit status where it exited, the signal's number where it was killed or dumped.";
}
