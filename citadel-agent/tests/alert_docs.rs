//! `docs/alerts.md` lists the shipped rules as they are.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use citadel_agent::config::resolved::Config;
use citadel_agent::config::resolved::alerts::{Condition, Function, Operand, Rule, optional};
use citadel_agent::config::selector_text;

const BEGIN: &str =
    "<!-- Made from the shipped rules: UPDATE_DOCS=1 cargo test -p citadel-agent --test alert_docs -->\n";
const END: &str = "<!-- end -->\n";

fn operand(operand: &Operand) -> String {
    let span = humantime::format_duration;
    let selector = format!("`{}`", selector_text(&operand.selector).replace('|', "\\|"));
    match operand.function {
        Function::Value => selector,
        Function::Rate { window } => format!("rate of {selector} over {}", span(window)),
        Function::Increase { window } => format!("increase of {selector} over {}", span(window)),
        Function::Quantile { quantile, window } => {
            format!("{quantile} quantile of {selector} over {}", span(window))
        }
        Function::Predict { window, ahead } => {
            format!("{selector} in {}, by its last {}", span(ahead), span(window))
        }
    }
}

fn condition(condition: &Condition) -> String {
    let mut text = operand(&condition.operand);
    if let Some(divisor) = &condition.divide_by {
        _ = write!(text, " / {}", operand(divisor));
    }
    format!("{text} {} {}", condition.compare.operator(), condition.threshold)
}

fn row(rule: &Rule) -> String {
    let conditions = rule.conditions().map(condition).collect::<Vec<_>>().join(" and ");
    let hold = if rule.hold.is_zero() { String::new() } else { humantime::format_duration(rule.hold).to_string() };
    format!("| {} | {} | {hold} | {conditions} |\n", rule.name, rule.severity.name())
}

#[test]
fn the_shipped_rules_are_listed_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/alerts.md");
    let rows = |rules: &[Rule]| rules.iter().map(row).collect::<String>();
    let head = "| alert | severity | for | true when |\n|---|---|---|---|\n";
    let (on, off) = (rows(&Config::default().alerts.rules), rows(&optional()));
    let table = format!(
        "{head}{on}\nOff by default, because it is normal on some hosts; `alerts.override.NAME.enabled: true` turns it on:\n\n{head}{off}"
    );
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
    } else {
        assert!(listed == table, "run UPDATE_DOCS=1 cargo test -p citadel-agent --test alert_docs");
    }
}
