//! Forwards the logs of the eBPF programs to the agent's log: the feature `bpf-log`.

use std::io;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::{Handle, TryCurrentError};
use tokio::task::AbortHandle;
use tracing::warn;
use tracing_log::LogTracer;

use super::family::Family;

/// Stops forwarding on drop.
pub(super) struct Forwarding(AbortHandle);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why nothing is forwarded.
#[derive(Debug, thiserror::Error)]
enum ForwardError {
    #[error(transparent)]
    Runtime(#[from] TryCurrentError),
    #[error(transparent)]
    Ring(#[from] aya_log::Error),
    #[error("cannot poll the ring buffer: {0}")]
    Wait(#[from] io::Error),
}

/// Forwards the log of the programs of `family`, on the current runtime. If that fails, the programs still measure, and
/// the reason is logged.
pub(super) fn forward(family: Family, ebpf: &mut Ebpf) -> Option<Forwarding> {
    start(ebpf)
        .inspect_err(|error| warn!(family = family.name(), %error, "cannot read the log of the kernel programs"))
        .ok()
}

fn start(ebpf: &mut Ebpf) -> Result<Forwarding, ForwardError> {
    let runtime = Handle::try_current()?;
    let logger = EbpfLogger::init_with_logger(ebpf, LogTracer::new())?;
    // SAFETY: the logger owns the ring buffer's file descriptor, which stays the same as long as it lives.
    let ring = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut ring = ring.map_err(io::Error::from)?;
    let task = runtime.spawn(async move {
        while let Ok(mut ready) = ring.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
    Ok(Forwarding(task.abort_handle()))
}
