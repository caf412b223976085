//! Asks the running agent over its control socket.

use std::path::Path;

use super::requests::Answered;
use super::span::Span;
use super::trend::Trend;
use super::view::View;
use crate::clock::wall_ms;
use crate::control::{Connection, ControlError, Order};
use crate::explain::{Against, Explanation};
use crate::history::Millis;
use crate::history::window::SubjectHistory;
use crate::trace::ModelRequests;

/// The window of verdicts: the default of `explain`.
const EXPLAINED_MS: Millis = 5 * 60 * 1000;

/// What to request.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Wish {
    /// The time span.
    pub(super) span: Span,
    /// Only this model: its name or port.
    pub(super) model: Option<String>,
    /// Port of the model whose trend and single requests are requested.
    pub(super) plots_of: Option<u16>,
    /// Single requests of all models.
    pub(super) all_requests: bool,
}

/// The response.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Fetched {
    /// The figures.
    pub(super) view: View,
    /// A trend, and the port of its model.
    pub(super) trend: Option<(u16, Trend)>,
    /// Requests, and the port of their model.
    pub(super) requests: Option<(u16, Answered)>,
}

/// Opens a new connection for each request, so that a restart of the agent does not affect later requests.
///
/// # Errors
/// See [`ControlError`]; there is no such model ([`ControlError::Failed`]).
pub(super) fn fetch(socket: &Path, wish: &Wish) -> Result<Fetched, ControlError> {
    let mut connection = Connection::open(socket)?;
    let to_ms = wall_ms();
    let from_ms = to_ms - wish.span.ms();
    let all: Vec<SubjectHistory> = connection.data(&Order::History { subject: None, from_ms, to_ms, step_ms: None })?;
    let order = Order::Explain { model: None, from_ms: to_ms - EXPLAINED_MS, to_ms, against: Against::Before };
    let explanations: Vec<Explanation> = connection.data(&order)?;
    let node = rustix::system::uname();
    let view = View::of(&all, &node.nodename().to_string_lossy(), from_ms, to_ms).explained(explanations);
    let view = match &wish.model {
        Some(model) => only(view, model)?,
        None => view,
    };
    let mut fetched = Fetched { view, ..Fetched::default() };
    if wish.all_requests {
        // Without them, everything else is as true.
        if let Ok(requests) = requests(&mut connection, None)? {
            fetched.view.list(requests);
        }
    }
    if let Some(port) = wish.plots_of {
        let (from_ms, step_ms) = (to_ms - wish.span.trend_ms(), wish.span.step_ms());
        let order = Order::History { subject: Some(port.to_string()), from_ms, to_ms, step_ms: Some(step_ms) };
        let series: Vec<SubjectHistory> = connection.data(&order)?;
        let windows = series.first().map_or(&[][..], |series| &series.windows);
        fetched.trend = Some((port, Trend::of(windows, from_ms, to_ms, step_ms)));
        let answered = requests(&mut connection, Some(port))?;
        let of_model =
            |mut all: Vec<ModelRequests>| all.pop().ok_or_else(|| "the model is not measured now".to_owned());
        fetched.requests = Some((port, answered.and_then(of_model)));
    }
    Ok(fetched)
}

/// Single requests of a model, or of all; the inner error is why the agent has none.
fn requests(
    connection: &mut Connection,
    port: Option<u16>,
) -> Result<Result<Vec<ModelRequests>, String>, ControlError> {
    match connection.data(&Order::Requests { model: port.map(|port| port.to_string()) }) {
        Ok(requests) => Ok(Ok(requests)),
        Err(ControlError::Failed(why)) => Ok(Err(why)),
        Err(error) => Err(error),
    }
}

fn only(view: View, model: &str) -> Result<View, ControlError> {
    let known: Vec<_> = view.models.iter().map(|model| format!("{} ({})", model.name, model.port)).collect();
    let view = view.only(model);
    if view.models.is_empty() {
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(ControlError::Failed(format!(
            "the agent knows no model '{}'; it knows: {known}",
            model.escape_debug()
        )));
    }
    Ok(view)
}
