//! Facts shared by the checks: each is determined once, when a check first needs it.

use std::cell::OnceCell;

use crate::agent::{self, Examined};
use crate::config::Config;
use crate::ebpf::support::Support;
use crate::host::Roots;

/// The host under a configuration.
pub(super) struct Facts<'a> {
    pub(super) config: &'a Config,
    pub(super) roots: Roots,
    support: OnceCell<Support>,
    examined: OnceCell<Result<Examined, String>>,
}

impl<'a> Facts<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config, roots: Roots::default(), support: OnceCell::new(), examined: OnceCell::new() }
    }

    /// Features of the kernel, and permissions of this process.
    pub(super) fn support(&self) -> &Support {
        self.support.get_or_init(|| Support::gather(&self.roots))
    }

    /// A full reading with everything attached, as an agent with this configuration would do it.
    pub(super) fn examined(&self) -> Result<&Examined, &str> {
        let examined = self.examined.get_or_init(|| agent::examine(self.config).map_err(|error| format!("{error:#}")));
        examined.as_ref().map_err(String::as_str)
    }
}
