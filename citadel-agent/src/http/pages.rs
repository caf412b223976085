//! Encoded metrics pages. Requests that wait for the same reading share one encoding.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;

use super::budget::Budget;
use super::coding::Coding;
use super::{App, CollectError};
use crate::metrics::catalogue::Section;
use crate::metrics::family::PageError;
use crate::metrics::{self, format::Format};

/// A page, format and coding that a client asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) section: Option<Section>,
    pub(super) format: Format,
    pub(super) coding: Coding,
}

/// Why there is no page. (Messages include the cause.)
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPage {
    #[error("{0}")]
    Collect(#[from] CollectError),
    #[error("{0}")]
    Encode(#[from] PageError),
    #[error("cannot compress the page: {0}")]
    Compress(#[from] std::io::Error),
}

/// Creates the pages of a listener.
pub(super) struct Pages {
    budget: Arc<Budget>,
    requests: Mutex<Requests>,
}

/// Waiting requests, and pages created since.
#[derive(Default)]
struct Requests {
    /// Number of the newest request.
    newest: u64,
    waiting: Vec<(u64, Wanted)>,
    made: Vec<Made>,
}

/// An encoded page, kept only while a waiting request can use it.
struct Made {
    wanted: Wanted,
    /// Newest request when the page was collected: the page is not older than any request up to this one.
    newest: u64,
    /// Number of the reading from [`App::refresh`].
    reading: u64,
    body: Bytes,
}

impl Pages {
    pub(super) fn new(budget: Arc<Budget>) -> Self {
        Self { budget, requests: Mutex::default() }
    }

    /// A page collected after this call, once its sources have been read or `within` has passed.
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

    /// An encoded body that counts toward the memory of responses.
    pub(super) fn body(&self, body: Vec<u8>, coding: Coding) -> std::io::Result<Bytes> {
        Ok(self.budget.hold(coding.encode(body)?))
    }

    /// Drops pages kept for waiting requests, which then create their own.
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
