//! Control requests: those about GPUs go to the sampling thread, a reload to the main loop; queries read the history and the
//! records of single requests.

use smol_str::SmolStr;
use tokio::sync::{mpsc, oneshot};

use crate::control::{Answer, Order, Orders};
use crate::explain::explain;
use crate::gpu;
use crate::history::{History, Subject};
use crate::trace::{Filter, Tracer};

/// Result of a reload.
pub(super) type Outcome = Result<(), String>;

/// A pending reload; the result is sent to the client that waits.
pub(super) type Request = oneshot::Sender<Outcome>;

/// Handles control requests, on the threads of the control socket.
pub(super) struct Desk {
    gpu: Option<gpu::Handle>,
    history: History,
    tracer: Tracer,
    reloads: mpsc::Sender<Request>,
}

impl Desk {
    /// A desk for these GPUs, and the receiver of its reload requests.
    pub(super) fn new(gpu: Option<gpu::Handle>, history: History, tracer: Tracer) -> (Self, mpsc::Receiver<Request>) {
        // Reloads are serialized; clients wait.
        let (reloads, requests) = mpsc::channel(1);
        (Self { gpu, history, tracer, reloads }, requests)
    }

    /// The models with their ports.
    fn models(&self) -> impl Iterator<Item = (u16, SmolStr)> {
        self.history.subjects().into_iter().filter_map(|(subject, name)| match subject {
            Subject::Model(port) => Some((port, name)),
            _ => None,
        })
    }

    /// The port of a model that is named by its name or its port; `None`: all.
    fn port(&self, model: Option<&str>) -> Result<Option<u16>, String> {
        let Some(wanted) = model else { return Ok(None) };
        let models: Vec<_> = self.models().collect();
        let found = models.iter().find(|(port, name)| name == wanted || port.to_string() == wanted);
        match found {
            Some((port, _)) => Ok(Some(*port)),
            None => {
                let known: Vec<_> = models.iter().map(|(port, name)| format!("{name} (port {port})")).collect();
                Err(format!("no model '{wanted}' is known; known are: {}", known.join(", ")))
            }
        }
    }

    fn trace(&self, port: Option<u16>, filter: &Filter, since: Option<u64>, last: Option<usize>) -> Answer {
        let answer = match last {
            Some(last) => self.tracer.last(last, port, filter),
            None => self.tracer.follow(since, port, filter),
        };
        match answer {
            Some(requests) => data(&requests),
            None => unmeasured(),
        }
    }

    fn requests(&self, port: Option<u16>) -> Answer {
        match self.tracer.of_models(port) {
            Ok(Some(requests)) => data(&requests),
            Ok(None) => unmeasured(),
            Err(error) => Answer::Failed(format!("cannot list requests in flight: {error}")),
        }
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
                    Answer::Failed(format!("configuration not reloaded, keeping the current one: {error}"))
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
                    Err(id) => Answer::Failed(format!("'{id}' is not `host`, a port or `gpu:UUID`")),
                }
            }
            (Order::Explain { model, from_ms, to_ms, against }, _) => match self.port(model.as_deref()) {
                Ok(port) => data(&explain(&self.history, port, *from_ms, *to_ms, *against)),
                Err(error) => Answer::Failed(error),
            },
            (Order::Requests { model }, _) => match self.port(model.as_deref()) {
                Ok(port) => self.requests(port),
                Err(error) => Answer::Failed(error),
            },
            (Order::Trace { model, filter, since, last }, _) => match self.port(model.as_deref()) {
                Ok(port) => self.trace(port, filter, *since, *last),
                Err(error) => Answer::Failed(error),
            },
            (_, Some(gpu)) => gpu.carry_out(order),
            (_, None) => Answer::Failed("this agent is not monitoring GPUs; see its log".to_owned()),
        }
    }
}

fn unmeasured() -> Answer {
    Answer::Failed("requests are not measured on this host; see `citadel-agent check`".to_owned())
}

/// An answer of these data.
fn data(data: &impl serde::Serialize) -> Answer {
    match serde_json::to_value(data) {
        Ok(data) => Answer::Data(data),
        Err(error) => Answer::Failed(format!("cannot encode the answer: {error}")),
    }
}
