//! Metrics pages as bytes. Requests that wait for the same reading share one encoding of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;

use super::budget::Budget;
use super::coding::Coding;
use super::{App, CollectError};
use crate::metrics::catalogue::Section;
use crate::metrics::family::PageError;
use crate::metrics::{self, format::Format};

/// Which page a client wants, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) section: Option<Section>,
    pub(super) format: Format,
    pub(super) coding: Coding,
}

/// Why there is no page. (The texts name their causes.)
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPage {
    #[error("{0}")]
    Collect(#[from] CollectError),
    #[error("{0}")]
    Encode(#[from] PageError),
    #[error("cannot compress it: {0}")]
    Compress(#[from] std::io::Error),
}

/// Makes the pages of a listener.
pub(super) struct Pages {
    budget: Arc<Budget>,
    requests: Mutex<Requests>,
}

/// Who waits for a page, and what has been made since.
#[derive(Default)]
struct Requests {
    /// The number of the newest request.
    newest: u64,
    waiting: Vec<(u64, Wanted)>,
    made: Vec<Made>,
}

/// An encoded page. It is kept only while a request waits that may have it.
struct Made {
    wanted: Wanted,
    /// The newest request when the page was collected: it is not older than any request up to this.
    newest: u64,
    /// What [`App::refresh`] called the reading of the sources.
    reading: u64,
    body: Bytes,
}

impl Pages {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, requests: Mutex::default() }
    }

    /// A page that was collected after this was called, once its sources have been read or `within` is over.
    pub(super) async fn page(&self, app: &dyn App, wanted: Wanted, within: Duration) -> Result<Bytes, NoPage> {
        let request = Request::new(self, wanted);
        let reading = app.refresh(wanted.section, within).await;
        if let Some(body) = request.made_by_another(reading) {
            return Ok(body);
        }
        let page = app.collect(wanted.section)?;
        let body = self.body(metrics::encode(page, wanted.format)?, wanted.coding)?;
        request.share(reading, &body);
        Ok(body)
    }

    /// A body in a coding, which counts among the responses under way.
    pub(super) fn body(&self, body: Vec<u8>, coding: Coding) -> std::io::Result<Bytes> {
        Ok(self.budget.hold(coding.encode(body)?))
    }

    /// Gives up what is kept for requests that wait; they make their own.
    pub(super) fn forget_shared(&self) {
        self.requests().made.clear();
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits for a page.
struct Request<'a> {
    pages: &'a Pages,
    number: u64,
    wanted: Wanted,
}

impl<'a> Request<'a> {
    fn new(pages: &'a Pages, wanted: Wanted) -> Self {
        let mut requests = pages.requests();
        requests.newest += 1;
        let number = requests.newest;
        requests.waiting.push((number, wanted));
        Self { pages, number, wanted }
    }

    fn made_by_another(&self, reading: u64) -> Option<Bytes> {
        let requests = self.pages.requests();
        let usable = |made: &&Made| made.suits(self.number, self.wanted) && made.reading == reading;
        requests.made.iter().find(usable).map(|made| made.body.clone())
    }

    fn share(&self, reading: u64, body: &Bytes) {
        let mut requests = self.pages.requests();
        requests.made.retain(|made| made.wanted != self.wanted);
        let newest = requests.newest;
        requests.made.push(Made { wanted: self.wanted, newest, reading, body: body.clone() });
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let mut requests = self.pages.requests();
        let Requests { waiting, made, .. } = &mut *requests;
        waiting.retain(|(number, _)| *number != self.number);
        made.retain(|made| waiting.iter().any(|(number, wanted)| made.suits(*number, *wanted)));
    }
}

impl Made {
    fn suits(&self, request: u64, wanted: Wanted) -> bool {
        self.wanted == wanted && self.newest >= request
    }
}
