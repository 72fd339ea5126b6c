//! The output of a run, for people and for programs.
//!
//! A run has steps, and callers report the state of each step to [`Reporter`]: started, waiting for something, done,
//! failed. They report levels, not edges: a loop may report "waiting for etcd" a hundred times, and one line results.
//! A change becomes an `Event`. One of three views shows it, and under systemd a fourth does, too:
//!
//! ```text
//! loop ─ start, waiting, done, … ─► Reporter ─ Event ─► terminal  a list that lives, with times that run
//!                                                       plain     a line per change, for logs
//!                                                       json      an object per change, for programs
//!                                                       systemd   the line that `systemctl status` shows
//! ```

mod json;
mod news;
mod plain;
mod systemd;
mod terminal;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::ProgressDrawTarget;
use serde::Serialize;
use time::OffsetDateTime;

use crate::base::error::{Error, Why};

pub use json::SCHEMA as EVENT_SCHEMA;
pub use news::{News, without_numbers};

/// What `--output` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// Text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A list that lives.
    Terminal,
    /// Lines of text.
    Plain,
    /// One JSON object per line.
    Json,
}

impl Format {
    /// What fits the wish and the place: a list can only live on a terminal whose cursor can be moved.
    pub fn auto(output: Output, is_terminal: bool) -> Self {
        match output {
            Output::Json => Self::Json,
            Output::Text if is_terminal => Self::Terminal,
            Output::Text => Self::Plain,
        }
    }
}

/// The time: when the run began, and how long ago that is.
#[derive(Clone)]
pub struct Clock {
    started: OffsetDateTime,
    elapsed: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Clock {
    /// A clock that says what it is told to.
    pub fn new(started: OffsetDateTime, elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self { started, elapsed: Arc::new(elapsed) }
    }

    /// The system's, starting now. A run's time does not jump when the system's date is set.
    pub fn system() -> Self {
        let start = Instant::now();
        Self::new(OffsetDateTime::now_utc(), move || start.elapsed())
    }

    fn elapsed(&self) -> Duration {
        (self.elapsed)()
    }
}

/// A step as it stands.
#[derive(Debug, Clone)]
struct Step {
    id: String,
    title: String,
    /// When it started, from the run's beginning; the last time, if it did several times.
    since: Duration,
    /// How long it took the times before that.
    before: Duration,
    state: State,
}

impl Step {
    fn is_running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    fn result(&self, now: Duration) -> StepResult<'_> {
        let (state, took) = match self.state {
            State::Running { .. } => ("running", self.before + now.saturating_sub(self.since)),
            State::Done => ("done", self.before),
            State::Failed { .. } => ("failed", self.before),
        };
        StepResult { step: &self.id, title: &self.title, state, took }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Running {
        /// What is being waited for, if that is known.
        waiting: Option<String>,
    },
    Done,
    Failed {
        reason: String,
    },
}

/// What has changed. Serialised, it is what a program reads: change it only by adding.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
enum Event<'a> {
    StepStarted {
        step: &'a str,
        title: &'a str,
    },
    Waiting {
        step: &'a str,
        #[serde(rename = "for")]
        what: &'a str,
    },
    StepDone {
        step: &'a str,
        title: &'a str,
        #[serde(rename = "durationSeconds", serialize_with = "json::seconds")]
        took: Duration,
    },
    StepFailed {
        step: &'a str,
        title: &'a str,
        #[serde(rename = "durationSeconds", serialize_with = "json::seconds")]
        took: Duration,
        reason: &'a str,
    },
    Note {
        text: &'a str,
    },
    Result {
        outcome: Outcome,
        message: &'a str,
        exit_code: u8,
        next: &'a str,
        #[serde(flatten)]
        why: Option<&'a Why<'a>>,
        steps: Vec<StepResult<'a>>,
    },
}

