//! Selects the paths to request from a server. Pure.
//!
//! A probe must cost the server no work. `/health` does for some: litellm sends a completion to each of its backends,
//! SGLang generates a token. It is therefore requested only from engines known to answer it immediately; from others, a
//! path that every server with OpenAI's API has, whose response at least shows that it answers.

use crate::discovery::engine::Engine;

/// A path to request, and its purposes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    pub(super) path: String,
    pub(super) purpose: Purpose,
}

/// A purpose of a response, besides that there is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Purpose {
    /// Determines whether the server is up.
    Health,
    /// Lists the models.
    Models,
    /// Is a metrics page.
    Metrics,
    /// Lists the models that Ollama has in memory.
    Loaded,
    /// None.
    Answer,
}

/// The paths of an engine.
struct Paths {
    engine: Engine,
    /// Reports without work whether the engine is healthy.
    health: Option<&'static str>,
    /// Whether it has `/v1/models`.
    models: bool,
    /// Its metrics page.
    metrics: Option<&'static str>,
    /// Returns a JSON object with its version in this field.
    version: Option<(&'static str, &'static str)>,
}

const PATHS: &[Paths] = &[
    Paths {
        engine: Engine::Vllm,
        health: Some("/health"),
        models: true,
        metrics: Some("/metrics"),
        version: Some(("/version", "version")),
    },
    Paths {
        engine: Engine::LlamaCpp,
        health: Some("/health"),
        models: true,
        metrics: Some("/metrics"),
        version: Some(("/props", "build_info")),
    },
    // Its /health generates a token (SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION, enabled by default).
    Paths { engine: Engine::SgLang, health: None, models: true, metrics: Some("/metrics"), version: None },
    // Its /health runs a prefill until the first request has been answered.
    Paths {
        engine: Engine::Tgi,
        health: Some("/info"),
        models: true,
        metrics: Some("/metrics"),
        version: Some(("/info", "version")),
    },
    Paths {
        engine: Engine::Triton,
        health: Some("/v2/health/ready"),
        models: false,
        metrics: Some("/metrics"),
        version: Some(("/v2", "version")),
    },
    // Its /metrics consumes statistics from a queue that others may be reading.
    Paths {
        engine: Engine::TensorRtLlm,
        health: Some("/health"),
        models: true,
        metrics: Some("/prometheus/metrics"),
        version: Some(("/version", "version")),
    },
    Paths {
        engine: Engine::Ollama,
        health: Some("/api/version"),
        models: true,
        metrics: None,
        version: Some(("/api/version", "version")),
    },
    Paths { engine: Engine::Transformers, health: Some("/health"), models: true, metrics: None, version: None },
    Paths { engine: Engine::LmDeploy, health: Some("/health"), models: true, metrics: Some("/metrics"), version: None },
    // Its /health sends a completion to each backend. /metrics is a redirect.
    Paths {
        engine: Engine::LiteLlm,
        health: Some("/health/liveliness"),
        models: true,
        metrics: Some("/metrics/"),
        version: None,
    },
];

/// Path at which servers with OpenAI's API list their models.
pub(super) const MODELS: &str = "/v1/models";

/// Ollama's replacement for a metrics page.
const OLLAMA_LOADED: &str = "/api/ps";

/// The paths to request from a server: the configured ones, or else those that its engine answers without work.
pub(super) fn asks(configured: Option<&[String]>, engine: Option<Engine>) -> Vec<Ask> {
    if let Some(paths) = configured {
        return listed(paths);
    }
    let ask = |path: &str, purpose| Ask { path: path.to_owned(), purpose };
    let Some(paths) = paths_of(engine) else {
        return vec![ask(MODELS, Purpose::Models), ask("/metrics", Purpose::Metrics)];
    };
    let mut asks = Vec::new();
    asks.extend(paths.health.map(|path| ask(path, Purpose::Health)));
    if paths.models {
        asks.push(ask(MODELS, Purpose::Models));
    }
    asks.extend(paths.metrics.map(|path| ask(path, Purpose::Metrics)));
    if engine == Some(Engine::Ollama) {
        asks.push(ask(OLLAMA_LOADED, Purpose::Loaded));
    }
    asks
}

