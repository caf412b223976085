//! What waits at the models' ports: connections to be accepted, data to be read by clients.

use super::{Origin, Outcome, Reading};
use crate::host::sock_diag::read_queues;
use crate::metrics::catalogue::models::{ACCEPT_QUEUE, ACCEPT_QUEUE_LIMIT, CONNECTIONS_HELD_BACK};
use crate::metrics::family::{Page, Value};

pub(super) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let models = origin.inventory.in_page_order();
    if models.is_empty() {
        return Ok(Outcome::Absent);
    }
    let queues = read_queues(|port| models.iter().any(|model| model.port == port))?;
    for model in models {
        // A server in another network namespace has no socket here.
        let Some(queues) = queues.get(&model.port) else { continue };
        let port = model.port.to_string();
        let labels = [model.name.as_str(), &port];
        page.add(&CONNECTIONS_HELD_BACK, labels, Value::Integer(queues.held_back.into()));
        page.add(&ACCEPT_QUEUE, labels, Value::Integer(queues.accept.into()));
        page.add(&ACCEPT_QUEUE_LIMIT, labels, Value::Integer(queues.accept_limit.into()));
    }
    Ok(Outcome::Read)
}
