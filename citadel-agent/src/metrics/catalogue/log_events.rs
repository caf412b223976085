//! Logs of models: on `/metrics/models`.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Models;

    LOG_MESSAGES: Counter(Start) None "citadel_model_log_messages_total" ["model", "port", "severity"]
        "Journal entries of the model's unit or container, by severity: critical, error, warning, info or debug, parsed from the line or else taken from the journal's priority.";
    LOG_EVENTS: Counter(Start) None "citadel_model_log_events_total" ["model", "port", "event"]
        "Journal entries that report an event: cuda_out_of_memory, nccl_timeout, engine_dead, oom_kill (the kernel killed a process of the model), and those defined in logs.events. Series without a model: xid (an Xid of any GPU), and oom_kill of other processes.";
}
