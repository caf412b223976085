//! Keeping apart what different CPUs write.

/// Two cache lines of nothing: Intel's CPUs prefetch lines by pairs, so that a neighbour is as good as shared. What lies
/// before it and what lies after it are never in one pair, wherever the whole is placed: socket storage begins eight bytes
/// into a line (`struct bpf_local_storage_elem`), so alignment alone would not do.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Apart([u64; 16]);

impl Apart {
    /// It.
    pub const NEW: Self = Self([0; 16]);
}
