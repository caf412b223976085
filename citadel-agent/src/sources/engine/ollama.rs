//! Metrics from Ollama's `/api/ps`: the models in memory. Ollama has no metrics page. Pure.

use super::page::{EngineSample, Report};
use crate::discovery::engine::Engine;
use crate::metrics::catalogue::engine::{LOADED_BYTES, LOADED_MODELS, SLEEPING};

/// Parses the response; `None` if it is invalid.
#[must_use]
pub fn parse(body: &[u8]) -> Option<Report> {
    #[derive(serde::Deserialize)]
    struct Loaded {
        models: Vec<Model>,
    }
    #[derive(serde::Deserialize)]
    struct Model {
        size: u64,
        #[serde(default)]
        size_vram: u64,
    }
    let Loaded { models } = serde_json::from_slice(body).ok()?;
    let gpu: u64 = models.iter().map(|model| model.size_vram).fold(0, u64::saturating_add);
    let host = models.iter().map(|model| model.size.saturating_sub(model.size_vram)).fold(0, u64::saturating_add);
    let series = |desc, label: Option<&'static str>, value: u64| EngineSample {
        desc,
        label: label.map(Into::into),
        value: value as f64,
    };
    let series = vec![
        series(&SLEEPING, None, u64::from(models.is_empty())),
        series(&LOADED_MODELS, None, models.len() as u64),
        series(&LOADED_BYTES, Some("gpu"), gpu),
        series(&LOADED_BYTES, Some("host"), host),
    ];
    Some(Report { engine: Engine::Ollama, series })
}
