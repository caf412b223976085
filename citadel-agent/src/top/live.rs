//! The terminal: takes it, gives it back whatever happens, and asks the agent on a thread of its own, so that keys are answered
//! while it does not.

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

/// How long keys are waited for before anything else is looked at.
const PATIENCE: Duration = Duration::from_millis(100);

/// The terminal; given back when this goes. A panic gives it back before it prints: ratatui's own hook.
struct Screen(DefaultTerminal);

impl Screen {
    fn take() -> io::Result<Self> {
        ratatui::try_init().map(Self).inspect_err(|_| {
            // Some of it may have been done.
            _ = ratatui::try_restore();
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone takes nothing back.
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
    /// The agent is asked at this moment.
    asking: bool,
    /// Something has changed since it was asked.
    stale: bool,
}

/// Shows it until somebody quits, or a signal ends it.
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
    // At once, for the trend of what is selected.
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
        let wish = Wish { span: self.state.span, model: self.model.clone(), trend_of: selected };
        self.stale = false;
        // The thread ends with this.
        self.asking = self.wishes.send(wish).is_ok();
    }

    /// Takes an answer, where one has come.
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