fn listed(paths: &[String]) -> Vec<Ask> {
    let bare = |path: &str| path.split('?').next().unwrap_or(path).to_owned();
    let health = |path: &&String| {
        let bare = bare(path);
        bare.starts_with("/health") || PATHS.iter().any(|paths| paths.health == Some(&*bare))
    };
    // "/health" itself before similar paths.
    let decides = paths.iter().find(|path| bare(path) == "/health").or_else(|| paths.iter().find(health));
    let purpose = |path: &String| match bare(path).as_str() {
        _ if Some(path) == decides => Purpose::Health,
        MODELS => Purpose::Models,
        "/metrics" | "/metrics/" | "/prometheus/metrics" => Purpose::Metrics,
        OLLAMA_LOADED => Purpose::Loaded,
        _ => Purpose::Answer,
    };
    paths.iter().map(|path| Ask { path: path.clone(), purpose: purpose(path) }).collect()
}

/// Where an engine reports its version: a path, and the field of the returned JSON object.
pub(super) fn version(engine: Option<Engine>) -> Option<(&'static str, &'static str)> {
    paths_of(engine)?.version
}

/// Whether requesting a path causes work on the engine, and why.
pub(super) fn harm(path: &str, engine: Option<Engine>) -> Option<&'static str> {
    match (path.split('?').next()?, engine?) {
        ("/health", Engine::LiteLlm) => {
            Some("each request sends a completion to every backend; /health/liveliness does not")
        }
        ("/health" | "/health_generate", Engine::SgLang) => Some(
            "each request generates a token unless SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION is 0; /v1/models does not",
        ),
        ("/metrics", Engine::TensorRtLlm) => {
            Some("each request consumes statistics that other readers then miss; /prometheus/metrics does not")
        }
        _ => None,
    }
}

fn paths_of(engine: Option<Engine>) -> Option<&'static Paths> {
    PATHS.iter().find(|paths| Some(paths.engine) == engine)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(engine: Option<Engine>) -> Vec<String> {
        asks(None, engine).into_iter().map(|ask| ask.path).collect()
    }

    #[test]
    fn no_engine_is_asked_what_makes_it_work() {
        for engine in Engine::all().map(Some).chain([None]) {
            for path in paths(engine) {
                assert_eq!(harm(&path, engine), None, "{engine:?}: {path}");
            }
            assert!(!paths(engine).is_empty());
        }
        assert_eq!(paths(Some(Engine::LiteLlm)), ["/health/liveliness", "/v1/models", "/metrics/"]);
        assert_eq!(paths(Some(Engine::SgLang)), ["/v1/models", "/metrics"]);
        // Who it is decides; until then it is asked nothing that could be work.
        assert_eq!(paths(None), ["/v1/models", "/metrics"]);
        assert_eq!(paths(Some(Engine::Ollama)), ["/api/version", "/v1/models", "/api/ps"]);
    }

    #[test]
    fn what_is_configured_is_asked_and_nothing_else() {
        let list = ["/health", "/v1/models", "/metrics"].map(str::to_owned);
        let purposes: Vec<_> = asks(Some(&list), Some(Engine::LiteLlm)).into_iter().map(|ask| ask.purpose).collect();
        assert_eq!(purposes, [Purpose::Health, Purpose::Models, Purpose::Metrics]);
        assert!(harm("/health", Some(Engine::LiteLlm)).is_some());
        let list = ["/v1/models?x=1", "/health/liveliness", "/x", "/api/ps"].map(str::to_owned);
        let purposes: Vec<_> = asks(Some(&list), None).into_iter().map(|ask| ask.purpose).collect();
        assert_eq!(purposes, [Purpose::Models, Purpose::Health, Purpose::Answer, Purpose::Loaded]);
        assert_eq!(asks(Some(&[]), None), []);
    }
}
