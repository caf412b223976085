//! Takes over the terminal and always restores it. Requests to the agent run on another thread, so that keys work while the agent
//! does not respond.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::ask::{Fetched, Wish, fetch};
use super::look::Look;
use super::screen::{Shown, draw};
use super::state::{Effect, State};

/// Maximum time to wait for a key before checking for anything else.
const PATIENCE: Duration = Duration::from_millis(100);

/// The terminal; restored on drop. If a panic occurs, ratatui's hook restores it before the message is printed.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // Part of it may have succeeded.
            _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that no longer exists cannot be restored.
        _ = ratatui::try_restore();
    }
}

/// What runs.
struct Live {
    state: State,
    newest: Fetched,
    failed: Option<String>,
    /// Only this model.
    model: Option<String>,
    wishes: Sender<Wish>,
    answers: Receiver<Result<Fetched, String>>,
    /// A request is in progress.
    asking: bool,
    /// Something has changed since the last request.
    stale: bool,
}

/// Shows the view until the user quits or a signal arrives.
///
/// # Errors
/// The terminal cannot be used.
pub(super) fn run(
    socket: PathBuf,
    model: Option<String>,
    interval: Duration,
    state: State,
    first: Fetched,
    look: Look,
) -> io::Result<()> {
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&end))?;
    }
    let (wishes, wanted) = mpsc::channel::<Wish>();
    let (send, answers) = mpsc::channel();
    thread::Builder::new().name("top-ask".to_owned()).spawn(move || {
        for wish in wanted {
            let answer = fetch(&socket, &wish).map_err(|error| error.to_string());
            if send.send(answer).is_err() {
                break;
            }
        }
    })?;
    // Immediately, for the trend of the selected model.
    let live = Live { state, newest: first, failed: None, model, wishes, answers, asking: false, stale: true };
    live.run(&mut Screen::take()?, interval, look, &end)
}

impl Live {
    fn run(mut self, screen: &mut Screen, interval: Duration, look: Look, end: &AtomicBool) -> io::Result<()> {
        let mut asked = Instant::now();
        let mut changed = true;
        while !end.load(Ordering::Relaxed) {
            if !self.asking && (self.stale || asked.elapsed() >= interval) && !self.state.paused {
                asked = Instant::now();
                self.ask();
            }
            if changed {
                let shown = Shown {
                    view: &self.newest.view,
                    trend: self.newest.trend.as_ref(),
                    requests: self.newest.requests.as_ref(),
                    state: &self.state,
                    failed: self.failed.as_deref(),
                    look,
                };
                screen.0.draw(|frame| draw(frame, &shown))?;
            }
            changed = self.answered();
            if !event::poll(if changed { Duration::ZERO } else { PATIENCE })? {
                continue;
            }
            changed = true;
            if let Event::Key(key) = event::read()? {
                match self.state.key(key, &self.newest.view) {
                    Effect::Quit => break,
                    Effect::Refresh => self.stale = true,
                    Effect::None => {}
                }
            }
        }
        Ok(())
    }

    fn ask(&mut self) {
        let rows = self.state.rows(&self.newest.view);
        let selected = self.state.selected(&rows).and_then(|at| rows.get(at)).map(|model| model.port);
        let wish = Wish { span: self.state.span, model: self.model.clone(), plots_of: selected, all_requests: false };
        self.stale = false;
        // The thread ends with this.
        self.asking = self.wishes.send(wish).is_ok();
    }

    /// Takes a response, if one has arrived.
    fn answered(&mut self) -> bool {
        match self.answers.try_recv() {
            Ok(Ok(fetched)) => {
                self.failed = None;
                self.newest = fetched;
            }
            Ok(Err(error)) => self.failed = Some(error),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => {
                return self.failed.replace("the thread that asks the agent has ended".to_owned()).is_none();
            }
        }
        self.asking = false;
        true
    }
}
