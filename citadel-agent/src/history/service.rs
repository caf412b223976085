//! Runs the history: adds a page every 5 s, and writes the file whenever enough blocks are full and at the end.

use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use tokio::task::{self, JoinHandle};
use tracing::warn;

use super::History;
use crate::clock::wall_ms;
use crate::collector::Pages;
use crate::state_file;

/// Name of the file in the state directory.
const FILE: &str = "history";

/// Number of full blocks after which the file is written again: half an hour of eight subjects.
const BLOCKS: u64 = 100;

/// The running task.
#[derive(Debug)]
pub struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    /// Loads what was saved, then adds pages.
    #[must_use]
    pub fn start(history: History, pages: impl Pages) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(run(history, pages, state_file::folder().join(FILE), stopped)) }
    }

    /// Writes the file and stops.
    pub async fn stop(self) {
        drop(self.stop);
        _ = self.task.await;
    }
}

async fn run(history: History, mut pages: impl Pages, path: PathBuf, mut stopped: oneshot::Receiver<()>) {
    load(&history, &path).await;
    let (mut written, mut well) = (history.sealed(), true);
    loop {
        let collected = tokio::select! {
            _ = &mut stopped => break,
            Some(collected) = pages.next() => collected,
        };
        history.take(&collected.page, collected.at_ms);
        if history.sealed() >= written + BLOCKS {
            written = history.sealed();
            well = save(&history, &path, well).await;
        }
    }
    save(&history, &path, well).await;
}

async fn load(history: &History, path: &Path) {
    let (history, path) = (history.clone(), path.to_owned());
    // Some megabytes, and the disk may be slow.
    _ = task::spawn_blocking(move || {
        if let Err(error) = history.load(&path, wall_ms()) {
            let kept = state_file::put_aside(&path, "unreadable").is_ok();
            warn!(path = %path.display(), %error, kept, "cannot read the saved history; starting with an empty one");
        }
    })
    .await;
}

/// Writes the file; a failure is logged once.
async fn save(history: &History, path: &Path, well: bool) -> bool {
    let (history, file) = (history.clone(), path.to_owned());
    let saved = task::spawn_blocking(move || history.save(&file)).await;
    match saved {
        Ok(Err(error)) => {
            if well {
                warn!(path = %path.display(), %error, "cannot save the history; it would be lost by a restart");
            }
            false
        }
        _ => true,
    }
}
