//! The models' share of the GPUs: `/metrics/models`.

use crate::discovery::owners::Owner;
use crate::gpu::View;
use crate::gpu::sample::Joules;
use crate::join::gpu::split;
use crate::metrics::catalogue::models::{GPU_ENERGY, GPU_MEMORY, GPU_SM};
use crate::metrics::family::{Page, Value};
use crate::sources::{Origin, Outcome, Reading};

pub(in crate::sources) fn read(origin: &mut Origin<'_>, page: &mut Page) -> Reading {
    let Some(gpu) = origin.gpu else { return Ok(Outcome::Absent) };
    let view = gpu.view();
    let sample = match &view {
        View::Absent | View::Released => return Ok(Outcome::Absent),
        View::Lost { reason, .. } => return Err(reason.clone().into()),
        View::Fresh(_) => view.pass(),
    };
    let owners = gpu.owners();
    for one in sample.iter().flat_map(|sample| &sample.gpus) {
        let uuid = one.id.uuid.as_str();
        let Ok(answers) = &one.reading else { continue };
        for share in split(answers, &owners) {
            let (model, port) = names(share.owner.as_deref());
            if let Some(memory) = share.memory {
                page.add(&GPU_MEMORY, [model, &port, uuid], Value::Integer(memory));
            }
            if let Some(percent) = share.sm {
                page.add(&GPU_SM, [model, &port, uuid], Value::Float(percent / 100.0));
            }
        }
        for Joules { owner, microjoules } in &one.energy {
            let (model, port) = names(owner.as_deref());
            page.add(&GPU_ENERGY, [model, &port, uuid], Value::Float(*microjoules as f64 / 1e6));
        }
    }
    Ok(Outcome::Read)
}

fn names(owner: Option<&Owner>) -> (&str, String) {
    owner.map_or(("", String::new()), |owner| (owner.model.as_str(), owner.port.to_string()))
}