/// How a step stood when the run ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StepResult<'a> {
    step: &'a str,
    title: &'a str,
    state: &'static str,
    /// All the times that it ran.
    #[serde(rename = "durationSeconds", serialize_with = "json::seconds")]
    took: Duration,
}

/// What a run that went well ends with.
#[derive(Debug, Clone, Copy)]
pub struct Success<'a> {
    /// What is now so.
    pub message: &'a str,
    /// What to do with it.
    pub next: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Succeeded,
    Failed,
}

/// A way to show events.
trait View: Send {
    /// Something changed, `at` so long after the beginning.
    fn event(&mut self, at: Duration, event: &Event<'_>);

    /// How all steps stand: called after every report, be it a change or not.
    fn steps(&mut self, _at: Duration, _steps: &[Step]) {}
}

/// Tells whoever watches how a run is going. One may be shared by concurrent steps.
///
/// A step is known by its id. One that was never started is started by whatever is said about it, with its id for a
/// title. Output that cannot be written is dropped: a run does not fail because nobody watches it any more.
pub struct Reporter {
    inner: Mutex<Inner>,
}

struct Inner {
    clock: Clock,
    steps: Vec<Step>,
    views: Views,
}

/// All that show the same run.
type Views = Vec<Box<dyn View>>;

impl View for Views {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        self.iter_mut().for_each(|view| view.event(at, event));
    }

    fn steps(&mut self, at: Duration, steps: &[Step]) {
        self.iter_mut().for_each(|view| view.steps(at, steps));
    }
}

impl Reporter {
    /// Shows the run on standard output, in the form that fits, and to systemd, if it wants to know; `color` says whether
    /// it may have colours.
    pub fn stdout(output: Output, color: bool) -> Self {
        let (out, clock) = (std::io::stdout(), Clock::system());
        let can_move = std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let reporter = match Format::auto(output, out.is_terminal() && can_move) {
            Format::Terminal => Self::terminal(ProgressDrawTarget::stdout(), color, clock),
            Format::Plain => Self::plain(Box::new(out), clock),
            Format::Json => Self::json(Box::new(out), clock),
        };
        if let Some(view) = systemd::Systemd::from_environment() {
            reporter.lock().views.push(Box::new(view));
        }
        reporter
    }

    /// A list that lives, on a terminal.
    pub fn terminal(target: ProgressDrawTarget, color: bool, clock: Clock) -> Self {
        let view = terminal::Terminal::new(target, color, clock.clone());
        Self::new(clock, vec![Box::new(view)])
    }

    /// Lines of text, for logs.
    pub fn plain(out: Box<dyn Write + Send>, clock: Clock) -> Self {
        Self::new(clock, vec![Box::new(plain::Plain::new(out))])
    }

    /// One JSON object per line, for programs.
    pub fn json(out: Box<dyn Write + Send>, clock: Clock) -> Self {
        let view = json::Json::new(out, clock.started);
        Self::new(clock, vec![Box::new(view)])
    }

    fn new(clock: Clock, views: Views) -> Self {
        Self { inner: Mutex::new(Inner { clock, steps: Vec::new(), views }) }
    }

    /// The step is under way, or has been already.
    pub fn start(&self, step: &str, title: &str) {
        let mut inner = self.lock();
        let at = inner.clock.elapsed();
        inner.find(at, step, title);
        inner.show(at);
    }

    /// The step waits for `what`, which completes "waiting for …". A step that was done or had failed runs again.
    pub fn waiting(&self, step: &str, what: &str) {
        let mut inner = self.lock();
        let at = inner.clock.elapsed();
        let index = inner.find(at, step, step);
        if !inner.steps[index].is_running() {
            inner.begin(at, index);
        }
        inner.change(at, index, State::Running { waiting: Some(what.to_owned()) });
        inner.show(at);
    }

    /// The step is done.
    pub fn done(&self, step: &str) {
        self.set(step, State::Done);
    }

