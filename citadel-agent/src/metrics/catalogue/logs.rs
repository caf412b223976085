//! Sending of logs: on every page.

use super::{Desc, Kind, Section, Since, Unit};

catalogue! {
    Agent;

    LOG_COLLECTED: Counter(Before) None "citadel_log_collected_entries_total" ["destination"]
        "Journal entries selected for a destination since it was first configured, kept across restarts: the sum of acknowledged, rejected, dropped and pending entries.";
    LOG_ENTRIES: Counter(Before) None "citadel_log_entries_total" ["destination", "outcome"]
        "Journal entries by outcome: acknowledged, rejected by the receiver, or dropped because their unit exceeds logs.rate_limit.";
    LOG_PENDING: Gauge None "citadel_log_pending_entries" ["destination"]
        "Journal entries read and not yet acknowledged; further ones wait in the journal.";
    LOG_OLDEST: Gauge Seconds "citadel_log_oldest_pending_seconds" ["destination"]
        "Age of the oldest pending journal entry.";
    LOG_TRUNCATED: Counter(Before) None "citadel_log_truncated_entries_total" ["destination"]
        "Journal entries that were truncated: fields are limited to 256 KiB, entries to 1 MiB.";
    LOG_LOST: Counter(Before) None "citadel_log_journal_lost_entries_total" ["destination"]
        "Journal entries, selected or not, that the journal had deleted before the agent read them. Gaps whose size is unknown count only in citadel_log_journal_lost_seconds_total.";
    LOG_LOST_SECONDS: Counter(Before) Seconds "citadel_log_journal_lost_seconds_total" ["destination"]
        "Time between the last journal entry read and the next one available, summed over the gaps where the journal had deleted entries.";
    LOG_REQUESTS: Counter(Start, beside LOG_COLLECTED) None "citadel_log_requests_total" ["destination", "code"]
        "Requests to a destination by HTTP status code; none if there was no response.";
    LOG_PARKED: Gauge None "citadel_log_parked" ["destination"]
        "1 while the destination is parked: it refused everything and is retried once a minute.";
}
