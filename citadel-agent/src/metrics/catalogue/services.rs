//! systemd units and the health of models: `/metrics/services`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Services;

    UNIT_ACTIVE_STATE: Gauge None "node_systemd_unit_state" ["name", "state", "type"]
        "1 for the current state of the unit, 0 for the others.";
    UNIT_START_TIME: Gauge Seconds "node_systemd_unit_start_time_seconds" ["name"]
        "Time the unit last became active, in seconds since the epoch.";
    UNIT_RESTARTS: Counter(Before) None "node_systemd_service_restart_total" ["name"]
        "Automatic restarts of the service by systemd.";
    UNIT_TASKS: Gauge None "node_systemd_unit_tasks_current" ["name"]
        "Tasks (threads) of the unit.";
    UNIT_MEMORY: Gauge Bytes "citadel_unit_memory_bytes" ["name"]
        "Memory charged to the unit's cgroup, including page cache.";
    UNIT_SUB_STATE: Gauge None "citadel_unit_sub_state" ["name", "state"]
        "Always 1; state is the unit's sub-state, such as running or auto-restart.";
    UNIT_RESULT: Gauge None "citadel_unit_last_result" ["name", "result"]
        "Always 1; result of the service's last run, such as success, exit-code, signal, oom-kill or timeout.";
    UNIT_LAST_EXIT_STATUS: Gauge None "citadel_unit_last_exit_status" ["name", "how"]
        "Exit status of the service's main process when it last exited, or the signal number if it was killed or dumped core.";
}
