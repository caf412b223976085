//! A running destination: drives the state machine in `sender.rs` with a clock, the spool and a connection.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::client::Client;
use super::dead_letter;
use super::encode::{self, Body, Form, Protocol, Room};
use super::ledger::{Ledger, Outcome};
use super::queue::{Ahead, Loaded, Queue, Source};
use super::refused::{Key, Refused};
use super::sender::{Event, Next, ReceiverAnswer, Sender, SenderSettings};
use super::spool::{Reason, Spool};
use crate::clock::wall_ms;
use crate::outbound::backoff::Chance;

/// Maximum number of refused series logged per minute; all are counted.
const LOGGED_SERIES: u32 = 10;

/// Interval at which continuing rejections are logged.
const LOGGED_REJECTIONS: Duration = Duration::from_secs(600);

/// Pause after a failure to read the disk.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// State shared by the collector and all destinations, on one thread.
pub(super) struct Shared {
    /// Spooled samples.
    pub(super) spool: RefCell<Spool>,
    /// The newest record.
    pub(super) newest: RefCell<Option<Rc<Loaded>>>,
    /// Current rate of collected samples per second.
    pub(super) live: Cell<f64>,
    /// Notified after each collection.
    pub(super) collected: Notify,
    /// Notified after samples were settled.
    pub(super) settled: Notify,
    /// Directory of dead letters.
    pub(super) dead_letters: PathBuf,
}

/// State of a destination.
pub(super) struct Account {
    /// The destination's name.
    pub(super) name: String,
    /// Outcomes of its samples.
    pub(super) ledger: Ledger,
    /// Requests by status, or `none`.
    pub(super) requests: BTreeMap<String, u64>,
    /// Time of the oldest pending sample, in milliseconds since the epoch.
    pub(super) oldest_ms: Option<i64>,
    /// Whether the destination is parked.
    pub(super) parked: bool,
}

pub(super) struct Destination {
    shared: Rc<Shared>,
    account: Rc<RefCell<Account>>,
    client: Client,
    sender: Sender,
    queue: Queue,
    refused: Refused,
    /// Number of the first sample of the front.
    front: u64,
    /// The last request: it is resent unchanged unless something about it has changed.
    load: Option<Rc<Load>>,
    begin: Instant,
    chance: Chance,
    /// Whether an outage has been logged and is not over.
    failing: bool,
    /// Start of the current minute, and how many refused series were logged in it.
    series: (Instant, u32),
    /// When rejections were last logged, and how many samples were rejected since.
    rejections: (Option<Instant>, u64),
}

/// Samples in flight.
struct Load {
    range: Range<u64>,
    form: Form,
    /// Version of the refused series.
    version: u64,
    body: Body,
}

impl Destination {
    pub(super) fn new(
        shared: Rc<Shared>,
        account: Rc<RefCell<Account>>,
        client: Client,
        settings: SenderSettings,
    ) -> Self {
        let sender = Sender::new(settings, account.borrow().ledger.receiver.clone());
        Self {
            shared,
            account,
            client,
            sender,
            queue: Queue::default(),
            refused: Refused::default(),
            front: 0,
            load: None,
            begin: Instant::now(),
            chance: Chance::default(),
            failing: false,
            series: (Instant::now(), 0),
            rejections: (None, 0),
        }
    }

