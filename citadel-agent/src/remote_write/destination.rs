//! One destination at work: the machine of `sender.rs` with a clock, the spool and a connection.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::client::Client;
use super::dead_letter;
use super::encode::{self, Body, Form, Protocol};
use super::ledger::{Ledger, Outcome};
use super::record::Record;
use super::sender::{Answer, Event, Next, Sender, Settings};
use super::spool::{Found, Reason, Spool};
use crate::collector::wall_ms;

/// So many rejections are logged a minute; all are counted.
const LOGGED_REJECTIONS: u32 = 10;

/// How long to wait with a disk that cannot be read.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What the collector and all destinations share. One thread has it.
pub(super) struct Shared {
    /// What waits.
    pub(super) spool: RefCell<Spool>,
    /// Samples a second, as they are collected now.
    pub(super) live: Cell<f64>,
    /// Told whenever something was collected.
    pub(super) collected: Notify,
    /// Told whenever something was settled.
    pub(super) settled: Notify,
    /// Where what fails alone is put.
    pub(super) dead_letters: PathBuf,
}

/// What there is to know of a destination while it works.
pub(super) struct Account {
    /// The destination's name.
    pub(super) name: String,
    /// What became of the samples.
    pub(super) ledger: Ledger,
    /// Requests by status, or `none`.
    pub(super) requests: BTreeMap<String, u64>,
    /// When the oldest pending sample was collected, in milliseconds since the epoch.
    pub(super) oldest_ms: Option<i64>,
    /// Whether the receiver lets nothing in.
    pub(super) parked: bool,
}

/// A destination.
pub(super) struct Destination {
    shared: Rc<Shared>,
    account: Rc<RefCell<Account>>,
    client: Client,
    sender: Sender,
    begin: Instant,
    random: RandomState,
    draws: u64,
    /// Whether an outage was logged that is not over.
    failing: bool,
    /// When this minute of rejections began, and how many were logged in it.
    rejections: (Instant, u32),
}

/// Samples on their way: the record that they are in, and the request.
struct Load {
    record: Record,
    first: u64,
    form: Form,
    body: Body,
}

impl Destination {
    pub(super) fn new(shared: Rc<Shared>, account: Rc<RefCell<Account>>, client: Client, settings: Settings) -> Self {
        let sender = Sender::new(settings, account.borrow().ledger.receiver.clone());
        Self {
            shared,
            account,
            client,
            sender,
            begin: Instant::now(),
            random: RandomState::new(),
            draws: 0,
            failing: false,
            rejections: (Instant::now(), 0),
        }
    }

