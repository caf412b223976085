//! Offsets of members in the running kernel's structs, from its BTF (`Documentation/bpf/btf.rst`).
//!
//! Parsed here because aya does not expose members, and the existing BTF parsers (btf-rs, libbpf) are under the LGPL
//! and build a model of all 150,000 types of the kernel in memory.

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use super::Roots;
use super::files::read_whole;

/// Path of the running kernel's BTF.
#[must_use]
pub(crate) fn path(roots: &Roots) -> PathBuf {
    roots.sys.join("kernel/btf/vmlinux")
}

/// Offsets in bytes of the members that programs read. All 0: not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Layout {
    /// `tcp_sock.copied_seq`.
    pub(crate) copied_seq: u32,
    /// `sock.sk_lock.owned`.
    pub(crate) lock_owned: u32,
    /// `sock.skc_daddr`.
    pub(crate) peer_v4: u32,
    /// `sock.skc_v6_daddr`; 0 if the kernel has no IPv6.
    pub(crate) peer_v6: u32,
    /// `sock.skc_dport`.
    pub(crate) peer_port: u32,
    /// `sock.skc_family`.
    pub(crate) sock_family: u32,
    /// `task_struct.pid`.
    pub(crate) task_pid: u32,
    /// `task_struct.tgid`.
    pub(crate) task_tgid: u32,
    /// `task_struct.__state`; `state` before Linux 5.14.
    pub(crate) task_state: u32,
    /// `task_struct.se.sum_exec_runtime`.
    pub(crate) task_on_cpu: u32,
}

/// Why a layout is unknown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LayoutError {
    /// The BTF cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// Path of the file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// The BTF is malformed, at this offset.
    #[error("this kernel's BTF has an unexpected format at byte {0} of its types")]
    Malformed(usize),
    /// A member is not where it was in all tested kernels.
    #[error("this kernel's struct {name} has no member {member}")]
    Missing {
        /// The struct.
        name: &'static str,
        member: &'static str,
    },
}

/// Ten times the size of a distribution kernel's BTF.
const MAX_BTF: usize = 64 << 20;

/// The types needed to load programs.
#[derive(Clone, Debug)]
pub(crate) struct Types {
    /// Offsets of the members.
    pub(crate) layout: Layout,
    /// [`outline`] of the BTF.
    pub(crate) outline: Vec<u8>,
}

/// Reads the running kernel's types; temporarily uses about 8 MB.
///
/// # Errors
/// There is no BTF, or a member is missing.
pub(crate) fn read(roots: &Roots) -> Result<Types, LayoutError> {
    let path = path(roots);
    let bytes =
        read_whole(&path, MAX_BTF).map_err(|error| LayoutError::Read { path: path.display().to_string(), error })?;
    Ok(Types { layout: parse(&bytes)?, outline: outline(&bytes)? })
}

/// What programs attach to: types of this kind whose names start so. Of tracepoints, system calls on x86-64, and iterators.
const ATTACHED: [(u32, &[u8]); 3] = [(TYPEDEF, b"btf_trace_"), (FUNCTION, b"__x64_sys_"), (FUNCTION, b"bpf_iter_")];

/// Reduces the BTF of a little-endian kernel to what programs attach to: every other type becomes an empty one, so that type
/// IDs stay the same, and names that are not needed are left out. A parser then needs a third of the memory.
///
/// # Errors
/// The BTF is malformed.
pub(crate) fn outline(btf: &[u8]) -> Result<Vec<u8>, LayoutError> {
    const HEADER: usize = 24;
    let Sections { types, strings } = Sections::of(btf)?;
    let names = btf.get(strings).ok_or(LayoutError::Malformed(0))?;
    let mut reduced = Vec::with_capacity(HEADER + types.len() / 2);
    reduced.resize(HEADER, 0);
    let (mut last, mut kept) = (HEADER, vec![0]);
    walk(btf, |found| {
        let rest = names.get(found.name as usize..).unwrap_or_default();
        let mut type_words = [0, FORWARD << 24, 0];
        if ATTACHED.iter().any(|(kind, prefix)| found.kind == *kind && rest.starts_with(prefix)) {
            let name = rest.split_inclusive(|&byte| byte == 0).next().unwrap_or_default();
            type_words = [kept.len() as u32, found.kind << 24, word(btf, found.at + 8).unwrap_or_default()];
            kept.extend_from_slice(name);
            last = reduced.len() + HEAD;
        }
        reduced.extend_from_slice(type_words.map(u32::to_le_bytes).as_flattened());
    })?;
    reduced.truncate(last);
    let (types_len, strings_len) = ((reduced.len() - HEADER) as u32, kept.len() as u32);
    reduced[..4].copy_from_slice(&btf[..4]);
    let words = [HEADER as u32, 0, types_len, types_len, strings_len].map(u32::to_le_bytes);
    reduced[4..HEADER].copy_from_slice(words.as_flattened());
    reduced.extend_from_slice(&kept);
    Ok(reduced)
}

