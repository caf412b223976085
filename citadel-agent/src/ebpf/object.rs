//! What all families do with their object: loading programs, taking maps.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Array, HashMap, Map, MapData, ProgramArray, RingBuf};
use aya::programs::{Program, ProgramError, ProgramFd};
use aya::{Btf, BtfError, Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use tracing::debug;

use super::error::{ProbeError, chain};
use super::handles::Handles;
use super::link;
use super::mapped::{Cells, Mapped, Words};

/// Kernels before 5.11 charge maps to `RLIMIT_MEMLOCK`; later ones ignore it. An error shows up when the maps are
/// created.
pub(super) fn lift_memlock_limit() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the argument is a valid limit.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// A loader that does not know the kernel's BTF: no object has relocations against it.
///
/// aya reads and models all of it in the constructor, before it can be told not to, which takes 16 MB of memory. So the
/// constructor runs while no file can be opened. That concerns the whole process, so with several threads, as at a reload,
/// the memory is used instead. (aya 0.15 reads it when it is needed, but requires Rust 1.98.)
pub(super) fn loader<'a>() -> EbpfLoader<'a> {
    let _closed = is_single_threaded().then(NoFiles::new).flatten();
    let mut loader = EbpfLoader::new();
    loader.btf(None).verifier_log_level(VerifierLogLevel::STATS);
    loader
}

fn is_single_threaded() -> bool {
    std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() == 1)
}

/// While it exists, the process cannot open files: `open` fails with EMFILE.
struct NoFiles(libc::rlimit);

impl NoFiles {
    fn new() -> Option<Self> {
        let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a valid place.
        let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut old) } == 0;
        let none = libc::rlimit { rlim_cur: 0, ..old };
        // SAFETY: a valid limit.
        (known && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) } == 0).then_some(Self(old))
    }
}

impl Drop for NoFiles {
    fn drop(&mut self) {
        // SAFETY: the limit that was set before.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const self.0) };
    }
}

/// A map of the object.
pub(super) fn take(handles: &Handles, name: &'static str) -> Result<Map, ProbeError> {
    let map = MapData::from_fd(handles.map(name)?.try_clone_to_owned()?).and_then(Map::from_map_data);
    map.map_err(|error| ProbeError::Map { map: name, error })
}

/// The file descriptor of an array map.
pub(super) fn data(handles: &Handles, name: &'static str) -> Result<MapData, ProbeError> {
    match take(handles, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(ProbeError::Missing(name)),
    }
}

/// An array map, read and written by system calls.
pub(super) fn array<T: Pod>(handles: &Handles, name: &'static str) -> Result<Array<MapData, T>, ProbeError> {
    Array::try_from(take(handles, name)?).map_err(|error| ProbeError::Map { map: name, error })
}

/// A hash map.
pub(super) fn hash<K: Pod, V: Pod>(
    handles: &Handles,
    name: &'static str,
) -> Result<HashMap<MapData, K, V>, ProbeError> {
    HashMap::try_from(take(handles, name)?).map_err(|error| ProbeError::Map { map: name, error })
}

/// A ring buffer.
pub(super) fn ring(handles: &Handles, name: &'static str) -> Result<RingBuf<MapData>, ProbeError> {
    RingBuf::try_from(take(handles, name)?).map_err(|error| ProbeError::Map { map: name, error })
}

/// All entries of an array map, memory-mapped.
pub(super) fn map_into_memory<T: Words>(
    handles: &Handles,
    name: &'static str,
    entries: usize,
) -> Result<Mapped<T>, ProbeError> {
    Mapped::new(&handles.map(name)?, 0, entries).map_err(|error| ProbeError::Mmap { map: name, error })
}

/// The first words of an array map, memory-mapped for writing.
pub(super) fn map_cells(handles: &Handles, name: &'static str, words: usize) -> Result<Cells, ProbeError> {
    Cells::new(&handles.map(name)?, words).map_err(|error| ProbeError::Mmap { map: name, error })
}

