//! The page at `/`: what is served, which models are measured, and what is not measured. One file, no scripts.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::routes::{Route, Serves};
use crate::config::resolved::Config;
use crate::metrics::catalogue::agent::PROBE_STATUS;
use crate::metrics::family::{Family, Page};

const HEAD: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
    <meta name=\"viewport\" content=\"width=device-width\">\n<title>citadel-agent</title>\n\
    <style>body{font-family:sans-serif;margin:2em auto;max-width:50em;padding:0 1em;color-scheme:light dark}\
    td{padding:.1em 2em .1em 0;vertical-align:top}</style>\n<h1>citadel-agent</h1>\n";

/// The page as HTML; `page` is what `/metrics` would carry.
pub(super) fn html(config: &Config, routes: &[Route], page: &Page) -> String {
    let mut html = HEAD.to_owned();
    html.push_str("<h2>Pages</h2>\n<table>\n");
    for route in routes.iter().filter(|route| route.serves != Serves::Index) {
        let path = escape(&route.path);
        _ = writeln!(html, "<tr><td><a href=\"{path}\">{path}</a><td>{}", route.title);
    }
    let health = config.local.health_check_port;
    _ = writeln!(html, "</table>\n<p>Health, readiness and status: port {health}.");

    html.push_str("<h2>Models</h2>\n<table>\n");
    for (port, model) in models(config, page) {
        _ = writeln!(html, "<tr><td>{}<td>port {}", escape(&model), escape(&port));
    }
    html.push_str("</table>\n");
    if let Some(ports) = &config.models.discover {
        _ = writeln!(html, "<p>Ports {} to {} are measured without being configured.", ports.start(), ports.end());
    }

    html.push_str("<h2>Not measured</h2>\n<table>\n");
    let mut all_measured = true;
    for [family, program, status, reason] in not_measured(page) {
        all_measured = false;
        let name = format!("{family}/{program}");
        _ = writeln!(html, "<tr><td>{}<td>{}<td>{}", escape(&name), escape(status), escape(reason));
    }
    html.push_str("</table>\n");
    if all_measured {
        html.push_str("<p>No kernel program reports a problem.\n");
    }
    html
}

/// Ports and names of the configured models and of those that the page has measured, by port.
fn models(config: &Config, page: &Page) -> BTreeSet<(String, String)> {
    let configured = config.models.ports.iter().map(|(port, name)| (port.to_string(), name.clone()));
    let measured = (page.families.iter())
        .filter(|family| family.desc.labels.starts_with(&["model", "port"]))
        .flat_map(|family| &family.samples)
        .filter_map(|sample| Some((sample.labels.get(1)?.clone(), sample.labels.first()?.clone())));
    configured.chain(measured).collect()
}

/// The labels of each kernel program's status that is not `ok`.
fn not_measured(page: &Page) -> impl Iterator<Item = [&str; 4]> {
    let status = |family: &&Family| std::ptr::eq(family.desc, &PROBE_STATUS);
    (page.families.iter().filter(status)).flat_map(|family| &family.samples).filter_map(|sample| {
        let labels: Vec<&str> = sample.labels.iter().map(String::as_str).collect();
        let labels: [&str; 4] = labels.try_into().ok()?;
        (labels[2] != "ok").then_some(labels)
    })
}

/// Text for HTML, in an element or a quoted attribute.
fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup() {
        assert_eq!(escape("<b a=\"1\" b='2'>&"), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp;");
        assert_eq!(escape("phi3"), "phi3");
    }
}
