//! Logs on their way: on every page.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Agent;

    LOG_COLLECTED: Counter(Before) None "citadel_log_collected_entries_total" ["destination"]
        "Journal entries chosen for a destination since it was first configured, restarts included: acknowledged, rejected, dropped and pending ones together.";
    LOG_ENTRIES: Counter(Before) None "citadel_log_entries_total" ["destination", "outcome"]
        "What became of them: acknowledged, rejected by the receiver, or dropped because their unit logs more than logs.rate_limit.";
    LOG_PENDING: Gauge None "citadel_log_pending_entries" ["destination"]
        "Entries read and not yet answered for; others wait in the journal.";
    LOG_OLDEST: Gauge Seconds "citadel_log_oldest_pending_seconds" ["destination"]
        "Age of the oldest pending entry.";
    LOG_TRUNCATED: Counter(Before) None "citadel_log_truncated_entries_total" ["destination"]
        "Entries read of which a part was too long: 256 KiB a field, 1 MiB an entry.";
    LOG_LOST: Counter(Before) None "citadel_log_journal_lost_entries_total" ["destination"]
        "Entries of the journal, chosen or not, that it no longer had when they were due; those that it cannot number are only in the seconds.";
    LOG_LOST_SECONDS: Counter(Before) Seconds "citadel_log_journal_lost_seconds_total" ["destination"]
        "Time between the last entry read and the first one left, where entries between them were gone.";
    LOG_REQUESTS: Counter(Start, beside LOG_COLLECTED) None "citadel_log_requests_total" ["destination", "code"]
        "Requests by HTTP status; none where there was no answer.";
    LOG_PARKED: Gauge None "citadel_log_parked" ["destination"]
        "1 while the destination lets nothing in and is tried once a minute.";
}
