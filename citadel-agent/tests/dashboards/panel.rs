//! Grafana's JSON of a panel.

use serde_json::{Value as Json, json};

use super::grafana::{link, loki, prometheus};
use super::query::Scope;

/// Values from which a panel has another colour, and the colour; below the first it is green.
pub(crate) type Thresholds = &'static [(f64, &'static str)];

/// How a panel shows its queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Graph,
    Stacked,
    Stat,
    Heatmap,
    Table,
    Logs,
    Text,
}

/// One query, and what its series are called; of a table what its column is.
struct Query {
    expr: String,
    legend: String,
    unit: &'static str,
    thresholds: Thresholds,
}

/// A panel.
pub(crate) struct Panel {
    kind: Kind,
    title: &'static str,
    about: String,
    unit: &'static str,
    queries: Vec<Query>,
    thresholds: Thresholds,
    max: Option<f64>,
    size: (u64, u64),
    links: Vec<(&'static str, &'static str)>,
    /// Names of the series that stand beside a stack.
    beside: Option<&'static str>,
    /// Whether the values are verdicts.
    verdict: bool,
}

impl Panel {
    pub(crate) fn new(kind: Kind, title: &'static str, unit: &'static str) -> Self {
        let size = match kind {
            Kind::Stat => (3, 4),
            Kind::Table | Kind::Logs => (24, 10),
            Kind::Heatmap | Kind::Stacked => (12, 9),
            Kind::Graph | Kind::Text => (8, 8),
        };
        let about = String::new();
        Self {
            kind,
            title,
            about,
            unit,
            queries: Vec::new(),
            thresholds: &[],
            max: None,
            size,
            links: Vec::new(),
            beside: None,
            verdict: false,
        }
    }

    /// Columns and rows of the grid that it takes.
    pub(crate) fn area(&self) -> (u64, u64) {
        self.size
    }

    /// What the panel says, and where to look next.
    pub(crate) fn about(mut self, text: impl Into<String>) -> Self {
        self.about = text.into();
        self
    }

    /// One more query. The legend begins with the host, so that hosts are told apart.
    pub(crate) fn query(mut self, expr: impl Into<String>, legend: &str) -> Self {
        let legend = format!("{{{{instance}}}} {legend}").trim_end().to_owned();
        self.queries.push(Query { expr: expr.into(), legend, unit: "", thresholds: &[] });
        self
    }

    /// One more column of a table.
    pub(crate) fn column(
        mut self,
        title: &str,
        unit: &'static str,
        thresholds: Thresholds,
        expr: impl Into<String>,
    ) -> Self {
        self.queries.push(Query { expr: expr.into(), legend: title.to_owned(), unit, thresholds });
        self
    }

    /// The median and the 99th percentile.
    pub(crate) fn quantiles(self, scope: Scope, by: &str, name: &str, legend: &str) -> Self {
        self.query(scope.quantile(0.5, by, name), &format!("{legend} p50"))
            .query(scope.quantile(0.99, by, name), &format!("{legend} p99"))
    }

    pub(crate) fn thresholds(mut self, thresholds: Thresholds) -> Self {
        self.thresholds = thresholds;
        self
    }

    pub(crate) fn max(mut self, max: f64) -> Self {
        self.max = Some(max);
        self
    }

    pub(crate) fn size(mut self, width: u64, height: u64) -> Self {
        self.size = (width, height);
        self
    }

    /// A link to another dashboard, with the same hosts, model and time.
    pub(crate) fn link(mut self, title: &'static str, dashboard: &'static str) -> Self {
        self.links.push((title, dashboard));
        self
    }

    pub(crate) fn beside(mut self, names: &'static str) -> Self {
        self.beside = Some(names);
        self
    }

    pub(crate) fn verdict(mut self) -> Self {
        self.verdict = true;
        self
    }

