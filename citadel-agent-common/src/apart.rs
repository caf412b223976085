//! Padding that separates data written by different CPUs.

/// Two cache lines of padding: Intel CPUs prefetch lines in pairs, so the adjacent line is shared as well. The data
/// before and after it is never in one pair, at any placement of the whole: socket storage starts eight bytes into a
/// line (`struct bpf_local_storage_elem`), so alignment alone would not suffice.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(test, derive(zerocopy::IntoBytes))]
pub struct Apart([u64; 16]);

impl Apart {
    /// The padding.
    pub const NEW: Self = Self([0; 16]);
}
