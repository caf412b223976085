//! Orders to the running agent: those about GPUs go to the sampling thread, a reload to the main loop.

use tokio::sync::{mpsc, oneshot};

use crate::control::{Answer, Order, Orders};
use crate::gpu;

/// What became of a reload.
pub(super) type Outcome = Result<(), String>;

/// A reload that somebody waits for.
pub(super) type Request = oneshot::Sender<Outcome>;

/// Takes orders, on the threads that the control socket uses.
pub(super) struct Desk {
    gpu: Option<gpu::Handle>,
    reloads: mpsc::Sender<Request>,
}

impl Desk {
    /// One for these GPUs, and where the reloads arrive that it takes.
    pub(super) fn new(gpu: Option<gpu::Handle>) -> (Self, mpsc::Receiver<Request>) {
        // Reloads are made one after the other; who asks waits.
        let (reloads, requests) = mpsc::channel(1);
        (Self { gpu, reloads }, requests)
    }

    fn reload(&self) -> Option<Outcome> {
        let (outcome, made) = oneshot::channel();
        self.reloads.blocking_send(outcome).ok()?;
        made.blocking_recv().ok()
    }
}

impl Orders for Desk {
    fn carry_out(&self, order: &Order) -> Answer {
        match (order, &self.gpu) {
            (Order::Reload {}, _) => match self.reload() {
                Some(Ok(())) => Answer::Done("configuration reloaded".to_owned()),
                Some(Err(error)) => {
                    Answer::Failed(format!("configuration not reloaded; the old one stays in force: {error}"))
                }
                None => Answer::Failed("the agent is stopping".to_owned()),
            },
            (_, Some(gpu)) => gpu.carry_out(order),
            (_, None) => Answer::Failed("this agent does not measure GPUs; see its log".to_owned()),
        }
    }
}
