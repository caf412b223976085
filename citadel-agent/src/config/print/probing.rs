//! How models are probed, as YAML.

use super::{Yaml, duration, key, quote, word};
use crate::config::resolved::Models;
use crate::config::resolved::probing::{HealthEndpoints, Own, Scheme};

pub(super) fn print(yaml: &mut Yaml, models: &Models) {
    endpoints(yaml, 1, &models.health_endpoints);
    yaml.value(1, "health_interval", duration(models.health_interval));
    yaml.value(1, "health_timeout", duration(models.health_timeout));
    yaml.value(1, "engine_metrics", models.engine_metrics);
    yaml.value(1, "relay", models.relay);
    yaml.value(1, "ask_for_names", models.ask_for_names);
    if models.own.is_empty() {
        yaml.value(1, "models", "{}");
        return;
    }
    yaml.section(1, "models");
    for (name, own) in &models.own {
        yaml.section(2, &key(name));
        one(yaml, own);
    }
}

fn endpoints(yaml: &mut Yaml, depth: usize, endpoints: &HealthEndpoints) {
    match endpoints {
        HealthEndpoints::Auto => yaml.value(depth, "health_endpoints", "auto"),
        HealthEndpoints::Listed(paths) => yaml.list(depth, "health_endpoints", paths),
    }
}

fn one(yaml: &mut Yaml, own: &Own) {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    if let Some(paths) = &own.health_endpoints {
        endpoints(yaml, 3, paths);
    }
    for (name, span) in [("health_interval", own.health_interval), ("health_timeout", own.health_timeout)] {
        if let Some(span) = span {
            yaml.value(3, name, duration(span));
        }
    }
    let access = &own.access;
    yaml.value(3, "scheme", word(Scheme::WORDS, &access.scheme));
    yaml.optional(3, "server_name", access.server_name.as_deref());
    yaml.optional(3, "ca_file", path(&access.ca_file).as_deref());
    yaml.optional(3, "certificate_file", path(&access.certificate_file).as_deref());
    yaml.optional(3, "api_key_file", path(&access.api_key_file).as_deref());
    if access.headers.is_empty() {
        yaml.value(3, "headers", "{}");
    } else {
        yaml.section(3, "headers");
        for (name, value) in &access.headers {
            yaml.value(4, &key(name), quote(value));
        }
    }
}
