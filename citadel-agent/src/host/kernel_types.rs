//! Where members lie in the running kernel's structs: from its BTF, the kernel's own description of its types
//! (`Documentation/bpf/btf.rst`).
//!
//! Read here, because aya keeps members to itself, and the readers of BTF that there are (btf-rs, libbpf) are under the LGPL
//! and build a model of all of the kernel's 150,000 types in memory, for some offsets.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

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
    /// `sock.sk_lock.owned`.
    pub lock_owned: u32,
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.tgid`.
    pub task_tgid: u32,
    /// `task_struct.__state`; `state` before Linux 5.14.
    pub task_state: u32,
    /// `task_struct.se.sum_exec_runtime`.
    pub task_on_cpu: u32,
}

/// Why a layout is not known.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The BTF cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// It is not as documented.
    #[error("this kernel's BTF is not as documented, at byte {0} of its types")]
    Malformed(usize),
    /// A member is not where it was in all kernels that were looked at.
    #[error("this kernel's struct {name} has no member {member}")]
    Missing {
        /// The struct.
        name: &'static str,
        /// The member.
        member: &'static str,
    },
}

/// What programs are loaded with.
#[derive(Clone, Debug)]
pub struct Types {
    /// Where the members lie.
    pub layout: Layout,
    /// [`outline`] of the BTF.
    pub outline: Vec<u8>,
}

/// Reads the running kernel's types: some 6 MB for as long as it takes.
///
/// # Errors
/// There is no BTF, or a member is not there.
pub fn read(roots: &Roots) -> Result<Types, LayoutError> {
    let path = path(roots);
    let bytes = fs::read(&path).map_err(|error| LayoutError::Read { path: path.display().to_string(), error })?;
    Ok(Types { layout: parse(&bytes)?, outline: outline(&bytes)? })
}

/// The BTF of a little-endian kernel with nothing in it but what programs attach to: functions and typedefs as they are, and an
/// empty type in place of each other one, so that all keep their numbers. Whoever builds a model of it needs half of the
/// memory.
///
/// # Errors
/// It is not as documented.
pub fn outline(btf: &[u8]) -> Result<Vec<u8>, LayoutError> {
    let Sections { strings, .. } = Sections::of(btf)?;
    let mut types = Vec::new();
    walk(btf, |found| {
        let empty = [0, FORWARD << 24, 0].map(u32::to_le_bytes);
        let kept = matches!(found.kind, TYPEDEF | FUNCTION).then(|| &btf[found.at..found.at + HEAD]);
        types.extend_from_slice(kept.unwrap_or(empty.as_flattened()));
    })?;
    let strings = btf.get(strings).ok_or(LayoutError::Malformed(0))?;
    let (header, types_len, strings_len) = (24, types.len() as u32, strings.len() as u32);
    let words = [header, 0, types_len, types_len, strings_len].map(u32::to_le_bytes);
    Ok([&btf[..4], words.as_flattened(), &types, strings].concat())
}

/// Parses the BTF of a little-endian kernel.
///
/// # Errors
/// It is not as documented, or a member is not there.
pub fn parse(btf: &[u8]) -> Result<Layout, LayoutError> {
    let mut places = [
        Place::of("tcp_sock", "copied_seq"),
        Place::of("sock", "sk_lock"),
        // After a spinlock, which is longer with PREEMPT_RT and with lock debugging.
        Place::of("socket_lock_t", "owned"),
        Place::of("task_struct", "pid"),
        Place::of("task_struct", "tgid"),
        Place::of("task_struct", "__state"),
        Place::of("task_struct", "state"),
        Place::of("task_struct", "se"),
        Place::of("sched_entity", "sum_exec_runtime"),
    ];
    find(btf, &mut places)?;
    let [copied_seq, lock, owned, task_pid, task_tgid, state, old_state, entity, on_cpu] = places;
    Ok(Layout {
        copied_seq: copied_seq.found()?,
        lock_owned: lock.found()? + owned.found()?,
        task_pid: task_pid.found()?,
        task_tgid: task_tgid.found()?,
        task_state: state.offset.map_or_else(|| old_state.found(), Ok)?,
        task_on_cpu: entity.found()? + on_cpu.found()?,
    })
}

/// A direct member of a struct, and its offset once it is found.
struct Place {
    /// The struct's, or that of a typedef of one that has none.
    name: &'static str,
    /// The number of the typedef's type, once it is found.
    meant: Option<u32>,
    member: &'static str,
    offset: Option<u32>,
}

impl Place {
    const fn of(name: &'static str, member: &'static str) -> Self {
        Self { name, meant: None, member, offset: None }
    }

    fn found(&self) -> Result<u32, LayoutError> {
        self.offset.ok_or(LayoutError::Missing { name: self.name, member: self.member })
    }
}

/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;
/// `BTF_KIND_FWD`: a struct that is declared only. Nothing follows it.
const FORWARD: u32 = 7;
/// `BTF_KIND_TYPEDEF`.
const TYPEDEF: u32 = 8;
/// `BTF_KIND_FUNC`.
const FUNCTION: u32 = 12;

/// Length of a `struct btf_type`: name, then kind, number of members and a flag, then size or type.
const HEAD: usize = 12;

/// Where types and strings lie.
struct Sections {
    types: Range<usize>,
    strings: Range<usize>,
}

impl Sections {
    /// Reads the header (`struct btf_header`): magic and version, then its own length, then offset and length of types and of
    /// strings.
    fn of(btf: &[u8]) -> Result<Self, LayoutError> {
        let read = || {
            let [length, types, types_len, strings, strings_len] = [4, 8, 12, 16, 20].map(|at| word(btf, at));
            let section = |offset: u32, len: u32| -> Option<Range<usize>> {
                let start = length? as usize + offset as usize;
                Some(start..start + len as usize)
            };
            Some(Self { types: section(types?, types_len?)?, strings: section(strings?, strings_len?)? })
        };
        read().filter(|_| btf.starts_with(&[0x9f, 0xeb])).ok_or(LayoutError::Malformed(0))
    }
}

/// A type's head.
struct Type {
    at: usize,
    /// By which other types refer to it: types count from 1, in the order in which they lie.
    number: u32,
    name: u32,
    kind: u32,
    members: usize,
    flag: bool,
}

fn word(btf: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?))
}

/// Goes through all types.
fn walk(btf: &[u8], mut each: impl FnMut(&Type)) -> Result<(), LayoutError> {
    let Range { start, end } = Sections::of(btf)?.types;
    let (mut at, mut number) = (start, 0);
    while at < end {
        number += 1;
        let malformed = LayoutError::Malformed(at - start);
        let (Some(name), Some(info), Some(_)) = (word(btf, at), word(btf, at + 4), word(btf, at + 8)) else {
            return Err(malformed);
        };
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        each(&Type { at, number, name, kind, members, flag: info >> 31 == 1 });
        // What follows each kind, in the order of their numbers from `BTF_KIND_INT` on.
        at += HEAD
            + match kind {
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => members * 12,
                6 | 13 => members * 8,
                2 | 7..=12 | 16 | 18 => 0,
                _ => return Err(malformed),
            };
    }
    Ok(())
}

/// Finds members of structs.
fn find(btf: &[u8], places: &mut [Place]) -> Result<(), LayoutError> {
    let strings = Sections::of(btf)?.strings.start;
    let is = |offset: u32, name: &str| {
        let text = btf.get(strings + offset as usize..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    };
    walk(btf, |found| {
        if found.kind == TYPEDEF {
            for place in places.iter_mut().filter(|place| is(found.name, place.name)) {
                place.meant = word(btf, found.at + 8);
            }
        }
    })?;
    walk(btf, |found| {
        if found.kind != STRUCT {
            return;
        }
        let is_meant = |place: &&mut Place| place.meant == Some(found.number) || is(found.name, place.name);
        for place in places.iter_mut().filter(is_meant) {
            for member in 0..found.members {
                let entry = found.at + HEAD + member * 12;
                if let (Some(name), Some(bits)) = (word(btf, entry), word(btf, entry + 8))
                    && is(name, place.member)
                {
                    // With the flag, the upper byte is the size of a bit field.
                    place.offset = Some(if found.flag { bits & 0x00ff_ffff } else { bits } / 8);
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use aya::{Btf, Endianness};
    use aya_obj::btf::BtfKind;

    use super::*;

    #[test]
    fn members_of_this_kernel_are_found() {
        let roots = Roots::default();
        if !path(&roots).exists() {
            eprintln!("this kernel has no BTF: nothing to look at");
            return;
        }
        let layout = read(&roots).unwrap().layout;
        assert_eq!(layout.task_tgid, layout.task_pid + 4, "include/linux/sched.h declares them one after the other");
        assert!(
            layout.copied_seq > 0 && layout.task_state < layout.task_on_cpu && layout.task_on_cpu < layout.task_pid
        );
    }

    #[test]
    fn what_programs_attach_to_keeps_its_number_in_the_outline() {
        let roots = Roots::default();
        let Ok(whole) = fs::read(path(&roots)) else {
            eprintln!("this kernel has no BTF: nothing to look at");
            return;
        };
        let outline = outline(&whole).unwrap();
        assert!(outline.len() < whole.len());
        let [whole, outline] = [whole, outline].map(|bytes| Btf::parse(&bytes, Endianness::Little).unwrap());
        for (name, kind) in [
            ("btf_trace_sched_switch", BtfKind::Typedef),
            ("btf_trace_sys_enter", BtfKind::Typedef),
            ("tcp_sendmsg", BtfKind::Func),
            ("__x64_sys_read", BtfKind::Func),
        ] {
            let id = whole.id_by_type_name_kind(name, kind).unwrap();
            assert_eq!(outline.id_by_type_name_kind(name, kind).unwrap(), id, "{name}");
        }
        assert!(whole.id_by_type_name_kind("task_struct", BtfKind::Struct).is_ok());
        assert!(outline.id_by_type_name_kind("task_struct", BtfKind::Struct).is_err(), "nothing attaches to it");
    }

    /// A BTF of these types, each as words, and these strings, the first of which is empty.
    fn btf(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_le_bytes).collect();
        let words = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32].map(u32::to_le_bytes);
        [&[0x9f, 0xeb, 1, 0], words.as_flattened(), &types, strings].concat()
    }

    #[test]
    fn a_struct_without_a_name_is_found_by_its_typedef() {
        let strings = b"\0lock_t\0owned\0int\0other\0";
        let (lock_t, owned, int, other) = (1, 8, 14, 18);
        let number = [int, 1 << 24, 4, 0];
        let nameless = |bits: u32| [0, STRUCT << 24 | 1, 64, owned, 1, bits];
        let typedef = |name: u32, of: u32| [name, TYPEDEF << 24, of];
        let before = btf(&[&number, &nameless(8), &typedef(other, 2), &nameless(320), &typedef(lock_t, 4)], strings);
        let after = btf(&[&number, &typedef(lock_t, 4), &nameless(8), &nameless(320), &typedef(other, 3)], strings);
        for btf in [before, after] {
            let mut places = [Place::of("lock_t", "owned"), Place::of("other", "owned"), Place::of("lock_t", "other")];
            find(&btf, &mut places).unwrap();
            assert_eq!(places.map(|place| place.offset), [Some(40), Some(1), None]);
        }
    }

    #[test]
    fn what_is_cut_or_no_btf_is_an_error() {
        assert!(matches!(parse(b""), Err(LayoutError::Malformed(0))));
        assert!(matches!(parse(b"\x7fELF and more than that"), Err(LayoutError::Malformed(0))));
        let mut header = vec![0x9f, 0xeb, 1, 0];
        for word in [24_u32, 0, 24, 24, 1] {
            header.extend(word.to_le_bytes());
        }
        header.extend([0; 8]);
        assert!(matches!(parse(&header), Err(LayoutError::Malformed(_))), "types that end before their length");
        assert!(matches!(outline(&header), Err(LayoutError::Malformed(_))), "likewise");
    }

    #[test]
    fn without_btf_the_error_names_the_file() {
        let roots = Roots { sys: "/nowhere".into(), ..Roots::default() };
        assert!(read(&roots).unwrap_err().to_string().contains("/nowhere/kernel/btf/vmlinux"));
    }
}
