//! Messages in the agent's log, with the feature `log`.

/// Writes a message with level DEBUG to the agent's log, with the target `citadel_agent::bpf`. The arguments are
/// integers or literals and must be free of side effects: without the feature `log` they are not evaluated.
#[macro_export]
macro_rules! debug {
    ($format:tt $(, $argument:expr)*) => {{
        #[cfg(feature = "log")]
        aya_log_ebpf::debug!((), target: "citadel_agent::bpf", $format, $($argument),*);
        // Never called, so that the arguments count as used.
        #[cfg(not(feature = "log"))]
        let _ = || { $(let _ = $argument;)* };
    }};
}
