//! The one scenario of this loaded library, and what has happened to it so far.

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nvml_wrapper_sys::bindings::{
    nvmlDevice_t, nvmlReturn_enum_NVML_ERROR_GPU_IS_LOST as GPU_IS_LOST,
    nvmlReturn_enum_NVML_ERROR_INVALID_ARGUMENT as INVALID_ARGUMENT,
    nvmlReturn_enum_NVML_ERROR_NOT_SUPPORTED as NOT_SUPPORTED,
    nvmlReturn_enum_NVML_ERROR_UNINITIALIZED as UNINITIALIZED, nvmlReturn_enum_NVML_ERROR_UNKNOWN as UNKNOWN,
    nvmlReturn_t,
};

use crate::scenario::{Gpu, Mig, Scenario};

/// The file beside the library that drives it.
pub(crate) const SCENARIO_FILE: &str = "scenario.json";

/// The file that is there while the library is initialized: what a real one holds open then.
pub(crate) const OPEN_FILE: &str = "open";

/// How often a hanging call looks whether it still hangs.
const HANG_STEP: Duration = Duration::from_millis(10);

/// What a call answers: its value, or NVML's code.
pub(crate) type NvmlResult<T> = Result<T, nvmlReturn_t>;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) scenario: Scenario,
    /// When the file that it came from was written.
    written: Option<SystemTime>,
    /// `nvmlInit_v2` less `nvmlShutdown`.
    pub(crate) initialized: u32,
    /// How often a value that grows was read: by GPU, function or field, link.
    reads: HashMap<(usize, &'static str, u32, u32), u64>,
    /// Events delivered so far.
    pub(crate) delivered: usize,
    /// Races run so far, by GPU.
    pub(crate) raced: HashMap<usize, u32>,
    /// Event types registered, by GPU.
    pub(crate) registered: HashMap<usize, u64>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

/// What a device handle stands for.
pub(crate) struct Target<'a> {
    pub(crate) index: usize,
    pub(crate) gpu: &'a Gpu,
    /// The MIG device on it, where the handle is one.
    pub(crate) mig: Option<&'a Mig>,
}

/// Runs `f` on the state; read anew from its file where that has changed.
pub(crate) fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    let mut state: MutexGuard<'_, Option<State>> = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    f(state.get_or_insert_default())
}

impl State {
    /// Says so beside the library while it is initialized.
    pub(crate) fn show_open(&self) {
        let Some(file) = own_path().map(|path| path.with_file_name(OPEN_FILE)) else { return };
        _ = if self.initialized > 0 { fs::write(file, []) } else { fs::remove_file(file) };
    }

    /// Reads the scenario file, if it is newer than what is in force.
    pub(crate) fn refresh(&mut self) -> NvmlResult<()> {
        let path = scenario_path().ok_or(UNKNOWN)?;
        let written = fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(|_| UNKNOWN)?;
        if self.written != Some(written) {
            let text = fs::read(&path).map_err(|_| UNKNOWN)?;
            self.scenario = serde_json::from_slice(&text).map_err(|error| {
                eprintln!("fake-nvml: {}: {error}", path.display());
                UNKNOWN
            })?;
            self.written = Some(written);
        }
        Ok(())
    }

    /// The value that begins with `start` and grows by `step` with each reading.
    pub(crate) fn growing(
        &mut self,
        gpu: usize,
        what: &'static str,
        field: u32,
        link: u32,
        [start, step]: [u64; 2],
    ) -> u64 {
        if step == 0 {
            return start;
        }
        let reads = self.reads.entry((gpu, what, field, link)).or_default();
        *reads += 1;
        start + step * (*reads - 1)
    }

    fn target(&self, device: nvmlDevice_t) -> NvmlResult<Target<'_>> {
        let (index, mig) = indices(device).ok_or(INVALID_ARGUMENT)?;
        let gpu = self.scenario.gpus.get(index).ok_or(INVALID_ARGUMENT)?;
        let mig = mig.map(|mig| gpu.mig.get(mig).ok_or(INVALID_ARGUMENT)).transpose()?;
        Ok(Target { index, gpu, mig })
    }
}

/// A call on a GPU: hangs, fails, or answers what `f` does.
pub(crate) fn on_gpu<T>(
    call: &'static str,
    device: nvmlDevice_t,
    f: impl FnOnce(&mut State, usize) -> NvmlResult<T>,
) -> NvmlResult<T> {
    let (index, _) = indices(device).ok_or(INVALID_ARGUMENT)?;
    hang(call, index);
    with(|state| {
        if state.initialized == 0 {
            return Err(UNINITIALIZED);
        }
        let target = state.target(device)?;
        if target.gpu.lost {
            return Err(GPU_IS_LOST);
        }
        if target.gpu.unsupported.iter().any(|name| name == call) {
            return Err(NOT_SUPPORTED);
        }
        f(state, index)
    })
}

/// As [`on_gpu`], for what only needs to look; a value that is absent is not supported.
pub(crate) fn read<T>(
    call: &'static str,
    device: nvmlDevice_t,
    f: impl FnOnce(Target<'_>) -> Option<T>,
) -> NvmlResult<T> {
    on_gpu(call, device, |state, _| f(state.target(device)?).ok_or(NOT_SUPPORTED))
}

pub(crate) fn hang(call: &str, gpu: usize) {
    let begin = Instant::now();
    let hangs = || {
        with(|state| {
            _ = state.refresh();
            let hang =
                state.scenario.hang.as_ref().filter(|hang| hang.gpu == gpu && ["*", call].contains(&&*hang.call));
            hang.is_some_and(|hang| begin.elapsed() < Duration::from_secs(hang.seconds))
        })
    };
    // Without a hang, a call must not cost a look at the file.
    if with(|state| state.scenario.hang.is_none()) {
        return;
    }
    while hangs() {
        thread::sleep(HANG_STEP);
    }
}

/// A handle: never followed, only told apart.
pub(crate) fn handle(gpu: usize, mig: Option<usize>) -> nvmlDevice_t {
    std::ptr::without_provenance_mut((gpu + 1) << 8 | mig.map_or(0, |mig| mig + 1))
}

fn indices(device: nvmlDevice_t) -> Option<(usize, Option<usize>)> {
    let number = device.addr();
    Some(((number >> 8).checked_sub(1)?, (number & 0xff).checked_sub(1)))
}

/// The scenario beside the file that this very library was loaded from, so that each copy has its own.
fn scenario_path() -> Option<PathBuf> {
    Some(own_path()?.with_file_name(SCENARIO_FILE))
}

fn own_path() -> Option<PathBuf> {
    // SAFETY: the structure is plain data, for which all zeros is a value.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: the address is one of this library's own, the structure is a valid place for the answer.
    let found = unsafe { libc::dladdr((&raw const STATE).cast(), &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr gave a NUL-terminated name that lives as long as this library.
    let own = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(own.to_str().ok()?))
}