    /// Its JSON, at a place of the grid.
    pub(crate) fn json(&self, id: u64, x: u64, y: u64) -> Json {
        let mut panel = json!({
            "id": id,
            "type": self.kind.plugin(),
            "title": self.title,
            "gridPos": {"x": x, "y": y, "w": self.size.0, "h": self.size.1},
            "options": self.options(),
        });
        if !self.about.is_empty() && self.kind != Kind::Text {
            panel["description"] = json!(self.about);
        }
        if self.kind == Kind::Text {
            return panel;
        }
        panel["datasource"] = if self.kind == Kind::Logs { loki() } else { prometheus() };
        panel["targets"] = self.queries.iter().enumerate().map(|(index, query)| self.target(index, query)).collect();
        panel["fieldConfig"] = self.field_config();
        if self.kind == Kind::Table {
            panel["transformations"] = self.transformations();
        }
        if !self.links.is_empty() {
            panel["links"] = self.links.iter().map(|(title, to)| link(title, to)).collect();
        }
        panel
    }

    fn target(&self, index: usize, query: &Query) -> Json {
        let mut target = json!({"refId": letter(index), "expr": query.expr});
        match self.kind {
            Kind::Logs | Kind::Text => {}
            Kind::Table => {
                target["format"] = json!("table");
                target["instant"] = json!(true);
            }
            // Native histograms come as they are; classic buckets become the rows of the map.
            Kind::Heatmap => {
                let classic = query.expr.contains("_bucket");
                target["format"] = json!(if classic { "heatmap" } else { "time_series" });
                target["legendFormat"] = json!(if classic { "{{le}}" } else { "__auto" });
            }
            Kind::Stat => {
                target["legendFormat"] = json!(query.legend);
                target["instant"] = json!(true);
            }
            Kind::Graph | Kind::Stacked => target["legendFormat"] = json!(query.legend),
        }
        target
    }

