//! What the kernel programs log, into the agent's log: the feature `bpf-log`.

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

/// Lines are forwarded until this is dropped.
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

/// Forwards what the programs of `family` log, on the current runtime. Where that fails, the programs measure all the same, and
/// one line says why.
pub(super) fn forward(family: Family, ebpf: &mut Ebpf) -> Option<Forwarding> {
    start(ebpf)
        .inspect_err(|error| warn!(family = family.name(), %error, "cannot read the log of the kernel programs"))
        .ok()
}

fn start(ebpf: &mut Ebpf) -> Result<Forwarding, ForwardError> {
    let runtime = Handle::try_current()?;
    let logger = EbpfLogger::init_with_logger(ebpf, LogTracer::new())?;
    // SAFETY: the logger owns the ring buffer's descriptor, and names no other as long as it lives.
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
