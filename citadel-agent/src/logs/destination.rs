//! Runs one destination: reads the journal, sends the selected entries, and moves the cursor once the receiver has
//! answered.
//!
//! Only one batch is held at a time, and nothing is read while it is being sent: the backlog stays in the journal.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tracing::{error, info, warn};

use super::account::Account;
use super::encode::{Identity, body, headers};
use super::numbers::DestinationNumbers;
use super::reader::{Follower, Position};
use super::select::{Choice, Record, Selector};
use super::sender::{MOST_ENTRIES, News, Outcome, Sender, meaning};
use crate::config::resolved::logs::Format;
use crate::outbound::backoff::Chance;
use crate::outbound::{Client, Reply};

/// Maximum number of bytes of entries per request.
const MOST_BYTES: usize = 1 << 20;

/// How long an entry waits for others before it is sent.
const LINGER: Duration = Duration::from_secs(1);

/// How often the account is written while entries are settled, and while only unselected entries pass.
const SAVE: Duration = Duration::from_secs(1);
const SAVE_IDLE: Duration = Duration::from_secs(30);

/// The child process is stopped before a pause longer than this.
const LONG_WAIT: Duration = Duration::from_secs(10);

/// How often rejections are logged while they continue.
const LOGGED_REJECTIONS: Duration = Duration::from_secs(600);

pub(super) struct Destination {
    name: String,
    format: Format,
    identity: Rc<Identity>,
    client: Client,
    follower: Follower,
    selector: Selector,
    account: Account,
    path: PathBuf,
    saved: (Option<Account>, Instant),
    save_fails: bool,
    batch: Vec<Record>,
    bytes: usize,
    sender: Sender,
    chance: Chance,
    requests: BTreeMap<String, u64>,
    numbers: Rc<RefCell<DestinationNumbers>>,
    /// When rejections were last logged, and how many entries were rejected since.
    rejections: (Option<Instant>, u64),
}

/// Input of a destination.
pub(super) struct Parts {
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) identity: Rc<Identity>,
    pub(super) client: Client,
    pub(super) follower: Follower,
    pub(super) selector: Selector,
    pub(super) account: Account,
    pub(super) path: PathBuf,
    pub(super) numbers: Rc<RefCell<DestinationNumbers>>,
}

