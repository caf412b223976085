//! Lines for the agent's log, with the feature `log`.

/// Writes a line at level DEBUG to the agent's log, under the target `citadel_agent::bpf`. The arguments are integers or
/// literals, and each of them must be free of side effects: without the feature `log` nothing is left of them.
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
