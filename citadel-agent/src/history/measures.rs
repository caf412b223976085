//! Which metrics are stored, and under which key: one row per metric. Also the increase from one page to the next.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use citadel_agent_common::hist::CELLS;
use smol_str::{SmolStr, format_smolstr};

use super::Subject;
use super::interval::{Cell, Interval, Key, Keys, Kind, Level, Sparse};
use super::window::upper_bound;
use crate::metrics::catalogue::{self, Desc, Since, engine, gpu, log_events, models, storage, system};
use crate::metrics::family::{Family, Page, Sample, Value};

/// The subject of a metric, and the labels that identify it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Of {
    /// `model` and `port` are the first labels. Samples without a model belong to the GPU in the label `gpu`, under a
    /// different key.
    Model,
    /// `gpu` and `index` are the first labels.
    Gpu,
    /// The host.
    Host,
}

/// How a metric is converted to cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// Increase, summed over all labels that are not part of the key.
    Count,
    /// The same, in millionths.
    Micro,
    /// A gauge, summed in the same way.
    Gauge,
    /// The histogram.
    Histogram,
    /// From a histogram: `KEY_seconds`, `KEY_calls` and `KEY_longest`, by label.
    Calls,
    /// The value of a label, as a gauge.
    Label,
}

/// A row of the table.
#[derive(Debug)]
struct Row {
    desc: &'static Desc,
    of: Of,
    how: How,
    key: &'static str,
    /// Labels whose values are appended to the key.
    by: &'static [&'static str],
}