impl Destination {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { name, format, identity, client, follower, selector, account, path, numbers } = parts;
        Self {
            name,
            format,
            identity,
            client,
            follower,
            selector,
            account,
            path,
            saved: (None, Instant::now()),
            save_fails: false,
            batch: Vec::new(),
            bytes: 0,
            sender: Sender::default(),
            chance: Chance::default(),
            requests: BTreeMap::new(),
            numbers,
            rejections: (None, 0),
        }
    }

    /// Sends entries until `stopped` changes. Entries without an answer are sent again later.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        // Before the first entry; otherwise the destination would start later after a crash.
        self.save(Duration::ZERO);
        tokio::select! {
            () = self.work() => {}
            _ = stopped.changed() => {}
        }
        self.save(Duration::ZERO);
    }

    async fn work(&mut self) {
        let mut ticks = interval(SAVE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut due = None;
        loop {
            tokio::select! {
                entry = self.follower.next() => {
                    self.account.lose(self.follower.take_lost());
                    self.account.truncated += u64::from(entry.fields.truncated);
                    match self.selector.choose(entry) {
                        Choice::Take(record) => {
                            self.bytes += record.entry.fields.bytes();
                            self.batch.push(*record);
                            due.get_or_insert_with(|| Instant::now() + LINGER);
                        }
                        Choice::Limited => self.account.limited += 1,
                        Choice::Leave => {}
                    }
                    if self.batch.is_empty() {
                        self.account.move_to(self.follower.position());
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.send_all().await;
                    due = None;
                }
                _ = ticks.tick() => self.save(SAVE_IDLE),
            }
            if self.batch.len() >= MOST_ENTRIES || self.bytes >= MOST_BYTES {
                self.send_all().await;
                due = None;
            }
        }
    }

    /// Sends the batch until all of it is settled.
    async fn send_all(&mut self) {
        while !self.batch.is_empty() {
            let piece = self.sender.piece(self.batch.len());
            let body = match body(&self.batch[..piece], self.format, &self.identity) {
                Ok(body) => body,
                Err(error) => {
                    error!(destination = self.name, %error, "cannot encode entries; they are rejected");
                    self.settle(piece, 0);
                    continue;
                }
            };
            self.publish();
            let reply = self.client.post(headers(self.format), body).await;
            let code = reply.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            *self.requests.entry(code).or_default() += 1;
            let meaning = meaning(self.format, &reply);
            let outcome = self.sender.answered(piece, meaning, reply.retry_after, self.chance.draw());
            self.say(&outcome, &reply);
            if let Some((entries, acknowledged)) = outcome.settled {
                self.settle(entries, acknowledged);
            }
            self.save(SAVE);
            if outcome.wait > LONG_WAIT {
                self.follower.rest();
            }
            if outcome.wait > Duration::ZERO {
                sleep(outcome.wait).await;
            }
        }
        self.bytes = 0;
        self.account.move_to(self.follower.position());
        self.save(SAVE);
    }

    fn settle(&mut self, entries: usize, acknowledged: u64) {
        let rejected = entries as u64 - acknowledged;
        self.account.acknowledged += acknowledged;
        self.account.rejected += rejected;
        self.rejections.1 += rejected;
        if let Some(last) = self.batch.drain(..entries).next_back() {
            self.account.settled_up_to(&last.entry.cursor, last.entry.time_us);
        }
    }

    /// Writes the account, unless it was written less than `every` ago or has not changed.
    fn save(&mut self, every: Duration) {
        self.publish();
        let settled = |account: &Account| account.acknowledged + account.rejected;
        let (saved, at) = &self.saved;
        // Settled entries are saved soon, whatever else happens.
        let news = saved.as_ref().is_none_or(|saved| settled(saved) != settled(&self.account));
        let every = if news { every.min(SAVE) } else { every };
        if saved.as_ref() == Some(&self.account) || saved.is_some() && at.elapsed() < every {
            return;
        }
        let result = self.account.write(&self.path);
        if let Err(error) = &result
            && !self.save_fails
        {
            warn!(file = %self.path.display(), %error, "cannot save the journal cursor; some entries will be sent again after a restart");
        }
        self.save_fails = result.is_err();
        self.saved = (Some(self.account.clone()), Instant::now());
    }

    fn publish(&self) {
        let time = |record: &Record| record.entry.time_us;
        let mut numbers = self.numbers.borrow_mut();
        let Account { acknowledged, rejected, limited, truncated, lost_entries, lost_us, .. } = self.account;
        *numbers = DestinationNumbers {
            destination: self.name.clone(),
            acknowledged,
            rejected,
            limited,
            truncated,
            lost_entries,
            lost_seconds: lost_us as f64 / 1e6,
            pending: self.batch.len() as u64,
            oldest_us: self.batch.first().map(time),
            requests: self.requests.clone(),
            closed: self.sender.closed(),
            problem: self.follower.problem().map(str::to_owned),
        };
    }

    fn say(&mut self, outcome: &Outcome, reply: &Reply) {
        let status = reply.status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
        let (destination, words, wait) = (&self.name, reply.words.as_str(), outcome.wait);
        match outcome.news {
            Some(News::Closed) => {
                warn!(
                    destination,
                    status, words, "the receiver denies access; logs stay in the journal, retrying once a minute"
                );
            }
            Some(News::Failing) => {
                warn!(destination, status, words, ?wait, "cannot send logs; they stay in the journal, retrying");
            }
            Some(News::Recovered) => info!(destination, "the receiver accepts logs again"),
            Some(News::Rejects) => {
                let (last, entries) = self.rejections;
                let entries = entries + outcome.settled.map_or(0, |(sent, acknowledged)| sent as u64 - acknowledged);
                if last.is_none_or(|last| last.elapsed() >= LOGGED_REJECTIONS) {
                    let text = String::from_utf8_lossy(&reply.body[..reply.body.len().min(256)]);
                    warn!(destination, status, answer = %text.escape_debug(), entries, "the receiver rejected entries");
                    // Entries settled next are counted once.
                    self.rejections = (Some(Instant::now()), 0);
                }
            }
            None => {}
        }
    }
}

/// Where a destination starts: at its saved cursor or, if it is new, at the end of the journal.
///
/// # Errors
/// The journal cannot be read.
pub(super) async fn begin(
    name: &str,
    path: &std::path::Path,
    journal: &super::reader::Journal,
) -> Result<Account, String> {
    match Account::read(path) {
        Ok(Some(account)) => return Ok(account),
        Ok(None) => {}
        Err(error) => {
            warn!(destination = name, file = %path.display(), %error, "the state file is damaged and was set aside; logs of the last day are sent again");
            if let Err(error) = crate::state_file::put_aside(path, "damaged") {
                error!(file = %path.display(), %error, "cannot set the file aside; remove it");
            }
            let now_us = crate::clock::wall_ms().max(0).unsigned_abs() * 1000;
            return Ok(Account::new(Position::Since(now_us.saturating_sub(24 * 60 * 60 * 1_000_000))));
        }
    }
    Ok(Account::new(journal.end().await?))
}
