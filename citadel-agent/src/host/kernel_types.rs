//! Where members lie in the running kernel's structs: from its BTF, the kernel's own description of its types.

use std::path::PathBuf;

use btf_rs::{Btf, Type};

use super::Roots;

/// The running kernel's BTF.
#[must_use]
pub fn path(roots: &Roots) -> PathBuf {
    roots.sys.join("kernel/btf/vmlinux")
}

/// Offsets in bytes of the members that programs read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// `tcp_sock.copied_seq`.
    pub copied_seq: u32,
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.__state`; `state` before Linux 5.14.
    pub task_state: u32,
}

/// Why a layout is not known.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The BTF cannot be read or parsed.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: btf_rs::Error,
    },
    /// A member is not where it was in all kernels that were looked at.
    #[error("this kernel's struct {name} has no member {member}")]
    Missing {
        /// The struct.
        name: &'static str,
        /// The member.
        member: &'static str,
    },
}

/// Reads the running kernel's layout. Costs some 20 MB for as long as it takes.
///
/// # Errors
/// There is no BTF, or a member is not there.
pub fn read(roots: &Roots) -> Result<Layout, LayoutError> {
    let path = path(roots);
    let btf = Btf::from_file(&path).map_err(|error| LayoutError::Read { path: path.display().to_string(), error })?;
    let task_state = offset(&btf, "task_struct", "__state").or_else(|_| offset(&btf, "task_struct", "state"))?;
    Ok(Layout {
        copied_seq: offset(&btf, "tcp_sock", "copied_seq")?,
        task_pid: offset(&btf, "task_struct", "pid")?,
        task_tgid: offset(&btf, "task_struct", "tgid")?,
        task_state,
    })
}

/// The offset of a direct member of a struct.
fn offset(btf: &Btf, name: &'static str, member: &'static str) -> Result<u32, LayoutError> {
    let types = btf.resolve_types_by_name(name).unwrap_or_default();
    types
        .iter()
        .filter_map(|found| match found {
            Type::Struct(found) => Some(&found.members),
            _ => None,
        })
        .flatten()
        .find(|found| btf.resolve_name(*found).is_ok_and(|name| name == member))
        .map(|found| found.bit_offset() / 8)
        .ok_or(LayoutError::Missing { name, member })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_this_kernel_are_found() {
        let roots = Roots::default();
        if !path(&roots).exists() {
            eprintln!("this kernel has no BTF: nothing to look at");
            return;
        }
        let layout = read(&roots).unwrap();
        assert_eq!(layout.task_tgid, layout.task_pid + 4, "include/linux/sched.h declares them one after the other");
        assert!(layout.copied_seq > 0 && layout.task_state < layout.task_pid);
    }

    #[test]
    fn without_btf_the_error_names_the_file() {
        let roots = Roots { sys: "/nowhere".into(), ..Roots::default() };
        assert!(read(&roots).unwrap_err().to_string().contains("/nowhere/kernel/btf/vmlinux"));
    }
}