const fn row(of: Of, how: How, key: &'static str, by: &'static [&'static str], desc: &'static Desc) -> Row {
    Row { desc, of, how, key, by }
}

/// The stored metrics.
const ROWS: &[Row] = &[
    row(Of::Model, How::Count, "requests", &["endpoint", "code"], &models::REQUESTS),
    row(Of::Model, How::Gauge, "in_flight", &[], &models::REQUESTS_IN_FLIGHT),
    row(Of::Model, How::Gauge, "oldest_request_seconds", &[], &models::OLDEST_REQUEST),
    row(Of::Model, How::Gauge, "longest_wait_seconds", &[], &models::LONGEST_WAIT),
    row(Of::Model, How::Count, "aborted", &["side", "phase"], &models::REQUESTS_ABORTED),
    row(Of::Model, How::Histogram, "duration", &["outcome"], &models::REQUEST_DURATION),
    row(Of::Model, How::Histogram, "first_byte", &[], &models::TIME_TO_FIRST_BYTE),
    row(Of::Model, How::Histogram, "first_token", &[], &models::TIME_TO_FIRST_TOKEN),
    row(Of::Model, How::Histogram, "inter_token", &[], &models::INTER_TOKEN_LATENCY),
    row(Of::Model, How::Count, "chunks", &[], &models::STREAM_CHUNKS),
    row(Of::Model, How::Histogram, "receive_queue", &[], &models::RECEIVE_QUEUE),
    row(Of::Model, How::Count, "bytes_in", &[], &models::REQUEST_BYTES),
    row(Of::Model, How::Count, "bytes_out", &[], &models::RESPONSE_BYTES),
    row(Of::Model, How::Gauge, "connections_open", &[], &models::CONNECTIONS_OPEN),
    row(Of::Model, How::Count, "connections", &["protocol"], &models::CONNECTIONS),
    row(Of::Model, How::Gauge, "held_back_connections", &[], &models::CONNECTIONS_HELD_BACK),
    row(Of::Model, How::Gauge, "accept_queue", &[], &models::ACCEPT_QUEUE),
    row(Of::Model, How::Gauge, "accept_queue_limit", &[], &models::ACCEPT_QUEUE_LIMIT),
    row(Of::Model, How::Count, "major_faults", &[], &models::MAJOR_FAULTS),
    row(Of::Model, How::Micro, "throttled_seconds", &[], &models::CPU_THROTTLED),
    row(Of::Model, How::Histogram, "rtt", &[], &models::TCP_RTT),
    row(Of::Model, How::Count, "retransmits", &[], &models::TCP_RETRANSMITS),
    row(Of::Model, How::Gauge, "up", &[], &models::MODEL_UP),
    row(Of::Model, How::Label, "pid", &["pid"], &models::INFO),
    row(Of::Model, How::Micro, "cpu_seconds", &["mode"], &models::CPU),
    row(Of::Model, How::Gauge, "memory_bytes", &["kind"], &models::MEMORY),
    row(Of::Model, How::Histogram, "run_queue", &[], &models::RUN_QUEUE),
    row(Of::Model, How::Micro, "on_cpu_seconds", &[], &models::ON_CPU),
    row(Of::Model, How::Calls, "syscall", &["syscall"], &models::SYSCALL_DURATION),
    row(Of::Model, How::Gauge, "gpu_memory_bytes", &["gpu"], &models::GPU_MEMORY),
    row(Of::Model, How::Gauge, "gpu_sm_ratio", &["gpu"], &models::GPU_SM),
    row(Of::Model, How::Micro, "gpu_joules", &[], &models::GPU_ENERGY),
    row(Of::Model, How::Gauge, "engine_running", &[], &engine::REQUESTS_RUNNING),
    row(Of::Model, How::Gauge, "engine_waiting", &[], &engine::REQUESTS_WAITING),
    row(Of::Model, How::Gauge, "engine_swapped", &[], &engine::REQUESTS_SWAPPED),
    row(Of::Model, How::Gauge, "kv_cache_ratio", &[], &engine::KV_CACHE_USAGE),
    row(Of::Model, How::Gauge, "engine_sleeping", &[], &engine::SLEEPING),
    row(Of::Model, How::Count, "prefix_queries", &[], &engine::PREFIX_CACHE_QUERIES),
    row(Of::Model, How::Count, "prefix_hits", &[], &engine::PREFIX_CACHE_HITS),
    row(Of::Model, How::Count, "preemptions", &[], &engine::PREEMPTIONS),
    row(Of::Model, How::Count, "tokens", &["kind"], &engine::TOKENS),
    row(Of::Model, How::Count, "stated_tokens", &["kind"], &models::TOKENS),
    row(Of::Model, How::Count, "missing_usage", &[], &models::REQUESTS_WITHOUT_USAGE),
    row(Of::Model, How::Micro, "phase_seconds", &["phase"], &engine::PHASE_SECONDS),
    row(Of::Model, How::Count, "phases", &["phase"], &engine::PHASES),
    row(Of::Model, How::Count, "log_events", &["event"], &log_events::LOG_EVENTS),
    row(Of::Gpu, How::Gauge, "up", &[], &gpu::UP),
    row(Of::Gpu, How::Gauge, "utilization_ratio", &[], &gpu::UTILIZATION),
    row(Of::Gpu, How::Gauge, "memory_used_bytes", &[], &gpu::MEMORY_USED),
    row(Of::Gpu, How::Gauge, "memory_total_bytes", &[], &gpu::MEMORY_TOTAL),
    row(Of::Gpu, How::Gauge, "power_watts", &[], &gpu::POWER),
    row(Of::Gpu, How::Gauge, "power_limit_watts", &[], &gpu::POWER_LIMIT),
    row(Of::Gpu, How::Gauge, "power_limit_default_watts", &[], &gpu::POWER_LIMIT_DEFAULT),
    row(Of::Gpu, How::Gauge, "temperature_celsius", &["sensor"], &gpu::TEMPERATURE),
    row(Of::Gpu, How::Gauge, "clock_hertz", &["clock"], &gpu::CLOCK),
    row(Of::Gpu, How::Gauge, "throttle_active", &["reason"], &gpu::THROTTLE_ACTIVE),
    row(Of::Gpu, How::Micro, "throttle_seconds", &["reason"], &gpu::THROTTLE_SECONDS),
    row(Of::Gpu, How::Micro, "joules", &[], &gpu::ENERGY),
    row(Of::Gpu, How::Count, "xid", &["xid"], &gpu::XID_ERRORS),
    row(Of::Gpu, How::Count, "pcie_replays", &[], &gpu::PCIE_REPLAYS),
    row(Of::Gpu, How::Count, "pcie_errors", &["kind"], &gpu::PCIE_ERRORS),
    row(Of::Gpu, How::Gauge, "pcie_width", &[], &gpu::PCIE_WIDTH),
    row(Of::Gpu, How::Gauge, "pcie_max_width", &[], &gpu::PCIE_WIDTH_MAX),
    row(Of::Gpu, How::Count, "nvlink_errors", &["kind"], &gpu::NVLINK_ERRORS),
    row(Of::Gpu, How::Count, "ecc", &["kind"], &gpu::ECC_VOLATILE),
    row(Of::Host, How::Micro, "cpu_seconds", &["mode"], &system::CPU_SECONDS),
    row(Of::Host, How::Micro, "pressure_seconds.cpu_waiting", &[], &system::PRESSURE_CPU_WAITING),
    row(Of::Host, How::Micro, "pressure_seconds.io_waiting", &[], &system::PRESSURE_IO_WAITING),
    row(Of::Host, How::Micro, "pressure_seconds.io_stalled", &[], &system::PRESSURE_IO_STALLED),
    row(Of::Host, How::Micro, "pressure_seconds.memory_waiting", &[], &system::PRESSURE_MEMORY_WAITING),
    row(Of::Host, How::Micro, "pressure_seconds.memory_stalled", &[], &system::PRESSURE_MEMORY_STALLED),
];

/// A metric from a table of fields: the table, the conversion, the name in the source, the key, the labels appended to
/// it.
type OfField = (&'static [catalogue::Field], How, &'static str, &'static str, &'static [&'static str]);

/// The stored metrics from tables of fields.
const FIELDS: &[OfField] = &[
    (system::MEMINFO, How::Gauge, "MemAvailable", "memory_available_bytes", &[]),
    (system::MEMINFO, How::Gauge, "MemTotal", "memory_total_bytes", &[]),
    (system::MEMINFO, How::Gauge, "SwapFree", "swap_free_bytes", &[]),
    (system::VMSTAT, How::Count, "pgmajfault", "major_faults", &[]),
    (system::VMSTAT, How::Count, "pswpin", "swapped_in_pages", &[]),
    (system::VMSTAT, How::Count, "pswpout", "swapped_out_pages", &[]),
    (system::VMSTAT, How::Count, "oom_kill", "oom_kills", &[]),
    (system::NETSTAT, How::Count, "TcpExt_ListenOverflows", "listen_overflows", &[]),
    (system::NETSTAT, How::Count, "TcpExt_ListenDrops", "listen_drops", &[]),
    (system::NETSTAT, How::Count, "Tcp_RetransSegs", "retransmits", &[]),
    (storage::DISKSTATS, How::Micro, "io_time_seconds_total", "disk_busy_seconds", &["device"]),
];

/// For the documentation: subject, keys, labels, and the metrics that they come from.
#[cfg(test)]
pub(super) fn documented() -> impl Iterator<Item = (&'static str, String, String, &'static str)> {
    let all = rows().into_values().flatten().map(|row| {
        let of = match row.of {
            Of::Model => "model",
            Of::Gpu => "GPU",
            Of::Host => "host",
        };
        let key = match row.how {
            How::Calls => format!("{0}_seconds`, `{0}_calls`, `{0}_longest", row.key),
            _ => row.key.to_owned(),
        };
        let labels = if row.how == How::Label { String::new() } else { row.by.join(", ") };
        (catalogue::position(row.desc), (of, key, labels, row.desc.name))
    });
    let mut all: Vec<_> = all.collect();
    all.sort();
    all.into_iter().map(|(_, row)| row)
}

/// The models that a page says listen, by port.
pub(super) fn listening(page: &Page) -> impl Iterator<Item = (u16, SmolStr)> {
    let info = page.families.iter().filter(|family| std::ptr::eq(family.desc, &raw const models::INFO));
    info.flat_map(|family| &family.samples)
        .filter_map(|sample| Some((sample.labels.get(1)?.parse().ok()?, sample.labels[0].clone())))
}

/// The intervals of a page by subject, with the subject's name.
pub(super) type Intervals = BTreeMap<Subject, (SmolStr, Interval)>;

/// The last state of all counters and histograms.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Rows by the name of their metric; filled with the first page. Not by its address: the fields of a table have several, one in
    /// each unit of code that has a constant made from the table.
    rows: HashMap<&'static str, Vec<Row>>,
    counters: HashMap<(Subject, Key), f64>,
    histograms: HashMap<(Subject, Key), Box<[u64; CELLS]>>,
    /// The subjects of the last page.
    subjects: BTreeSet<Subject>,
}

/// A page's values, with the series of one key summed.
#[derive(Default)]
struct Values {
    names: BTreeMap<Subject, SmolStr>,
    counters: HashMap<(Subject, Key), (f64, Kind, Option<Since>)>,
    levels: HashMap<(Subject, Key), f64>,
    histograms: HashMap<(Subject, Key), Box<[u64; CELLS]>>,
    calls: Vec<(Subject, SmolStr, Key, Box<[u64; CELLS]>)>,
    /// Whether kernel programs were taken over, and so have counted before this run.
    taken_over: bool,
}

impl Reader {
    /// The increases since the last page, and the current gauges.
    pub(super) fn read(&mut self, page: &Page, keys: &mut Keys) -> Intervals {
        if self.rows.is_empty() {
            self.rows = rows();
        }
        let start = page.start_seconds();
        let mut values = Values::default();
        for family in &page.families {
            values.taken_over |= family.began.zip(start).is_some_and(|(began, start)| began < start);
            for row in self.rows.get(family.desc.name).into_iter().flatten() {
                values.take(row, family, keys);
            }
        }
        self.intervals(values, keys)
    }

    fn intervals(&mut self, values: Values, keys: &mut Keys) -> Intervals {
        let subjects = values.names.keys().cloned().collect();
        let before = std::mem::replace(&mut self.subjects, subjects);
        // What such a subject has on a counter of the kernel programs was counted before this run.
        let is_older = |subject: &Subject| values.taken_over && !before.contains(subject);
        let mut intervals: Intervals =
            values.names.into_iter().map(|(subject, name)| (subject, (name, Interval::default()))).collect();
        let mut add = |subject: &Subject, key: Key, cell: Cell| {
            if let Some((_, interval)) = intervals.get_mut(subject) {
                interval.0.insert(key, cell);
            }
        };
        let mut counters = HashMap::with_capacity(values.counters.len());
        for ((subject, key), (now, kind, since)) in values.counters {
            let last = self.counters.get(&(subject.clone(), key)).copied();
            let growth = match since {
                Some(Since::Programs) if last.is_none() && is_older(&subject) => 0.0,
                _ => growth(last, now, since),
            };
            let growth = if kind == Kind::Micro { growth * 1e6 } else { growth };
            // Above this, not every integer is an f64.
            if (1.0..9e15).contains(&growth.round()) {
                add(&subject, key, Cell::Sum(growth.round() as u64));
            }
            counters.insert((subject, key), now);
        }
        for ((subject, key), value) in values.levels {
            if value.is_finite() {
                add(&subject, key, Cell::Level(Level::of(value)));
            }
        }
        const NOTHING: [u64; CELLS] = [0; CELLS];
        let mut histograms = HashMap::with_capacity(values.histograms.len());
        for ((subject, key), now) in values.histograms {
            let last = self.histograms.get(&(subject.clone(), key));
            let growth = Sparse::growth(last.map_or(&NOTHING, |last| last), &now);
            if !growth.cells.is_empty() && (last.is_some() || !is_older(&subject)) {
                add(&subject, key, Cell::Histogram(growth));
            }
            histograms.insert((subject, key), now);
        }
        for (subject, call, key, now) in values.calls {
            let last = self.histograms.get(&(subject.clone(), key));
            let growth = Sparse::growth(last.map_or(&NOTHING, |last| last), &now);
            if let Some(&(longest, _)) = growth.cells.last()
                && (last.is_some() || !is_older(&subject))
            {
                let index = i16::from(longest) + super::window::ZERO_BUCKET;
                let cells = [
                    ("syscall_seconds", Kind::Micro, Cell::Sum(growth.sum_ns / 1000)),
                    ("syscall_calls", Kind::Count, Cell::Sum(growth.cells.iter().map(|(_, count)| count).sum())),
                    ("syscall_longest", Kind::Gauge, Cell::Level(Level::of(upper_bound(index)))),
                ];
                for (name, kind, cell) in cells {
                    if let Some(key) = keys.number(&format_smolstr!("{name}.{call}"), kind) {
                        add(&subject, key, cell);
                    }
                }
            }
            histograms.insert((subject, key), now);
        }
        // A series that disappeared starts from scratch when it returns.
        (self.counters, self.histograms) = (counters, histograms);
        intervals
    }
}

impl Values {
    fn take(&mut self, row: &Row, family: &Family, keys: &mut Keys) {
        for sample in &family.samples {
            let Some((subject, name, foreign)) = subject(row.of, family.desc, sample) else { continue };
            // The part of a GPU that belongs to no model.
            let mut key = if foreign { format!("other_{}", row.key) } else { row.key.to_owned() };
            for label in row.by.iter().filter(|label| !foreign || **label != "gpu") {
                if row.how == How::Label {
                    continue;
                }
                key.push('.');
                key.push_str(value_of(family.desc, sample, label).unwrap_or_default());
            }
            if !foreign || !self.names.contains_key(&subject) {
                self.names.insert(subject.clone(), name);
            }
            self.add(row, family.desc, sample, subject, &key, keys);
        }
    }

    fn add(&mut self, row: &Row, desc: &Desc, sample: &Sample, subject: Subject, key: &str, keys: &mut Keys) {
        let number = match sample.value {
            Value::Integer(value) => value as f64,
            Value::Float(value) => value,
            Value::Histogram(_) => 0.0,
        };
        let kind = match row.how {
            How::Count => Kind::Count,
            How::Micro => Kind::Micro,
            How::Gauge | How::Label => Kind::Gauge,
            How::Histogram | How::Calls => Kind::Histogram,
        };
        let Some(id) = keys.number(key, kind) else { return };
        match (row.how, &sample.value) {
            (How::Count | How::Micro, _) => {
                self.counters.entry((subject, id)).or_insert((0.0, kind, desc.since)).0 += number;
            }
            (How::Gauge, _) => *self.levels.entry((subject, id)).or_insert(0.0) += number,
            (How::Label, _) => {
                let value = row.by.first().and_then(|label| value_of(desc, sample, label));
                if let Some(value) = value.and_then(|value| value.parse().ok()) {
                    self.levels.insert((subject, id), value);
                }
            }
            (How::Histogram, Value::Histogram(histogram)) => {
                let sum = self.histograms.entry((subject, id)).or_insert_with(|| Box::new([0; CELLS]));
                sum.iter_mut().zip(&histogram.cells).for_each(|(sum, more)| *sum += more);
            }
            (How::Calls, Value::Histogram(histogram)) => {
                let call = row.by.first().and_then(|label| value_of(desc, sample, label)).unwrap_or_default();
                self.calls.push((subject, call.into(), id, Box::new(histogram.cells)));
            }
            (How::Histogram | How::Calls, _) => {}
        }
    }
}

/// The increase of a counter; see [`Since`].
fn growth(last: Option<f64>, now: f64, since: Option<Since>) -> f64 {
    match (last, since) {
        (Some(last), _) if now >= last => now - last,
        (Some(_), Some(Since::Lifetime)) => 0.0,
        // It was reset.
        (Some(_), _) => now,
        // It appeared: its whole value is an increase only if it counts from the agent's start.
        (None, Some(Since::Start | Since::Programs)) => now,
        (None, _) => 0.0,
    }
}

/// The subject of a sample, its name, and whether it is the part of a GPU that belongs to no model.
fn subject(of: Of, desc: &Desc, sample: &Sample) -> Option<(Subject, SmolStr, bool)> {
    let label = |at: usize| sample.labels.get(at).map(SmolStr::as_str);
    match of {
        Of::Host => Some((Subject::Host, SmolStr::new_static("host"), false)),
        Of::Gpu => Some((Subject::Gpu(label(0)?.into()), label(1)?.into(), false)),
        Of::Model => match label(1)?.parse() {
            Ok(port) => Some((Subject::Model(port), label(0)?.into(), false)),
            Err(_) => Some((Subject::Gpu(value_of(desc, sample, "gpu")?.into()), SmolStr::default(), true)),
        },
    }
}

fn value_of<'a>(desc: &Desc, sample: &'a Sample, label: &str) -> Option<&'a str> {
    let at = desc.labels.iter().position(|name| *name == label)?;
    sample.labels.get(at).map(SmolStr::as_str)
}

fn rows() -> HashMap<&'static str, Vec<Row>> {
    let mut rows: HashMap<&'static str, Vec<Row>> = HashMap::new();
    for &Row { desc, of, how, key, by } in ROWS {
        rows.entry(desc.name).or_default().push(Row { desc, of, how, key, by });
    }
    for &(table, how, field, key, by) in FIELDS {
        if let Some(field) = table.iter().find(|entry| entry.key == field) {
            rows.entry(field.desc.name).or_default().push(Row { desc: &field.desc, of: Of::Host, how, key, by });
        }
    }
    rows
}
