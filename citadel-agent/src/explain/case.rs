//! The numbers of a case: what a window has, per request.

use crate::history::window::{Distribution, Window};

/// Fewer requests than this say nothing.
pub(super) const ENOUGH: f64 = 5.0;

/// Standard errors by which the mean of a window's requests differs from the usual mean by chance: latencies have long tails,
/// and every window of every model is judged.
const CHANCE: f64 = 4.0;

/// One of the host's GPUs.
#[derive(Clone, Debug)]
pub(super) struct Gpu {
    pub(super) uuid: String,
    pub(super) index: String,
    pub(super) now: Window,
    pub(super) before: Window,
}

/// Two windows of a model, and what stands around it.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) now: Facts<'a>,
    pub(super) before: Facts<'a>,
    pub(super) host: Window2<'a>,
    /// The GPUs that the model uses, or used before.
    pub(super) gpus: Vec<&'a Gpu>,
    /// The other models, by name.
    pub(super) others: Vec<(&'a str, &'a Window, &'a Window)>,
    /// What takes longer, if anything.
    pub(super) slow: Option<Slow>,
}

/// A window now and before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window2<'a> {
    pub(super) now: &'a Window,
    pub(super) before: &'a Window,
}

impl Window2<'_> {
    /// How much a sum grew a second, now and before.
    pub(super) fn rates(&self, key: &str) -> (f64, f64) {
        (rate(self.now, self.now.sum(key)), rate(self.before, self.before.sum(key)))
    }
}

/// A sum of a window by second.
pub(super) fn rate(window: &Window, sum: f64) -> f64 {
    if window.covered_seconds > 0.0 { sum / window.covered_seconds } else { 0.0 }
}

/// What takes longer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Slow {
    pub(super) what: What,
    /// Mean in seconds.
    pub(super) now: f64,
    /// 0 without a comparison.
    pub(super) before: f64,
    /// Seconds a request that it takes longer.
    pub(super) excess: f64,
}

/// Of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum What {
    FirstToken,
    FirstByte,
    InterToken,
    Duration,
}

impl What {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::FirstToken => "time to first token",
            Self::FirstByte => "time to first byte",
            Self::InterToken => "time between chunks",
            Self::Duration => "time of a request",
        }
    }
}

/// Numbers of one window.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub(super) window: &'a Window,
    /// Requests whose response ended.
    pub(super) ended: f64,
    /// Requests that were given up.
    pub(super) aborted: f64,
    /// Of 500 and above.
    pub(super) server_errors: f64,
}

/// System calls that work on files: what a slow disk makes slow. Sockets have the others.
pub(super) const DISK_CALLS: [&str; 8] =
    ["fsync", "fdatasync", "openat", "pread64", "pwrite64", "read", "write", "writev"];

/// System calls that wait for others by their nature; their time is no work.
fn waits(call: &str) -> bool {
    citadel_agent_common::calls::CALLS.iter().any(|known| known.name == call && known.waits)
}

impl<'a> Facts<'a> {
    pub(super) fn of(window: &'a Window) -> Self {
        let mut facts = Self { window, ended: 0.0, aborted: window.total_of("aborted"), server_errors: 0.0 };
        for (key, count) in window.requests_of_users() {
            facts.ended += count;
            let code = key.rsplit('.').next().and_then(|code| code.parse::<u16>().ok());
            if code.is_some_and(|code| code >= 500) {
                facts.server_errors += count;
            }
        }
        facts
    }

    /// Whether there are requests enough to say something.
    pub(super) fn enough(&self) -> bool {
        self.requests() >= ENOUGH
    }

    /// Requests that came to an end, whichever.
    pub(super) fn requests(&self) -> f64 {
        self.ended + self.aborted
    }

    /// By request; 0 without any.
    pub(super) fn each(&self, sum: f64) -> f64 {
        if self.requests() > 0.0 { sum / self.requests() } else { 0.0 }
    }

    pub(super) fn per_second(&self) -> f64 {
        rate(self.window, self.requests())
    }