/// Some entries of an array map, memory-mapped.
pub(super) fn map_entries<T: Words>(
    map: &MapData,
    name: &'static str,
    first: usize,
    entries: usize,
) -> Result<Mapped<T>, ProbeError> {
    Mapped::new(map.fd(), first, entries).map_err(|error| ProbeError::Mmap { map: name, error })
}

/// Maximum number of attempts to load a program if signals interrupt the verifier.
const ATTEMPTS: u32 = 20;

/// Repeats an attempt while a signal interrupts it: the verifier then returns EAGAIN (`do_check` in
/// `kernel/bpf/verifier.c`).
fn persist<T>(mut attempt: impl FnMut() -> Result<T, ProgramError>) -> Result<T, ProgramError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if is_interruption(&error) => {}
            result => return result,
        }
    }
    attempt()
}

fn is_interruption(error: &ProgramError) -> bool {
    let number = match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    };
    matches!(number, Some(libc::EAGAIN | libc::EINTR))
}

/// Blocks signals in this thread while it exists: loading a program takes a second, and a signal would make the kernel
/// start over. Signals to the process are delivered to another thread, or later.
pub(super) struct Undisturbed(libc::sigset_t);

impl Undisturbed {
    pub(super) fn new() -> Self {
        let mut old = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::zeroed();
        // SAFETY: both are valid places; zero is a valid set if the kernel refuses.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), old.as_mut_ptr());
            Self(old.assume_init())
        }
    }
}

impl Drop for Undisturbed {
    fn drop(&mut self) {
        // SAFETY: a set that this thread had before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Loads a program for the cgroup hooks.
pub(super) fn load(ebpf: &mut Ebpf, handles: &mut Handles, name: &'static str) -> Result<(), ProbeError> {
    let result = match ebpf.program_mut(name).ok_or(ProbeError::Missing(name))? {
        Program::CgroupSkb(program) => persist(|| program.load()),
        Program::SockOps(program) => persist(|| program.load()),
        _ => return Err(ProbeError::Missing(name)),
    };
    result.map_err(|error| refused(name, &error))?;
    Ok(handles.loaded(name, loaded(ebpf, name)?.as_fd())?)
}

/// Loads a program for a BTF tracepoint and attaches it.
pub(super) fn trace(
    ebpf: &mut Ebpf,
    handles: &mut Handles,
    name: &'static str,
    tracepoint: &'static str,
    btf: &Btf,
) -> Result<(), ProbeError> {
    let Some(Program::BtfTracePoint(program)) = ebpf.program_mut(name) else { return Err(ProbeError::Missing(name)) };
    persist(|| program.load(tracepoint, btf)).map_err(|error| refused(name, &error))?;
    attach_loaded(ebpf, handles, name, name)
}

/// Loads a program for the start or the end of a kernel function and attaches it. Returns false if the kernel has no
/// such function.
pub(super) fn trace_function(
    ebpf: &mut Ebpf,
    handles: &mut Handles,
    name: &str,
    shown: &'static str,
    function: &str,
    btf: &Btf,
) -> Result<bool, ProbeError> {
    let result = match ebpf.program_mut(name).ok_or(ProbeError::Missing(shown))? {
        Program::FEntry(program) => persist(|| program.load(function, btf)),
        Program::FExit(program) => persist(|| program.load(function, btf)),
        _ => return Err(ProbeError::Missing(shown)),
    };
    match result {
        Ok(()) => attach_loaded(ebpf, handles, name, shown).map(|()| true),
        Err(ProgramError::Btf(BtfError::UnknownBtfTypeName { .. })) => Ok(false),
        Err(error) => Err(refused(shown, &error)),
    }
}

/// Attaches a loaded tracing program.
fn attach_loaded(ebpf: &Ebpf, handles: &mut Handles, name: &str, shown: &'static str) -> Result<(), ProbeError> {
    let program = ebpf.program(name).ok_or(ProbeError::Missing(shown))?;
    let program = program.fd().map_err(|error| refused(shown, &error))?.as_fd();
    let link = link::to_tracing_point(program).map_err(|error| not_attached(shown, &error))?;
    handles.loaded(name, program)?;
    handles.attached(name, link);
    Ok(())
}

/// Loads an iterator over objects of this kind, and links it to the map with the objects.
pub(super) fn iterate(
    ebpf: &mut Ebpf,
    handles: &mut Handles,
    name: &'static str,
    what: &'static str,
    map: &'static str,
    btf: &Btf,
) -> Result<(), ProbeError> {
    let Some(Program::Iter(program)) = ebpf.program_mut(name) else { return Err(ProbeError::Missing(name)) };
    persist(|| program.load(what, btf)).map_err(|error| refused(name, &error))?;
    let program = loaded(ebpf, name)?;
    let link = link::to_map(program.as_fd(), handles.map(map)?).map_err(|error| not_attached(name, &error))?;
    handles.loaded(name, program.as_fd())?;
    handles.attached(name, link);
    Ok(())
}

/// Attaches a loaded program to a cgroup.
pub(super) fn attach_to_cgroup(
    handles: &mut Handles,
    name: &'static str,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> Result<(), ProbeError> {
    let program = handles.program(name).ok_or(ProbeError::Missing(name))?;
    let link = link::to_cgroup(program, cgroup, attach_type).map_err(|error| not_attached(name, &error))?;
    handles.attached(name, link);
    Ok(())
}

fn loaded<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a ProgramFd, ProbeError> {
    let program = ebpf.program(name).ok_or(ProbeError::Missing(name))?;
    program.fd().map_err(|error| refused(name, &error))
}

fn not_attached(program: &'static str, error: &std::io::Error) -> ProbeError {
    ProbeError::Program { program, error: format!("cannot attach it: {error}") }
}

/// The error of a program, in one line; the verifier's log is written to the debug log.
pub(super) fn refused(program: &'static str, error: &ProgramError) -> ProbeError {
    if let ProgramError::LoadError { verifier_log, .. } = error {
        debug!(program, log = %verifier_log, "verifier");
    }
    // aya puts the verifier's whole log into its message; the last line before the statistics has the reason.
    let text = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let counts = ["processed ", "verification time ", "stack depth ", "mark_read "];
            let last =
                log.lines().rfind(|line| !line.is_empty() && !counts.iter().any(|count| line.starts_with(count)));
            last.map_or_else(|| io_error.to_string(), |last| format!("{io_error}: {last}"))
        }
        _ => chain(error),
    };
    ProbeError::Program { program, error: text }
}