/// Parses the BTF of a little-endian kernel.
///
/// # Errors
/// The BTF is malformed, or a member is missing.
pub(crate) fn parse(btf: &[u8]) -> Result<Layout, LayoutError> {
    let mut members = [
        Member::of("tcp_sock", "copied_seq"),
        Member::of("sock", "sk_lock"),
        // After a spinlock, which is longer with PREEMPT_RT and with lock debugging, or before it, as Linux 7.x has it.
        Member::of("socket_lock_t", "owned"),
        Member::of("sock", "__sk_common"),
        Member::of("sock_common", "skc_daddr"),
        Member::of("sock_common", "skc_v6_daddr"),
        Member::of("sock_common", "skc_dport"),
        Member::of("sock_common", "skc_family"),
        Member::of("task_struct", "pid"),
        Member::of("task_struct", "tgid"),
        Member::of("task_struct", "__state"),
        Member::of("task_struct", "state"),
        Member::of("task_struct", "se"),
        Member::of("sched_entity", "sum_exec_runtime"),
    ];
    find(btf, &mut members)?;
    let [copied_seq, lock, owned, common, v4, v6, port, family, task_pid, task_tgid, state, old_state, entity, on_cpu] =
        members;
    let common = common.found()?;
    Ok(Layout {
        copied_seq: copied_seq.found()?,
        lock_owned: lock.found()? + owned.found()?,
        peer_v4: common + v4.found()?,
        peer_v6: v6.offset.map_or(0, |v6| common + v6),
        peer_port: common + port.found()?,
        sock_family: common + family.found()?,
        task_pid: task_pid.found()?,
        task_tgid: task_tgid.found()?,
        task_state: state.offset.map_or_else(|| old_state.found(), Ok)?,
        task_on_cpu: entity.found()? + on_cpu.found()?,
    })
}

/// A member of a struct, and its offset once found.
struct Member {
    /// The struct's, or that of a typedef of one.
    name: &'static str,
    /// Name of the member, which can also be in an anonymous struct or union within it (C11, section 6.7.2.1, paragraph
    /// 13).
    member: &'static str,
    offset: Option<u32>,
}

impl Member {
    const fn of(name: &'static str, member: &'static str) -> Self {
        Self { name, member, offset: None }
    }

    fn found(&self) -> Result<u32, LayoutError> {
        self.offset.ok_or(LayoutError::Missing { name: self.name, member: self.member })
    }
}

/// `BTF_KIND_STRUCT`.
const STRUCT: u32 = 4;
/// `BTF_KIND_UNION`.
const UNION: u32 = 5;
/// `BTF_KIND_FWD`: a forward declaration. No data follows.
const FORWARD: u32 = 7;
/// `BTF_KIND_TYPEDEF`.
const TYPEDEF: u32 = 8;
/// `BTF_KIND_FUNC`.
const FUNCTION: u32 = 12;

/// Length of a `struct btf_type`: name, then kind, number of members and a flag, then size or type.
const HEAD: usize = 12;

/// Offsets of types and strings.
struct Sections {
    types: Range<usize>,
    strings: Range<usize>,
}

impl Sections {
    /// Reads the header (`struct btf_header`): magic and version, its length, then offset and length of types and of
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
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    kind: u32,
    members: usize,
    flag: bool,
}

