//! A copy of the library for a scenario.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;
use crate::state::{OPEN_FILE, SCENARIO_FILE};

/// What cargo calls the library.
const BUILT: &str = "libfake_nvml.so";

/// An installed copy.
#[derive(Clone, Debug)]
pub struct Installed {
    folder: PathBuf,
}

impl Installed {
    /// Copies the library to `folder`, with `scenario` beside it and without the functions `missing`.
    ///
    /// # Errors
    /// The library that cargo built is not where it should be, has no such function, or `folder` cannot be written.
    pub fn new(folder: &Path, scenario: &Scenario, missing: &[&str]) -> io::Result<Self> {
        Self::copy(&built()?, folder, scenario, missing)
    }

    /// As [`Installed::new`], of the library at `from`.
    ///
    /// # Errors
    /// Likewise.
    pub fn copy(from: &Path, folder: &Path, scenario: &Scenario, missing: &[&str]) -> io::Result<Self> {
        let mut library = fs::read(from)?;
        for name in missing {
            hide(&mut library, name)?;
        }
        let installed = Self { folder: folder.to_owned() };
        installed.set(scenario)?;
        fs::write(installed.library(), library)?;
        Ok(installed)
    }

    /// Where the agent finds it.
    #[must_use]
    pub fn library(&self) -> PathBuf {
        self.folder.join("libnvidia-ml.so.1")
    }

    /// Whether somebody has the library initialized: a real GPU could not be reset then.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.folder.join(OPEN_FILE).exists()
    }

    /// Changes the hardware.
    ///
    /// # Errors
    /// The scenario cannot be written.
    pub fn set(&self, scenario: &Scenario) -> io::Result<()> {
        // Whole or not at all: the library may read at any moment.
        let new = self.folder.join("scenario.new");
        fs::write(&new, serde_json::to_vec_pretty(scenario)?)?;
        fs::rename(new, self.folder.join(SCENARIO_FILE))
    }
}

/// Where cargo put the library: beside this program, or beside the tests that it built.
fn built() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut found =
        own.ancestors().skip(1).take(2).flat_map(|folder| [folder.join("deps").join(BUILT), folder.join(BUILT)]);
    found.find(|file| file.is_file()).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("no {BUILT} beside {}: build the package fake-nvml", own.display()),
        )
    })
}

/// Renames a function in the library's string table, so that the loader does not find it. Same length: nothing moves.
fn hide(library: &mut [u8], name: &str) -> io::Result<()> {
    let entry: Vec<u8> = [b"\0", name.as_bytes(), b"\0"].concat();
    let mut hidden = false;
    for at in 0..library.len().saturating_sub(entry.len()) {
        if library[at..].starts_with(&entry) {
            library[at + 1] = b'x';
            hidden = true;
        }
    }
    if hidden { Ok(()) } else { Err(io::Error::other(format!("the fake library has no {name}"))) }
}
