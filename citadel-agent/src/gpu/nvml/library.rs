//! The loaded library. While it exists, NVML is open and a GPU cannot be reset; dropping it closes NVML.

use std::ffi::OsStr;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::path::Path;

use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// Its name in the driver's package.
const NAME: &str = "libnvidia-ml.so.1";

/// NVML, open.
#[derive(Debug)]
pub(in crate::gpu) struct Library(ManuallyDrop<Nvml>);

impl Library {
    /// Loads and initializes NVML.
    pub(in crate::gpu) fn open(path: Option<&Path>) -> Result<Self, OpenError> {
        let path = path.map_or_else(|| OsStr::new(NAME), Path::as_os_str);
        match Nvml::builder().lib_path(path).init() {
            Ok(nvml) => Ok(Self(ManuallyDrop::new(nvml))),
            Err(NvmlError::LibloadingError(error)) => Err(OpenError::NoLibrary(error.to_string())),
            Err(NvmlError::DriverNotLoaded) => Err(OpenError::NoDriver),
            Err(error) => Err(OpenError::Failed(error)),
        }
    }

    /// Whether event sets can be used: the wrapper's panic when dropped without a function to free them (0.13.0,
    /// `event.rs`), also if registering fails.
    pub(in crate::gpu) fn has_events(&self) -> bool {
        self.lib().nvmlEventSetFree.is_ok()
    }

    /// Whether GPM samples can be used: the same problem (`gpm.rs`).
    pub(in crate::gpu) fn has_gpm(&self) -> bool {
        self.lib().nvmlGpmSampleFree.is_ok()
    }
}

impl Deref for Library {
    type Target = Nvml;

    fn deref(&self) -> &Nvml {
        &self.0
    }
}

impl Drop for Library {
    fn drop(&mut self) {
        // The wrapper's drop panics if the library has no nvmlShutdown; then it stays loaded, once per process.
        if self.lib().nvmlShutdown.is_ok() {
            // SAFETY: the field is not used after drop.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}

/// Why NVML cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(in crate::gpu) enum OpenError {
    /// The library does not exist or cannot be loaded.
    #[error("cannot load the NVML library: {0}")]
    NoLibrary(String),
    /// The library exists, but the kernel module is not loaded.
    #[error(
        "NVML is installed, but the NVIDIA kernel module is not loaded; run `modprobe nvidia` and see the kernel log"
    )]
    NoDriver,
    /// Anything else.
    #[error("cannot initialize NVML: {0}")]
    Failed(NvmlError),
}