    /// Sends samples forever. Cancel safe: unacknowledged samples are sent again.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.begin.elapsed();
            match self.sender.next(now) {
                Next::Wait(until) => {
                    let collected = self.shared.collected.notified();
                    // Samples dropped by the spool's limits must be noticed while waiting too.
                    if timeout(until - now, collected).await.is_ok() && self.front_is_gone() {
                        self.sender.abandon();
                        if let Ok(Some(batch)) = self.load_front() {
                            self.sender.load(batch);
                        }
                    }
                }
                Next::Load => {
                    self.sender.forget(wall_ms());
                    match self.load_front() {
                        Ok(Some(batch)) => self.sender.load(batch),
                        Ok(None) => self.shared.collected.notified().await,
                        Err(error) => {
                            error!(destination = self.name(), %error, "cannot read the spool");
                            sleep(DISK_PAUSE).await;
                        }
                    }
                }
                Next::Send(range) => self.send(range).await,
                Next::Scout(from) => self.scout(from).await,
            }
        }
    }

    fn name(&self) -> String {
        self.account.borrow().name.clone()
    }

    fn seq(&self) -> u64 {
        self.account.borrow().ledger.seq
    }

    fn front_is_gone(&self) -> bool {
        self.shared.spool.borrow().begin() > self.seq()
    }

    /// The batch at the cursor. Gaps and damaged records before it are settled. `None` if there is none yet.
    fn load_front(&mut self) -> std::io::Result<Option<Range<u64>>> {
        let begin = self.shared.spool.borrow().begin();
        self.queue.forget(begin);
        loop {
            let seq = self.seq();
            match self.batch(seq)? {
                Ahead::Batch(batch) => {
                    self.front = batch.start;
                    self.account.borrow_mut().oldest_ms = self.queue.time_ms(seq);
                    return Ok(Some(batch));
                }
                Ahead::End => {
                    self.account.borrow_mut().oldest_ms = None;
                    return Ok(None);
                }
                Ahead::Lost(until, reason) => {
                    let samples = until - seq;
                    warn!(destination = self.name(), samples, reason = reason.label(), "dropped samples");
                    self.settle(|ledger| ledger.settle(seq..until, Outcome::Dropped(reason)));
                }
            }
        }
    }

    fn batch(&mut self, seq: u64) -> std::io::Result<Ahead> {
        let room = Room::new(self.sender.most_samples(self.begin.elapsed()));
        let (spool, newest) = (&mut self.shared.spool.borrow_mut(), self.shared.newest.borrow());
        self.queue.batch(Source { spool, newest: newest.as_ref() }, seq, room, self.sender.form())
    }

    /// The request for the samples at `range`; `None` if they are missing or exceed a request.
    fn prepare(&mut self, range: &Range<u64>) -> Option<Rc<Load>> {
        let (form, version) = (self.sender.form(), self.refused.version());
        let same = |load: &&Rc<Load>| load.range == *range && load.form == form && load.version == version;
        if let Some(load) = self.load.as_ref().filter(same) {
            return Some(Rc::clone(load));
        }
        let body = encode::request(self.queue.runs(range), form, &self.refused).ok()?;
        let there = body.sent.samples + body.sent.skipped == range.end - range.start;
        let load = there.then(|| Rc::new(Load { range: range.clone(), form, version, body }))?;
        Some(Rc::clone(self.load.insert(load)))
    }

    async fn send(&mut self, range: Range<u64>) {
        self.try_refused(&range).await;
        let Some(load) = self.prepare(&range) else {
            self.sender.abandon();
            return;
        };
        let sent = load.body.sent;
        let (sent_at, before) = (self.begin.elapsed(), self.seq());
        if sent.samples == 0 {
            let events = self.sender.skipped();
            events.into_iter().for_each(|event| self.apply(event, &load, &ReceiverAnswer::default()));
        } else {
            let answer = self.post(&load).await;
            let jitter = self.chance.draw();
            let events = self.sender.answered(self.begin.elapsed(), wall_ms(), jitter, &sent, &answer);
            events.into_iter().for_each(|event| self.apply(event, &load, &answer));
        }
        let seq = self.seq();
        self.queue.forget(seq);
        let pending = self.account.borrow().ledger.pending(self.shared.spool.borrow().end());
        if seq > before && pending > 0 {
            self.sender.pace(sent_at, seq - before, self.shared.live.get());
        }
    }

    /// Sends the batch after the front, to find out whether the receiver fails on everything.
    async fn scout(&mut self, from: u64) {
        let batch = match self.batch(from) {
            Ok(Ahead::Batch(batch)) => Some(batch),
            _ => None,
        };
        let load = batch.as_ref().and_then(|batch| self.prepare(batch)).filter(|load| load.body.sent.samples > 0);
        let answer = match &load {
            Some(load) => self.post(load).await,
            None => ReceiverAnswer::default(),
        };
        let jitter = self.chance.draw();
        let sent = load.as_ref().map(|load| (load.range.clone(), load.body.sent));
        let events = self.sender.scouted(self.begin.elapsed(), jitter, sent, &answer);
        if let Some(load) = load {
            events.into_iter().for_each(|event| self.apply(event, &load, &answer));
        }
    }

    /// Sends a sample of a series of the batch on its own, if the series has been omitted for long enough. If it is
    /// accepted, it is sent once more with the others: receivers accept duplicates.
    async fn try_refused(&mut self, range: &Range<u64>) {
        let now = self.begin.elapsed();
        if !self.refused.any_due(now) {
            return;
        }
        let Some((seq, key)) = self.keys(range).find(|(_, key)| self.refused.due(*key, now)) else { return };
        let form = self.sender.form();
        let alone = encode::request(self.queue.runs(&(seq..seq + 1)), form, &Refused::default());
        let Ok(body) = alone else { return };
        let load = Load { range: seq..seq + 1, form, version: 0, body };
        let answer = self.post(&load).await;
        let silent = form.protocol == Protocol::V2 && answer.written.is_none();
        match answer.status {
            Some(200..=299) if !silent && answer.missing(&load.body.sent) == 0 => {
                self.refused.taken(key);
                info!(destination = self.name(), series = self.display(seq), "the receiver accepts this series again");
            }
            status => self.refused.tried(key, matches!(status, Some(200..=299 | 400 | 413 | 422)), now),
        }
    }

    /// The series of each sample in `range`.
    fn keys(&self, range: &Range<u64>) -> impl Iterator<Item = (u64, Key)> {
        let refused = &self.refused;
        let samples = self.queue.runs(range).flat_map(move |(record, run)| {
            record.samples(run).map(move |sample| encode::key(record, &sample, refused))
        });
        (range.start..).zip(samples)
    }

    /// The series of a sample, for the log.
    fn display(&self, seq: u64) -> String {
        let run = self.queue.runs(&(seq..seq + 1)).next();
        let sample = run.and_then(|(record, run)| Some(encode::display(record, &record.samples(run).next()?)));
        sample.unwrap_or_default()
    }

    async fn post(&mut self, load: &Load) -> ReceiverAnswer {
        let answer = self.client.post(load.body.bytes.clone(), load.form.protocol).await;
        let code = answer.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        *self.account.borrow_mut().requests.entry(code).or_default() += 1;
        answer
    }

    fn settle(&self, settle: impl FnOnce(&mut Ledger)) {
        settle(&mut self.account.borrow_mut().ledger);
        self.shared.settled.notify_one();
    }

    fn apply(&mut self, event: Event, load: &Load, answer: &ReceiverAnswer) {
        let name = self.name();
        let status = answer.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let words = answer.words.as_str();
        match event {
            Event::Settled(range, acknowledged) => {
                let samples = range.end - range.start;
                if acknowledged == samples && !self.refused.is_empty() {
                    self.clear_suspects(&range);
                } else if samples > acknowledged + load.body.sent.skipped {
                    self.log_rejection(&range, samples - acknowledged, &status, words);
                }
                self.settle(|ledger| {
                    ledger.settle_some(range, acknowledged, Outcome::Acknowledged, Outcome::Rejected);
                });
            }
            Event::Culprit(range) => self.strike(&range, &status, words),
            Event::DeadLetter(range, rejected) => {
                let body = &load.body.bytes;
                match dead_letter::write(&self.shared.dead_letters, &name, &range, load.form.protocol, body) {
                    Ok(file) => warn!(
                        destination = name, file = %file.display(), status, words,
                        "the receiver fails on this batch only; it was set aside, run `citadel-agent remote-write replay` to send it"
                    ),
                    Err(error) => error!(destination = name, %error, "cannot set the batch aside"),
                }
                let dropped = Outcome::Dropped(Reason::DeadLetter);
                self.settle(|ledger| ledger.settle_some(range, rejected, Outcome::Rejected, dropped));
            }
            Event::OnlyV1 => {
                info!(destination = name, status, "the receiver supports only remote write 1.0, using it for a day");
            }
            Event::NoNative => {
                warn!(
                    destination = name,
                    words, "the receiver does not accept native histograms, sending classic ones"
                );
            }
            Event::Parked => warn!(
                destination = name,
                status, words, "the receiver denies access; samples are kept, retrying once a minute"
            ),
            Event::Retry(wait) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(destination = name, status, words, ?wait, "cannot send samples; they are kept, retrying");
                }
            }
            Event::Recovered => {
                self.failing = false;
                let pending = self.account.borrow().ledger.pending(self.shared.spool.borrow().end());
                info!(destination = name, pending, "the receiver accepts samples again");
            }
            Event::Short(missing) => warn!(
                destination = name,
                status,
                missing,
                sent = load.body.sent.series,
                "the receiver wrote fewer samples than were sent; counting the rest as rejected"
            ),
            Event::RefusesAll => warn!(destination = name, status, words, "the receiver refuses all samples"),
        }
        let mut account = self.account.borrow_mut();
        account.parked = self.sender.parked();
        account.ledger.receiver = self.sender.receiver().clone();
    }

    /// Accepted series are no longer suspects.
    fn clear_suspects(&mut self, range: &Range<u64>) {
        let taken: Vec<Key> = self.keys(range).map(|(_, key)| key).filter(|key| self.refused.suspects(*key)).collect();
        taken.into_iter().for_each(|key| _ = self.refused.taken(key));
    }

    /// The only sample of `range` that was sent was refused.
    fn strike(&mut self, range: &Range<u64>, status: &str, words: &str) {
        let Some((seq, key)) = self.keys(range).find(|(_, key)| !self.refused.skips(*key)) else { return };
        if !self.refused.strike(key, self.front, self.begin.elapsed()) {
            return;
        }
        if self.series.0.elapsed() > Duration::from_secs(60) {
            self.series = (Instant::now(), 0);
        }
        self.series.1 += 1;
        if self.series.1 <= LOGGED_SERIES {
            let series = self.display(seq);
            warn!(
                destination = self.name(),
                status, words, series, "the receiver refuses this series; it is omitted and retried occasionally"
            );
        }
    }

    fn log_rejection(&mut self, range: &Range<u64>, samples: u64, status: &str, words: &str) {
        self.rejections.1 += samples;
        if self.rejections.0.is_some_and(|at| at.elapsed() < LOGGED_REJECTIONS) {
            return;
        }
        let (samples, series) = (self.rejections.1, self.display(range.start));
        self.rejections = (Some(Instant::now()), 0);
        warn!(destination = self.name(), status, words, samples, series, "the receiver rejected samples");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::config::resolved::remote_write::Destination as Configured;
    use crate::metrics::catalogue::models::CONNECTIONS_OPEN;
    use crate::metrics::family::{Page, Value};
    use crate::remote_write::record::{Identity, Record};
    use crate::remote_write::spool::SpoolLimits;

    #[test]
    fn what_is_set_aside_is_kept_as_it_was_sent_and_counts_as_dropped() {
        let dir = TempDir::new().unwrap();
        let limits =
            SpoolLimits { max_bytes: 1 << 20, max_age: Duration::from_secs(3600), min_free: 0, memory: 1 << 20 };
        let mut spool = Spool::open(dir.path(), limits, 0);
        let mut page = Page::default();
        for model in ["a", "b", "c"] {
            page.add(&CONNECTIONS_OPEN, [model, "1"], Value::Integer(1));
        }
        let record = Record::new(&page, &[], &Identity::default(), 1, 0);
        spool.append(record.len(), 1, record.to_bytes().unwrap());
        let shared = Rc::new(Shared {
            spool: RefCell::new(spool),
            newest: RefCell::default(),
            live: Cell::new(0.0),
            collected: Notify::new(),
            settled: Notify::new(),
            dead_letters: dir.path().join("dead-letter"),
        });
        let account = Account {
            name: "sink".to_owned(),
            ledger: Ledger::new(0),
            requests: BTreeMap::new(),
            oldest_ms: None,
            parked: false,
        };
        let account = Rc::new(RefCell::new(account));
        let configured = Configured { url: Some("http://127.0.0.1:9/".to_owned()), ..Configured::default() };
        let client = Client::new(&configured).unwrap();
        let mut sink = Destination::new(shared, Rc::clone(&account), client, SenderSettings::of(&configured));
        assert_eq!(sink.load_front().unwrap(), Some(0..3));
        assert_eq!(account.borrow().oldest_ms, Some(1));
        let load = sink.prepare(&(0..3)).unwrap();
        sink.apply(
            Event::DeadLetter(0..3, 1),
            &load,
            &ReceiverAnswer { status: Some(500), ..ReceiverAnswer::default() },
        );
        let ledger = account.borrow().ledger.clone();
        assert_eq!((ledger.rejected, ledger.dropped[&Reason::DeadLetter]), (1, 2));
        assert!(ledger.holds());
        let letters = dead_letter::list(&dir.path().join("dead-letter")).unwrap();
        assert_eq!(letters.len(), 1);
        assert_eq!(
            (letters[0].destination.as_str(), letters[0].protocol, letters[0].samples),
            ("sink", Protocol::V2, 3)
        );
        assert_eq!(std::fs::read(&letters[0].path).unwrap(), load.body.bytes);
    }
}
