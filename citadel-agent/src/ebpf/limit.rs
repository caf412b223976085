//! How many connections the programs follow. Pure.

/// Kernel memory per followed connection in bytes: its state and the kernel's overhead, in allocation sizes (measured:
/// docs/overhead.md).
const BYTES: u64 = 1280;

/// Connections without data that may have a note, per followed connection: a note takes a quarter of its memory.
pub(super) const NOTES: u64 = 4;

/// The maximum number of followed connections: as configured, or derived from the limit on the agent's memory in bytes.
#[must_use]
pub(super) fn max_connections(configured: Option<u64>, memory: Option<u64>) -> u64 {
    const UNLIMITED: u64 = 65_536;
    const FEWEST: u64 = 1024;
    // A number above that of possible sockets is no limit.
    const MOST: u64 = 1 << 32;
    let fitting = memory.map_or(UNLIMITED, |bytes| (bytes / 4 / BYTES).clamp(FEWEST, UNLIMITED));
    configured.unwrap_or(fitting).min(MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_take_a_quarter_of_the_memory_limit() {
        assert_eq!(max_connections(None, Some(128 << 20)), (32 << 20) / BYTES);
        assert_eq!(max_connections(None, Some(1 << 20)), 1024, "too little for anything");
        assert_eq!(max_connections(None, None), 65_536);
        assert_eq!(max_connections(None, Some(1 << 40)), 65_536);
        assert_eq!(max_connections(Some(7), Some(128 << 20)), 7);
        assert_eq!(max_connections(Some(u64::MAX), None), 1 << 32);
    }
}