    /// The step is done, if it was ever under way.
    pub fn done_if_started(&self, step: &str) {
        if self.lock().steps.iter().any(|known| known.id == step) {
            self.done(step);
        }
    }

    /// The step has failed, for the reason given.
    pub fn fail(&self, step: &str, reason: &str) {
        self.set(step, State::Failed { reason: reason.to_owned() });
    }

    /// Something worth knowing. Unlike a step's state it is shown each time it is said.
    pub fn note(&self, text: &str) {
        let mut inner = self.lock();
        let at = inner.clock.elapsed();
        inner.views.event(at, &Event::Note { text });
        inner.show(at);
    }

    /// The run is over. The text forms show an error's first line: showing it in full is left to whoever ends the
    /// process.
    pub fn finish(&self, result: Result<Success<'_>, &Error>) {
        let mut inner = self.lock();
        let at = inner.clock.elapsed();
        let Inner { steps, views, .. } = &mut *inner;
        let steps = steps.iter().map(|step| step.result(at)).collect();
        let event =
            |outcome, message, next, exit_code, why| Event::Result { outcome, message, exit_code, next, why, steps };
        match result {
            Ok(Success { message, next }) => views.event(at, &event(Outcome::Succeeded, message, next, 0, None)),
            Err(error) => {
                let told = error.explanation();
                views.event(at, &event(Outcome::Failed, &told.message, &told.next, told.exit_code, Some(&told.why)));
            }
        }
    }

    fn set(&self, step: &str, state: State) {
        let mut inner = self.lock();
        let at = inner.clock.elapsed();
        let index = inner.find(at, step, step);
        inner.change(at, index, state);
        inner.show(at);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A step that panicked leaves the others something to report.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The step's index; it begins if it is new.
    fn find(&mut self, at: Duration, id: &str, title: &str) -> usize {
        if let Some(index) = self.steps.iter().position(|step| step.id == id) {
            return index;
        }
        let (id, title) = (id.to_owned(), title.to_owned());
        let state = State::Running { waiting: None };
        self.steps.push(Step { id, title, since: at, before: Duration::ZERO, state });
        self.begin(at, self.steps.len() - 1);
        self.steps.len() - 1
    }

    fn begin(&mut self, at: Duration, index: usize) {
        let step = &mut self.steps[index];
        step.since = at;
        step.state = State::Running { waiting: None };
        self.views.event(at, &Event::StepStarted { step: &step.id, title: &step.title });
    }

    /// The one place where a state changes, and where it shows that it does not.
    fn change(&mut self, at: Duration, index: usize, state: State) {
        let step = &mut self.steps[index];
        if step.state == state {
            return;
        }
        let took = at.saturating_sub(step.since);
        if step.is_running() && !matches!(state, State::Running { .. }) {
            step.before += took;
        }
        step.state = state;
        let Step { id, title, .. } = &*step;
        let event = match &step.state {
            State::Running { waiting: None } => return,
            State::Running { waiting: Some(what) } => Event::Waiting { step: id, what },
            State::Done => Event::StepDone { step: id, title, took },
            State::Failed { reason } => Event::StepFailed { step: id, title, took, reason },
        };
        self.views.event(at, &event);
    }

    fn show(&mut self, at: Duration) {
        self.views.steps(at, &self.steps);
    }
}

/// A duration for people: `2.9 s`, `1 m 12 s`, `2 h 05 m`.
struct Human(Duration);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rounded first, so that 59.99 is not shown as 60.0 s.
        let tenths = (self.0.as_millis() + 50) / 100;
        let (seconds, minutes) = (tenths / 10, tenths / 600);
        match minutes {
            0 => write!(f, "{seconds}.{} s", tenths % 10),
            1..60 => write!(f, "{minutes} m {:02} s", seconds % 60),
            _ => write!(f, "{} h {:02} m", minutes / 60, minutes % 60),
        }
    }
}

#[cfg(test)]
mod tests;
