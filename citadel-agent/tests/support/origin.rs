//! What sources read from, for tests of one of them: all others have nothing.

use citadel_agent::config::Config;
use citadel_agent::config::watch::Loaded;
use citadel_agent::discovery::inventory::Inventory;
use citadel_agent::discovery::watch::Discovered;
use citadel_agent::ebpf::families::Families;
use citadel_agent::host::Roots;
use citadel_agent::http::Dropped;
use citadel_agent::metrics::encode;
use citadel_agent::metrics::family::Page;
use citadel_agent::metrics::format::Format;
use citadel_agent::slot::Slot;
use citadel_agent::sources::background::Readers;
use citadel_agent::sources::{CarryOver, Origin};

/// An agent that has nothing to read from.
#[derive(Default)]
pub struct Nothing {
    config: Config,
    roots: Roots,
    inventory: Inventory,
    discovered: Discovered,
    families: Families,
    alerts: Slot<citadel_agent::alerts::Numbers>,
    http_dropped: Dropped,
    logs: Slot<citadel_agent::logs::numbers::Numbers>,
    remote_write: Slot<Vec<citadel_agent::remote_write::Numbers>>,
    readers: Readers,
    carry_over: CarryOver,
}

impl Nothing {
    /// To take the fields from that a test does not care for.
    pub fn origin(&mut self) -> Origin<'_> {
        Origin {
            config: &self.config,
            loaded: Loaded::now(),
            roots: &self.roots,
            inventory: &self.inventory,
            discovered: &self.discovered,
            families: &mut self.families,
            alerts: &self.alerts,
            http_dropped: &self.http_dropped,
            logs: &self.logs,
            remote_write: &self.remote_write,
            gpu: None,
            readers: &self.readers,
            services: None,
            probes: None,
            carry_over: &mut self.carry_over,
        }
    }
}

/// The page in a text format.
pub fn text(page: Page, format: Format) -> String {
    String::from_utf8(encode(page, format).unwrap()).unwrap()
}