    /// Sends what there is, for ever. It may be dropped at any moment: what was not answered for goes out again.
    pub(super) async fn run(mut self) {
        loop {
            let now = self.begin.elapsed();
            match self.sender.next(now) {
                Next::Wait(until) => {
                    let collected = self.shared.collected.notified();
                    // Whoever waits still has to notice what the spool's bounds have dropped meanwhile.
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
                            error!(destination = self.name(), %error, "the spool cannot be read");
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

    /// The batch at the cursor, over gaps and what is damaged, which are settled; `None` when there is none yet.
    fn load_front(&mut self) -> std::io::Result<Option<Range<u64>>> {
        loop {
            let seq = self.seq();
            match self.next_batch(seq)? {
                Place::Batch(batch) => return Ok(Some(batch)),
                Place::End => return Ok(None),
                Place::Lost(until, reason) => self.settle(seq..until, Outcome::Dropped(reason)),
            }
        }
    }

    /// What is at `seq`.
    fn next_batch(&mut self, seq: u64) -> std::io::Result<Place> {
        let found = self.shared.spool.borrow_mut().read(seq)?;
        let mut account = self.account.borrow_mut();
        Ok(match found {
            Found::End => {
                account.oldest_ms = None;
                Place::End
            }
            Found::Gap { until, reason } => Place::Lost(until, reason),
            Found::Record { first, samples, time_ms, body } => match Record::from_bytes(&body) {
                Ok(record) if record.len() == samples => {
                    if seq == account.ledger.seq {
                        account.oldest_ms = Some(time_ms);
                    }
                    let end = encode::batch_end(&record, (seq - first) as u32, self.sender.form());
                    Place::Batch(seq..first + u64::from(end))
                }
                // Its checksum was right: written by a version that this one does not understand.
                _ => Place::Lost(first + u64::from(samples), Reason::Damaged),
            },
        })
    }

    /// The samples at `range` as a request; `None` when the spool has dropped them.
    fn prepare(&mut self, range: &Range<u64>) -> Option<Load> {
        let found = self.shared.spool.borrow_mut().read(range.start).ok()?;
        let Found::Record { first, body, .. } = found else { return None };
        let record = Record::from_bytes(&body).ok()?;
        let form = self.sender.form();
        let body = encode::body(&record, (range.start - first) as u32..(range.end - first) as u32, form).ok()?;
        Some(Load { record, first, form, body })
    }

    async fn send(&mut self, range: Range<u64>) {
        let Some(load) = self.prepare(&range) else {
            self.sender.abandon();
            return;
        };
        let sent_at = self.begin.elapsed();
        let answer = self.post(&load).await;
        let jitter = self.jitter();
        let events = self.sender.answered(self.begin.elapsed(), wall_ms(), jitter, &answer);
        let before = self.seq();
        for event in events {
            self.apply(event, &load, &answer);
        }
        let settled = self.seq() - before;
        let pending = self.account.borrow().ledger.pending(self.shared.spool.borrow().end());
        if settled > 0 && pending > 0 {
            self.sender.pace(sent_at, settled, self.shared.live.get());
        }
    }

    /// Sends the batch after the front, to see whether the receiver fails on everything.
    async fn scout(&mut self, from: u64) {
        let batch = match self.next_batch(from) {
            Ok(Place::Batch(batch)) => Some(batch),
            _ => None,
        };
        let load = batch.as_ref().and_then(|batch| self.prepare(batch));
        let answer = match &load {
            Some(load) => Some(self.post(load).await),
            None => None,
        };
        let jitter = self.jitter();
        let events = self.sender.scouted(self.begin.elapsed(), jitter, batch, answer.as_ref());
        if let (Some(load), Some(answer)) = (load, answer) {
            events.into_iter().for_each(|event| self.apply(event, &load, &answer));
        }
    }

    async fn post(&mut self, load: &Load) -> Answer {
        let answer = self.client.post(load.body.bytes.clone(), load.form.protocol).await;
        let code = answer.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        *self.account.borrow_mut().requests.entry(code).or_default() += 1;
        // Only 2.0 promises the count; some receivers of 1.0 say 0.
        if load.form.protocol == Protocol::V2
            && let Some(written) = answer.written
            && answer.status.is_some_and(|status| (200..300).contains(&status))
            && written < load.body.series
        {
            warn!(
                destination = self.name(),
                written,
                sent = load.body.series,
                "the receiver answered 2xx and says that it wrote less than was sent"
            );
        }
        answer
    }

    fn settle(&mut self, range: Range<u64>, outcome: Outcome) {
        if let Outcome::Dropped(reason) = outcome {
            let samples = range.end - range.start;
            warn!(destination = self.name(), samples, reason = reason.label(), "samples are lost");
        }
        let mut account = self.account.borrow_mut();
        account.ledger.settle(range, outcome);
        self.shared.settled.notify_one();
    }

    fn apply(&mut self, event: Event, load: &Load, answer: &Answer) {
        let name = self.name();
        let status = answer.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let words = answer.words.as_str();
        match event {
            Event::Settled(range, outcome) => {
                if outcome == Outcome::Rejected {
                    self.log_rejection(&range, load, &status, words);
                }
                self.settle(range, outcome);
            }
            Event::DeadLetter(range) => {
                let body = &load.body.bytes;
                match dead_letter::write(&self.shared.dead_letters, &name, &range, load.form.protocol, body) {
                    Ok(file) => warn!(
                        destination = name, file = %file.display(), status, words,
                        "the receiver fails on this batch alone: put aside"
                    ),
                    Err(error) => error!(destination = name, %error, "a dead letter cannot be kept"),
                }
                self.settle(range, Outcome::Dropped(Reason::DeadLetter));
            }
            Event::OnlyV1 => {
                info!(destination = name, status, "the receiver knows only remote write 1.0: it is used for a day");
            }
            Event::NoNative => {
                warn!(destination = name, words, "the receiver takes no native histograms: classic ones are sent");
            }
            Event::Parked => warn!(
                destination = name,
                status, words, "the receiver lets nothing in: samples are kept, and it is tried once a minute"
            ),
            Event::Retry(wait) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(
                        destination = name,
                        status,
                        words,
                        ?wait,
                        "cannot send: samples are kept until it works again"
                    );
                }
            }
            Event::Recovered => {
                self.failing = false;
                let pending = self.account.borrow().ledger.pending(self.shared.spool.borrow().end());
                info!(destination = name, pending, "the receiver takes samples again");
            }
        }
        let mut account = self.account.borrow_mut();
        account.parked = self.sender.parked();
        account.ledger.receiver = self.sender.receiver().clone();
    }

    fn log_rejection(&mut self, range: &Range<u64>, load: &Load, status: &str, words: &str) {
        if self.rejections.0.elapsed() > Duration::from_secs(60) {
            self.rejections = (Instant::now(), 0);
        }
        self.rejections.1 += 1;
        if self.rejections.1 > LOGGED_REJECTIONS {
            return;
        }
        let at = (range.start - load.first) as u32;
        let sample = load.record.samples(at..at + 1).next().map(|sample| encode::display(&load.record, &sample));
        let (samples, series) = (range.end - range.start, sample.unwrap_or_default());
        warn!(destination = self.name(), status, words, samples, series, "the receiver does not want these samples");
    }

    /// A number from -1 to 1, by chance.
    fn jitter(&mut self) -> f64 {
        self.draws += 1;
        self.random.hash_one(self.draws) as f64 / u64::MAX as f64 * 2.0 - 1.0
    }
}

/// What is at a number.
enum Place {
    Batch(Range<u64>),
    Lost(u64, Reason),
    End,
}
