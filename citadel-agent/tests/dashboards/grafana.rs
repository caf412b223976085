//! Grafana's JSON of a dashboard, from what its table says.

use serde_json::{Value as Json, json};

use super::panel::Panel;

/// Columns of Grafana's grid.
const GRID: u64 = 24;

/// A dashboard.
pub(crate) struct Dashboard {
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) variables: &'static [Variable],
    pub(crate) annotations: Vec<Annotation>,
    pub(crate) rows: Vec<(&'static str, Vec<Panel>)>,
}

/// What a reader chooses at the top of a dashboard.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variable {
    /// Several hosts, at first all.
    Instances,
    /// One host.
    Instance,
    /// One model of that host.
    Model,
    /// Where logs are.
    Loki,
}

/// What is marked in all graphs of a dashboard.
pub(crate) struct Annotation {
    pub(crate) name: &'static str,
    pub(crate) colour: &'static str,
    pub(crate) expr: String,
    pub(crate) title: &'static str,
    pub(crate) text: &'static str,
}

pub(crate) fn prometheus() -> Json {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

pub(crate) fn loki() -> Json {
    json!({"type": "loki", "uid": "${loki}"})
}

pub(crate) fn link(title: &str, dashboard: &str) -> Json {
    json!({
        "title": title,
        "type": "link",
        "url": format!("/d/{dashboard}"),
        "icon": "external link",
        "tooltip": "",
        "tags": [],
        "asDropdown": false,
        "targetBlank": false,
        "includeVars": true,
        "keepTime": true,
    })
}

impl Variable {
    fn json(self) -> Json {
        let query = |name: &str, label: &str, query: &str, many: bool| {
            let mut variable = json!({
                "name": name,
                "label": label,
                "type": "query",
                "datasource": prometheus(),
                "query": {"query": query, "refId": name},
                "definition": query,
                "refresh": 2,
                "sort": 1,
                "multi": many,
                "includeAll": many,
            });
            if many {
                variable["allValue"] = json!(".*");
                variable["current"] = json!({"text": "All", "value": "$__all"});
            }
            variable
        };
        let hosts = "label_values(citadel_agent_build_info, instance)";
        match self {
            Self::Instances => query("instance", "Host", hosts, true),
            Self::Instance => query("instance", "Host", hosts, false),
            Self::Model => {
                let models = r#"label_values(citadel_model_connections_open{instance="$instance"}, model)"#;
                query("model", "Model", models, false)
            }
            Self::Loki => json!({"name": "loki", "label": "Logs", "type": "datasource", "query": "loki"}),
        }
    }
}

impl Dashboard {
    pub(crate) fn uid(&self) -> String {
        format!("citadel-{}", self.file)
    }

    pub(crate) fn json(&self) -> Json {
        let source = json!({"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"});
        let variables: Vec<Json> = [source].into_iter().chain(self.variables.iter().map(|one| one.json())).collect();
        let mut menu = link("Citadel", "");
        menu["type"] = json!("dashboards");
        menu["url"] = json!("");
        menu["tags"] = json!(["citadel"]);
        menu["asDropdown"] = json!(true);
        json!({
            "uid": self.uid(),
            "title": format!("Citadel: {}", self.title),
            "description": self.about,
            "tags": ["citadel"],
            "schemaVersion": 38,
            "editable": true,
            "graphTooltip": 1,
            "refresh": "30s",
            "time": {"from": "now-3h", "to": "now"},
            "links": [menu],
            "templating": {"list": variables},
            "annotations": {"list": self.annotations.iter().map(Annotation::json).collect::<Vec<_>>()},
            "panels": self.panels(),
        })
    }

    /// The rows below each other; panels flow from left to right.
    fn panels(&self) -> Vec<Json> {
        let (mut panels, mut y) = (Vec::new(), 0);
        for (title, row) in &self.rows {
            let id = panels.len() as u64 + 1;
            let place = json!({"x": 0, "y": y, "w": GRID, "h": 1});
            panels.push(
                json!({"id": id, "type": "row", "title": title, "collapsed": false, "panels": [], "gridPos": place}),
            );
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in row {
                let (width, high) = panel.area();
                if x + width > GRID {
                    (x, y, height) = (0, y + height, 0);
                }
                panels.push(panel.json(panels.len() as u64 + 1, x, y));
                x += width;
                height = height.max(high);
            }
            y += height;
        }
        panels
    }
}

impl Annotation {
    fn json(&self) -> Json {
        json!({
            "name": self.name,
            "datasource": prometheus(),
            "enable": true,
            "iconColor": self.colour,
            "expr": self.expr,
            "titleFormat": self.title,
            "textFormat": self.text,
            "step": "1m",
        })
    }
}