    pub(super) fn histogram(&self, key: &str) -> Option<&'a Distribution> {
        self.window.histogram(key)
    }

    pub(super) fn mean(&self, key: &str) -> Option<f64> {
        self.histogram(key).and_then(Distribution::mean)
    }

    /// The latency to the first token, or where nothing is streamed to the first byte.
    pub(super) fn first(&self) -> Option<(What, &'a Distribution)> {
        let streamed = self.histogram("first_token").map(|found| (What::FirstToken, found));
        let any = self.histogram("first_byte").map(|found| (What::FirstByte, found));
        match (streamed, any) {
            // Mostly streamed.
            (Some((_, tokens)), Some((_, bytes))) if tokens.count * 2 < bytes.count => any,
            (Some(_), _) => streamed,
            _ => any,
        }
    }

    /// Seconds that a request waits until the server reads it.
    pub(super) fn receive_queue(&self) -> f64 {
        self.mean("receive_queue").unwrap_or(0.0)
    }

    /// Seconds on the run queue by request, all threads together.
    pub(super) fn run_queue(&self) -> f64 {
        self.each(self.histogram("run_queue").map_or(0.0, |found| found.sum))
    }

    /// Seconds on a CPU by request.
    pub(super) fn on_cpu(&self) -> f64 {
        let on_cpu = self.window.sum("on_cpu_seconds");
        self.each(if on_cpu > 0.0 { on_cpu } else { self.window.total_of("cpu_seconds") })
    }

    /// Seconds in a system call by request.
    pub(super) fn call(&self, call: &str) -> f64 {
        self.each(self.window.sum(&format!("syscall_seconds.{call}")))
    }

    /// Seconds in calls that work (and do not wait by their nature), those of sockets and pipes left out.
    pub(super) fn disk_calls(&self) -> f64 {
        DISK_CALLS.iter().map(|call| self.call(call)).sum()
    }

    /// Calls that work, with their seconds by request.
    pub(super) fn calls(&self) -> impl Iterator<Item = (&'a str, f64)> {
        let requests = self.requests().max(1.0);
        let calls = self.window.sums_of("syscall_seconds");
        calls.filter(|(call, _)| !waits(call)).map(move |(call, seconds)| (call, seconds / requests))
    }

    /// Mean seconds in the engine's queue by request, where the engine says so.
    pub(super) fn phase(&self, phase: &str) -> Option<f64> {
        let seconds = self.window.sums.get(&format!("phase_seconds.{phase}")).copied();
        let count = self.window.sum(&format!("phases.{phase}"));
        let count = if count > 0.0 { count } else { self.requests() };
        seconds.filter(|_| count > 0.0).map(|seconds| seconds / count)
    }

    pub(super) fn gauge_mean(&self, key: &str) -> Option<f64> {
        self.window.gauge(key).map(|gauge| gauge.mean)
    }

    /// Chunks by request.
    pub(super) fn chunks(&self) -> f64 {
        self.each(self.window.sum("chunks"))
    }

    /// Whether a family of the kernel programs, or a source, was there.
    pub(super) fn has(&self, prefix: &str) -> bool {
        let window = self.window;
        let begins =
            |key: &String| key.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        window.sums.keys().any(begins) || window.gauges.keys().any(begins) || window.histograms.keys().any(begins)
    }
}

impl<'a> Case<'a> {
    pub(super) fn new(
        now: &'a Window,
        before: &'a Window,
        host: (&'a Window, &'a Window),
        gpus: &'a [Gpu],
        others: Vec<(&'a str, &'a Window, &'a Window)>,
    ) -> Self {
        let used = |gpu: &&Gpu| {
            let key = format!("gpu_memory_bytes.{}", gpu.uuid);
            now.gauges.contains_key(&key) || before.gauges.contains_key(&key)
        };
        let mut case = Self {
            now: Facts::of(now),
            before: Facts::of(before),
            host: Window2 { now: host.0, before: host.1 },
            gpus: gpus.iter().filter(used).collect(),
            others,
            slow: None,
        };
        case.slow = case.slowness();
        case
    }

    /// Whether there is something to compare with.
    pub(super) fn compared(&self) -> bool {
        self.before.enough()
    }

    fn slowness(&self) -> Option<Slow> {
        if !self.now.enough() {
            return None;
        }
        let first = self.now.first().and_then(|(what, now)| {
            let key = if what == What::FirstToken { "first_token" } else { "first_byte" };
            self.longer(what, now, self.before.histogram(key), 0.02)
        });
        let inter_token = self.now.histogram("inter_token").and_then(|now| {
            let slow = self.longer(What::InterToken, now, self.before.histogram("inter_token"), 0.005)?;
            Some(Slow { excess: slow.excess * self.now.chunks().max(1.0), ..slow })
        });
        let duration = self
            .now
            .histogram("duration.success")
            .and_then(|now| self.longer(What::Duration, now, self.before.histogram("duration.success"), 0.05));
        // Of the first two, what costs a request more; the whole only where neither says it.
        let most = [first, inter_token].into_iter().flatten().max_by(|a, b| a.excess.total_cmp(&b.excess));
        most.or(duration)
    }

    fn longer(&self, what: What, now: &Distribution, before: Option<&Distribution>, least: f64) -> Option<Slow> {
        // Without a comparison nobody can say what is normal.
        let (now, before) = difference(now, before?, least)?;
        Some(Slow { what, now, before, excess: now - before })
    }

    /// How much of what takes longer so many seconds by request are; 0 where nothing does.
    pub(super) fn share(&self, seconds: f64) -> f64 {
        self.slow.map_or(0.0, |slow| (seconds / slow.excess).clamp(0.0, 1.0))
    }

    /// By how much something grew by request. Without a comparison nothing did.
    pub(super) fn excess(&self, of: impl Fn(&Facts<'a>) -> f64) -> f64 {
        if self.compared() { (of(&self.now) - of(&self.before)).max(0.0) } else { 0.0 }
    }
}

/// The means of a window and of what it is compared with, if the first is half as long again, by at least so many seconds,
/// because of more than one or two requests, and by more than requests differ by chance.
pub(super) fn difference(now: &Distribution, before: &Distribution, least: f64) -> Option<(f64, f64)> {
    if (before.count as f64) < ENOUGH {
        return None;
    }
    let (mean, usual) = (now.mean()?, before.mean()?);
    let above: u64 = now
        .buckets
        .iter()
        .filter(|(index, _)| crate::history::window::upper_bound(*index - 1) >= usual * 1.25 + least / 2.0)
        .map(|(_, count)| count)
        .sum();
    let many = above >= 3 && above as f64 >= 0.02 * now.count as f64;
    let by_chance = CHANCE * before.deviation()? / (now.count as f64).sqrt();
    (mean >= usual * 1.5 && mean >= usual + least.max(by_chance) && many).then_some((mean, usual))
}