impl Type {
    /// The type at this offset.
    fn at(btf: &[u8], at: usize) -> Option<Self> {
        let [name, info, _] = [word(btf, at)?, word(btf, at + 4)?, word(btf, at + 8)?];
        let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        Some(Self { at, name, kind, members, flag: info >> 31 == 1 })
    }
}

fn word(btf: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(btf.get(at..at + 4)?.try_into().ok()?))
}

/// Iterates over all types.
fn walk(btf: &[u8], mut each: impl FnMut(&Type)) -> Result<(), LayoutError> {
    let Range { start, end } = Sections::of(btf)?.types;
    let mut at = start;
    while at < end {
        let malformed = LayoutError::Malformed(at - start);
        let Some(found) = Type::at(btf, at) else { return Err(malformed) };
        each(&found);
        let Type { kind, members, .. } = found;
        // The size of the data after each kind, in the order of kinds starting with `BTF_KIND_INT`.
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

/// Finds members of structs; if several structs have the same name, in the first one that has the member.
fn find(btf: &[u8], members: &mut [Member]) -> Result<(), LayoutError> {
    let mut places = Vec::new();
    walk(btf, |found| places.push(found.at as u32))?;
    let types = All { btf, strings: Sections::of(btf)?.strings.start, places };
    walk(btf, |found| {
        if !matches!(found.kind, STRUCT | TYPEDEF) {
            return;
        }
        for wanted in members.iter_mut().filter(|wanted| wanted.offset.is_none() && types.is(found.name, wanted.name)) {
            let meant = if found.kind == STRUCT { Some(*found) } else { types.numbered(word(btf, found.at + 8)) };
            wanted.offset = meant.and_then(|holder| types.member(&holder, wanted.member, NESTED)).map(|bits| bits / 8);
        }
    })
}

/// Maximum nesting of anonymous structs and unions; the kernel has a few levels.
const NESTED: u32 = 8;

/// All types of a BTF, for looking up types by ID.
struct All<'a> {
    btf: &'a [u8],
    /// Start of the strings.
    strings: usize,
    /// Where each type is.
    places: Vec<u32>,
}

impl All<'_> {
    /// Whether the string at this offset is `name`.
    fn is(&self, offset: u32, name: &str) -> bool {
        let text = self.btf.get(self.strings + offset as usize..).unwrap_or_default();
        text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The type with this ID: IDs count from 1, in file order.
    fn numbered(&self, number: Option<u32>) -> Option<Type> {
        Type::at(self.btf, *self.places.get(number?.checked_sub(1)? as usize)? as usize)
    }

    /// The offset of a member in a struct or union, in bits.
    fn member(&self, holder: &Type, member: &str, depth: u32) -> Option<u32> {
        if !matches!(holder.kind, STRUCT | UNION) {
            return None;
        }
        (0..holder.members).find_map(|index| {
            let entry = holder.at + HEAD + index * 12;
            let [name, number, bits] = [word(self.btf, entry)?, word(self.btf, entry + 4)?, word(self.btf, entry + 8)?];
            // With the flag, the upper byte is the size of a bit field.
            let bits = if holder.flag { bits & 0x00ff_ffff } else { bits };
            if self.is(name, member) {
                return Some(bits);
            }
            let inner = if name == 0 && depth > 0 { self.numbered(Some(number))? } else { return None };
            Some(bits + self.member(&inner, member, depth - 1)?)
        })
    }
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
            assert!(matches!(read(&roots), Err(LayoutError::Read { .. })), "a kernel without BTF has no layout");
            return;
        }
        let layout = read(&roots).unwrap().layout;
        assert_eq!(layout.task_tgid, layout.task_pid + 4, "include/linux/sched.h declares them one after the other");
        assert_eq!(layout.peer_v4, 0, "include/net/sock.h: the first member");
        assert!(layout.peer_port < layout.sock_family && layout.sock_family < layout.peer_v6);
        assert!(
            layout.copied_seq > 0 && layout.task_state < layout.task_on_cpu && layout.task_on_cpu < layout.task_pid
        );
    }

    #[test]
    fn what_programs_attach_to_keeps_its_number_in_the_outline() {
        // int, struct task_struct { int task_struct; }, a function's type, two functions, a typedef.
        let strings = b"\0int\0task_struct\0tcp_sendmsg\0btf_trace_sched_switch\0__x64_sys_read\0";
        let (int, task_struct, tcp_sendmsg, sched_switch, read) = (1, 5, 17, 29, 52);
        let made = btf(
            &[
                &[int, 1 << 24, 4, 32],
                &[task_struct, STRUCT << 24 | 1, 4, task_struct, 1, 0],
                &[0, 13 << 24, 1],
                &[tcp_sendmsg, FUNCTION << 24, 3],
                &[read, FUNCTION << 24, 3],
                &[sched_switch, TYPEDEF << 24, 1],
                &[int, 1 << 24, 4, 32],
            ],
            strings,
        );
        // And those of this kernel, where it has any.
        let own = read_whole(&path(&Roots::default()), MAX_BTF).ok();
        for whole in [Some(made), own].into_iter().flatten() {
            let outline = outline(&whole).unwrap();
            assert!(outline.len() < whole.len());
            let [whole, outline] = [whole, outline].map(|bytes| Btf::parse(&bytes, Endianness::Little).unwrap());
            for (name, kind) in [("btf_trace_sched_switch", BtfKind::Typedef), ("__x64_sys_read", BtfKind::Func)] {
                let id = whole.id_by_type_name_kind(name, kind).unwrap();
                assert_eq!(outline.id_by_type_name_kind(name, kind).unwrap(), id, "{name}");
            }
            for (name, kind) in [("task_struct", BtfKind::Struct), ("tcp_sendmsg", BtfKind::Func)] {
                assert!(whole.id_by_type_name_kind(name, kind).is_ok());
                assert!(outline.id_by_type_name_kind(name, kind).is_err(), "nothing attaches to {name}");
            }
        }
    }

    /// A BTF of these types, each as words, and these strings, the first of which is empty.
    fn btf(types: &[&[u32]], strings: &[u8]) -> Vec<u8> {
        let types: Vec<u8> = types.concat().into_iter().flat_map(u32::to_le_bytes).collect();
        let words = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32].map(u32::to_le_bytes);
        [&[0x9f, 0xeb, 1, 0], words.as_flattened(), &types, strings].concat()
    }

    /// `socket_lock_t` up to 6.x, and as 7.x has it: `owned` in a struct, that in a union, and neither with a member's name.
    #[test]
    fn members_are_found_by_typedefs_and_in_what_has_no_name() {
        let strings = b"\0lock_t\0owned\0int\0other\0inner\0";
        let (lock_t, owned, int, other, inner) = (1, 8, 14, 18, 24);
        let number = [int, 1 << 24, 4, 0];
        let holder =
            |name: u32, kind: u32, member: u32, of: u32, bits: u32| [name, kind << 24 | 1, 64, member, of, bits];
        let typedef = |name: u32, of: u32| [name, TYPEDEF << 24, of];
        let offsets = |btf: &[u8]| {
            let mut members =
                [Member::of("lock_t", "owned"), Member::of("other", "owned"), Member::of("lock_t", "other")];
            find(btf, &mut members).unwrap();
            members.map(|wanted| wanted.offset)
        };
        let (near, far) = (holder(0, STRUCT, owned, 1, 8), holder(0, STRUCT, owned, 1, 320));
        let before = btf(&[&number, &near, &typedef(other, 2), &far, &typedef(lock_t, 4)], strings);
        let after = btf(&[&number, &typedef(lock_t, 4), &near, &far, &typedef(other, 3)], strings);
        for btf in [before, after] {
            assert_eq!(offsets(&btf), [Some(40), Some(1), None]);
        }
        let nested = btf(
            &[
                &number,
                &typedef(lock_t, 3),
                &holder(0, STRUCT, 0, 4, 64),
                &holder(0, UNION, 0, 5, 0),
                &holder(inner, STRUCT, owned, 1, 32),
            ],
            strings,
        );
        assert_eq!(offsets(&nested), [Some(12), None, None]);
        let in_itself = btf(&[&typedef(lock_t, 2), &holder(0, STRUCT, 0, 2, 0)], strings);
        assert_eq!(offsets(&in_itself), [None; 3]);
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