    fn field_config(&self) -> Json {
        let mut defaults = json!({});
        if !self.unit.is_empty() {
            defaults["unit"] = json!(self.unit);
        }
        if matches!(self.kind, Kind::Graph | Kind::Stacked) {
            defaults["min"] = json!(0);
            let stacked = self.kind == Kind::Stacked;
            defaults["custom"] = json!({
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": if stacked { 60 } else { 8 },
                "showPoints": "never",
                "stacking": {"mode": if stacked { "normal" } else { "none" }, "group": "A"},
                "thresholdsStyle": {"mode": if self.thresholds.is_empty() { "off" } else { "dashed" }},
            });
        }
        if let Some(max) = self.max {
            defaults["max"] = json!(max);
        }
        if !self.thresholds.is_empty() || self.kind == Kind::Stat {
            defaults["thresholds"] = steps(self.thresholds);
        }
        if self.verdict {
            set_verdict(&mut defaults);
        }
        let mut overrides = Vec::new();
        if let Some(names) = self.beside {
            overrides.push(json!({
                "matcher": {"id": "byRegexp", "options": names},
                "properties": [
                    {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.lineWidth", "value": 2},
                ],
            }));
        }
        if self.kind == Kind::Table {
            overrides.extend(self.queries.iter().map(column_override));
            overrides.extend(["instance", "model"].map(row_link));
        }
        json!({"defaults": defaults, "overrides": overrides})
    }

    /// One row for each set of labels; a column is named by its query.
    fn transformations(&self) -> Json {
        let names = self.queries.iter().enumerate();
        let renamed: serde_json::Map<String, Json> = match self.queries.as_slice() {
            // Of one query alone Grafana calls the column so.
            [one] => [("Value".to_owned(), json!(one.legend)), ("Value #A".to_owned(), json!(one.legend))]
                .into_iter()
                .collect(),
            _ => names.map(|(index, query)| (format!("Value #{}", letter(index)), json!(query.legend))).collect(),
        };
        json!([
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": true}, "renameByName": renamed, "indexByName": {}}},
        ])
    }

    fn options(&self) -> Json {
        match self.kind {
            Kind::Graph | Kind::Stacked => json!({
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Kind::Stat => json!({
                "graphMode": "none",
                "colorMode": "background",
                "justifyMode": "auto",
                "textMode": "auto",
                "wideLayout": true,
                "showPercentChange": false,
                "percentChangeColorMode": "standard",
                "orientation": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
            Kind::Heatmap => json!({
                "calculate": false,
                "color": {"mode": "scheme", "scheme": "Oranges", "fill": "dark-orange", "scale": "exponential", "exponent": 0.5, "steps": 64, "reverse": false},
                "showValue": "never",
                "yAxis": {"unit": self.unit, "axisPlacement": "left"},
                "rowsFrame": {"layout": "auto"},
                "filterValues": {"le": 1e-9},
                "cellGap": 1,
                "legend": {"show": true},
                "tooltip": {"mode": "single", "yHistogram": true},
                "exemplars": {"color": "rgba(255,0,255,0.7)"},
            }),
            Kind::Table => {
                let first = self.queries.first().map_or("", |query| query.legend.as_str());
                json!({"showHeader": true, "frameIndex": 0, "cellHeight": "sm", "sortBy": [{"displayName": first, "desc": true}]})
            }
            Kind::Logs => json!({
                "showTime": true,
                "showLabels": false,
                "showCommonLabels": false,
                "showLogContextToggle": true,
                "wrapLogMessage": true,
                "prettifyLogMessage": false,
                "enableLogDetails": true,
                "sortOrder": "Descending",
                "dedupStrategy": "none",
            }),
            Kind::Text => json!({"mode": "markdown", "content": self.about}),
        }
    }
}

impl Kind {
    /// What Grafana calls it.
    fn plugin(self) -> &'static str {
        match self {
            Self::Graph | Self::Stacked => "timeseries",
            Self::Stat => "stat",
            Self::Heatmap => "heatmap",
            Self::Table => "table",
            Self::Logs => "logs",
            Self::Text => "text",
        }
    }
}

fn letter(index: usize) -> String {
    char::from(b'A' + u8::try_from(index).expect("fewer queries than letters")).to_string()
}

fn steps(thresholds: Thresholds) -> Json {
    let first = json!({"value": null, "color": "green"});
    let more = thresholds.iter().map(|(value, colour)| json!({"value": value, "color": colour}));
    let all: Vec<Json> = [first].into_iter().chain(more).collect();
    json!({"mode": "absolute", "steps": all})
}

/// Verdicts as the recording rules number them.
fn verdicts() -> Json {
    json!([{"type": "value", "options": {
        "0": {"text": "ok", "color": "green", "index": 0},
        "1": {"text": "info", "color": "blue", "index": 1},
        "2": {"text": "warning", "color": "orange", "index": 2},
        "3": {"text": "critical", "color": "red", "index": 3},
    }}])
}

const VERDICT: Thresholds = &[(1.0, "blue"), (2.0, "orange"), (3.0, "red")];

fn set_verdict(defaults: &mut Json) {
    defaults["mappings"] = verdicts();
    defaults["thresholds"] = steps(VERDICT);
}

fn column_override(query: &Query) -> Json {
    let mut properties = Vec::new();
    if !query.unit.is_empty() {
        properties.push(json!({"id": "unit", "value": query.unit}));
    }
    let verdict = query.legend == "Verdict" || query.legend == "Severity";
    if verdict {
        properties.push(json!({"id": "mappings", "value": verdicts()}));
    }
    let thresholds = if verdict { VERDICT } else { query.thresholds };
    if !thresholds.is_empty() {
        properties.push(json!({"id": "thresholds", "value": steps(thresholds)}));
        properties.push(json!({"id": "custom.cellOptions", "value": {"type": "color-background", "mode": "basic"}}));
    }
    json!({"matcher": {"id": "byName", "options": query.legend}, "properties": properties})
}

/// From a table's row to the dashboard of its model, or of its host.
fn row_link(label: &str) -> Json {
    let (title, url) = match label {
        "model" => (
            "This model",
            "/d/citadel-model?var-instance=${__data.fields.instance}&var-model=${__data.fields.model}&${__url_time_range}",
        ),
        _ => ("This host", "/d/citadel-host?var-instance=${__data.fields.instance}&${__url_time_range}"),
    };
    let links = json!([{"title": title, "url": url, "targetBlank": false}]);
    json!({"matcher": {"id": "byName", "options": label}, "properties": [{"id": "links", "value": links}]})
}