/// Sets the program that a tail call through an entry of `map` continues with.
pub(super) fn set_continuation(
    ebpf: &mut Ebpf,
    map: &'static str,
    index: u32,
    program: &'static str,
) -> Result<(), ProbeError> {
    let loaded = ebpf.program(program).ok_or(ProbeError::Missing(program))?.fd();
    let fd = loaded.and_then(|fd| Ok(fd.try_clone()?)).map_err(|error| refused(program, &error))?;
    let mut continuation = ProgramArray::try_from(ebpf.map_mut(map).ok_or(ProbeError::Missing(map))?)
        .map_err(|error| ProbeError::Map { map, error })?;
    continuation.set(index, &fd, 0).map_err(|error| ProbeError::Map { map, error })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_program_that_a_signal_interrupts_is_given_to_the_kernel_again() {
        assert!(!is_interruption(&ProgramError::NotLoaded));
        let refused = || load_error(libc::EACCES);
        for (errors, succeeds) in [(0, true), (3, true), (ATTEMPTS, false)] {
            let mut calls = 0;
            let result = persist(|| {
                calls += 1;
                if calls <= errors { Err(load_error(libc::EAGAIN)) } else { Ok(calls) }
            });
            assert_eq!(result.is_ok(), succeeds, "{errors}");
            assert_eq!(calls, (errors + 1).min(ATTEMPTS));
        }
        let mut calls = 0;
        assert!(
            persist(|| -> Result<(), _> {
                calls += 1;
                Err(refused())
            })
            .is_err()
        );
        assert_eq!(calls, 1, "what is refused is refused");
    }

    fn load_error(number: i32) -> ProgramError {
        let io_error = io::Error::from_raw_os_error(number);
        ProgramError::SyscallError(aya::sys::SyscallError { call: "bpf_prog_load", io_error })
    }
}
