//! Orders to the running agent: those about GPUs go to the sampling thread, a reload to the main loop; what happened is in the
//! history.

use tokio::sync::{mpsc, oneshot};

use crate::control::{Answer, Order, Orders};
use crate::gpu;
use crate::history::{History, Subject};

/// What became of a reload.
pub(super) type Outcome = Result<(), String>;

/// A reload that somebody waits for.
pub(super) type Request = oneshot::Sender<Outcome>;

/// Takes orders, on the threads that the control socket uses.
pub(super) struct Desk {
    gpu: Option<gpu::Handle>,
    history: History,
    reloads: mpsc::Sender<Request>,
}

impl Desk {
    /// One for these GPUs, and where the reloads arrive that it takes.
    pub(super) fn new(gpu: Option<gpu::Handle>, history: History) -> (Self, mpsc::Receiver<Request>) {
        // Reloads are made one after the other; who asks waits.
        let (reloads, requests) = mpsc::channel(1);
        (Self { gpu, history, reloads }, requests)
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
            (Order::History { subject, from_ms, to_ms, step_ms }, _) => {
                let wanted = subject.as_deref().map(|id| Subject::parse(id).ok_or(id));
                match wanted.transpose() {
                    Ok(wanted) => {
                        let step_ms = step_ms.unwrap_or(i64::MAX);
                        data(&self.history.series(wanted.as_ref(), *from_ms, *to_ms, step_ms))
                    }
                    Err(id) => Answer::Failed(format!("'{id}' is neither host, nor a port, nor gpu:UUID")),
                }
            }
            (_, Some(gpu)) => gpu.carry_out(order),
            (_, None) => Answer::Failed("this agent does not measure GPUs; see its log".to_owned()),
        }
    }
}

/// An answer of these data.
fn data(data: &impl serde::Serialize) -> Answer {
    match serde_json::to_value(data) {
        Ok(data) => Answer::Data(data),
        Err(error) => Answer::Failed(format!("the answer cannot be written: {error}")),
    }
}
