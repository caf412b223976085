//! What the checks share: each fact is found out once, when the first check asks for it.

use std::cell::OnceCell;

use crate::agent::{self, Examined};
use crate::config::Config;
use crate::ebpf::support::Support;
use crate::host::Roots;

/// This host under a configuration.
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

    /// What the kernel can, and what this process may.
    pub(super) fn support(&self) -> &Support {
        self.support.get_or_init(|| Support::gather(&self.roots))
    }

    /// What an agent with this configuration measures here: everything is attached and read once.
    pub(super) fn examined(&self) -> Result<&Examined, &str> {
        let examined = self.examined.get_or_init(|| agent::examine(self.config).map_err(|error| format!("{error:#}")));
        examined.as_ref().map_err(String::as_str)
    }
}
