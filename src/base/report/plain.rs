//! A line per change, for logs. The current wait is repeated from time to time, so that a log shows that the run is
//! alive.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use super::{Event, Human, Outcome, State, Step, View};

/// When to say again what is waited for.
const REPEAT: Duration = Duration::from_secs(10);

pub(super) struct Plain {
    out: Box<dyn Write + Send>,
    /// When something was last said about each step.
    said: HashMap<String, Duration>,
}

impl Plain {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, said: HashMap::new() }
    }

    fn write(&mut self, line: &str) {
        let _ = writeln!(self.out, "{line}").and_then(|()| self.out.flush());
    }
}

impl View for Plain {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        if let Event::StepStarted { step, .. } | Event::Waiting { step, .. } = event {
            self.said.insert((*step).to_owned(), at);
        }
        self.write(&line(at, event));
    }

    fn steps(&mut self, at: Duration, steps: &[Step]) {
        for step in steps {
            let State::Running { waiting: Some(what) } = &step.state else { continue };
            let said = self.said.get(&step.id).copied().unwrap_or_default();
            if at.saturating_sub(said) >= REPEAT {
                self.said.insert(step.id.clone(), at);
                let so_far = Human(at.saturating_sub(step.since));
                self.write(&stamped(at, &format!("{}: still waiting for {what} ({so_far})", step.id)));
            }
        }
    }
}

/// The line of an event; of several lines, if its text is.
fn line(at: Duration, event: &Event<'_>) -> String {
    let text = match event {
        Event::StepStarted { step, title } if step == title => format!("{step}: started"),
        Event::StepStarted { step, title } => format!("{step}: {title}"),
        Event::Waiting { step, what } => format!("{step}: waiting for {what}"),
        Event::StepDone { step, took, .. } => format!("{step}: done in {}", Human(*took)),
        Event::StepFailed { step, took, reason, .. } => format!("{step}: failed after {}: {reason}", Human(*took)),
        Event::Note { text } => (*text).to_owned(),
        Event::Result { outcome, message, .. } => result(at, *outcome, message),
    };
    stamped(at, &text)
}

/// How a run ended, as one line.
pub(super) fn result(at: Duration, outcome: Outcome, message: &str) -> String {
    let ended = match outcome {
        Outcome::Succeeded => "done in",
        Outcome::Failed => "failed after",
    };
    format!("{ended} {}: {}", Human(at), message.lines().next().unwrap_or_default())
}

fn stamped(at: Duration, text: &str) -> String {
    let stamp = format!("[{:5.1}s] ", at.as_secs_f64());
    let indent = format!("\n{:width$}", "", width = stamp.len());
    stamp + &text.trim_end().replace('\n', &indent)
}
