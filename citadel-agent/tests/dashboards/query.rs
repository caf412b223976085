//! PromQL as the dashboards write it: each selector has the dashboard's variables, each aggregation keeps `instance`.

/// The matchers that a dashboard's variables make.
#[derive(Clone, Copy)]
pub(crate) struct Scope(&'static str);

/// The chosen hosts.
pub(crate) const HOST: Scope = Scope(r#"instance=~"$instance""#);

/// The one host of the dashboard of a model. Grafana escapes for regular expressions only where several can be chosen.
pub(crate) const ONE_HOST: Scope = Scope(r#"instance="$instance""#);

/// The chosen model on that host.
pub(crate) const MODEL: Scope = Scope(r#"instance="$instance",model="$model""#);

impl Scope {
    /// The series `name` within this scope that `matchers` choose as well.
    pub(crate) fn series(self, name: &str, matchers: &str) -> String {
        let separator = if matchers.is_empty() { "" } else { "," };
        format!("{name}{{{}{separator}{matchers}}}", self.0)
    }

    /// How much a counter grows a second.
    pub(crate) fn rate(self, name: &str, matchers: &str) -> String {
        format!("rate({}[$__rate_interval])", self.series(name, matchers))
    }

    /// The same, summed over all labels but `instance` and those of `by`.
    pub(crate) fn sum_rate(self, by: &str, name: &str, matchers: &str) -> String {
        sum(by, &self.rate(name, matchers))
    }

    /// How much a counter has grown within `window`.
    pub(crate) fn increase(self, by: &str, name: &str, matchers: &str, window: &str) -> String {
        sum(by, &format!("increase({}[{window}])", self.series(name, matchers)))
    }

    /// A quantile of a histogram, from its native buckets where Prometheus has them, else from its classic ones.
    pub(crate) fn quantile(self, quantile: f64, by: &str, name: &str) -> String {
        let native = sum(by, &self.rate(name, ""));
        let with_le = if by.is_empty() { "le".to_owned() } else { format!("{by}, le") };
        let classic = sum(&with_le, &self.rate(&format!("{name}_bucket"), ""));
        format!("histogram_quantile({quantile}, {native}) or histogram_quantile({quantile}, {classic})")
    }

    /// `expression`, and 0 where it has no series of a host (and model) that is measured: no errors are not no data.
    pub(crate) fn or_zero(self, expression: &str) -> String {
        let (on, measured) = match self.0 == MODEL.0 {
            true => ("instance, model", sum("model", &self.series("citadel_model_requests_in_flight", ""))),
            false => ("instance", by("max", "", &self.series("citadel_agent_build_info", ""))),
        };
        format!("{expression} or on ({on}) 0 * {measured}")
    }
}

/// `sum` over all labels but `instance` and `labels`.
pub(crate) fn sum(labels: &str, expression: &str) -> String {
    by("sum", labels, expression)
}

/// An aggregation over all labels but `instance` and `labels`.
pub(crate) fn by(operator: &str, labels: &str, expression: &str) -> String {
    let separator = if labels.is_empty() { "" } else { ", " };
    format!("{operator} by (instance{separator}{labels}) ({expression})")
}

/// Of series that other programs have as well (`process_*`), those of agents.
pub(crate) fn own(expression: &str) -> String {
    format!("({expression} and on (instance, job) citadel_agent_build_info)")
}
