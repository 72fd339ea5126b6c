//! A live list: running steps are redrawn at the bottom, and ended steps stay above them.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{Clock, Event, Human, State, Step, View, plain};

/// How often the times are drawn again.
const TICK: Duration = Duration::from_millis(100);
const SPINNER: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];

pub(super) struct Terminal {
    /// One bar draws all lines that live, so that they are never drawn in parts.
    bar: ProgressBar,
    steps: Arc<Mutex<Vec<Step>>>,
    paint: Paint,
}

/// Which parts of a line have a colour; none of them means anything that the text does not say.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    const GREEN: &'static str = "\x1b[32m";
    const RED: &'static str = "\x1b[31m";
    const CYAN: &'static str = "\x1b[36m";
    const DIM: &'static str = "\x1b[2m";

    fn with(self, style: &str, text: &str) -> String {
        if self.0 { format!("{style}{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Terminal {
    pub(super) fn new(target: ProgressDrawTarget, color: bool, clock: Clock) -> Self {
        let paint = Paint(color);
        let steps = Arc::new(Mutex::new(Vec::<Step>::new()));
        let drawn = steps.clone();
        // A key, not a message: it is asked anew at every tick, from indicatif's own thread.
        let live = move |_: &ProgressState, out: &mut dyn Write| {
            let now = clock.elapsed();
            let frame = usize::try_from(now.as_millis() / TICK.as_millis()).unwrap_or(0) % SPINNER.len();
            let _ = out.write_str(&lines(&lock(&drawn), now, SPINNER[frame], paint).join("\n"));
        };
        let style = ProgressStyle::with_template("{live}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::with_draw_target(None, target).with_style(style.with_key("live", live));
        bar.enable_steady_tick(TICK);
        Self { bar, steps, paint }
    }
}

impl View for Terminal {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        let mut text = ended(at, event, self.paint);
        let over = matches!(event, Event::Result { .. });
        if over {
            // What still ran is the first thing to look at if the run failed.
            text.splice(..0, lines(&std::mem::take(&mut *lock(&self.steps)), at, '·', self.paint));
        }
        for line in text {
            self.bar.println(line);
        }
        if over {
            self.bar.finish_and_clear();
        }
    }

    fn steps(&mut self, _at: Duration, steps: &[Step]) {
        *lock(&self.steps) = steps.to_vec();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn lock(steps: &Mutex<Vec<Step>>) -> MutexGuard<'_, Vec<Step>> {
    steps.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What lives: the steps that run, each behind `mark`, with its time and what it waits for.
fn lines(steps: &[Step], now: Duration, mark: char, paint: Paint) -> Vec<String> {
    let mut lines = Vec::new();
    for step in steps {
        let State::Running { waiting } = &step.state else { continue };
        let mark = paint.with(Paint::CYAN, &mark.to_string());
        lines.push(format!("{mark} {}  {}", step.title, Human(now.saturating_sub(step.since))));
        if let Some(what) = waiting {
            lines.push(paint.with(Paint::DIM, &format!("    waiting for {what}")));
        }
    }
    lines
}

/// What an event leaves behind for good.
fn ended(at: Duration, event: &Event<'_>, paint: Paint) -> Vec<String> {
    let text = match event {
        Event::StepStarted { .. } | Event::Waiting { .. } => return Vec::new(),
        Event::StepDone { title, took, .. } => format!("{} {title}  {}", paint.with(Paint::GREEN, "✓"), Human(*took)),
        Event::StepFailed { title, took, reason, .. } => {
            format!("{} {title}  {}\n{reason}", paint.with(Paint::RED, "✗"), Human(*took))
        }
        Event::Note { text } => format!("  {text}"),
        Event::Result { outcome, message, .. } => plain::result(at, *outcome, message),
    };
    let mut lines = text.trim_end().lines();
    let first = lines.next().map(ToOwned::to_owned);
    first.into_iter().chain(lines.map(|line| format!("    {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Outcome;
    use super::*;

    const PLAIN: Paint = Paint(false);

    #[test]
    fn colours_are_added_to_the_text_and_say_nothing_else() {
        let steps = [step("etcd", 0, State::Running { waiting: Some("a disk".into()) })];
        let drawn = lines(&steps, Duration::from_secs(1), '⠙', Paint(true));
        assert_eq!(drawn, ["\x1b[36m⠙\x1b[0m etcd gets ready  1.0 s", "\x1b[2m    waiting for a disk\x1b[0m"]);
        let done = Event::StepDone { step: "etcd", title: "etcd gets ready", took: Duration::from_secs(1) };
        assert_eq!(ended(Duration::ZERO, &done, Paint(true)), ["\x1b[32m✓\x1b[0m etcd gets ready  1.0 s"]);
    }

    fn step(id: &str, since: u64, state: State) -> Step {
        Step {
            id: id.into(),
            title: format!("{id} gets ready"),
            since: Duration::from_millis(since),
            before: Duration::ZERO,
            state,
        }
    }

    #[test]
    fn what_runs_is_listed_with_what_it_waits_for() {
        let steps = [
            step("etcd", 0, State::Done),
            step("bridge", 1_000, State::Running { waiting: Some("500: [-]etcd failed".into()) }),
            step("labels", 3_000, State::Running { waiting: None }),
        ];
        let drawn = lines(&steps, Duration::from_millis(4_100), '⠙', PLAIN);
        assert_eq!(
            drawn,
            ["⠙ bridge gets ready  3.1 s", "    waiting for 500: [-]etcd failed", "⠙ labels gets ready  1.1 s"]
        );
        assert!(lines(&steps[..1], Duration::from_secs(9), '⠙', PLAIN).is_empty());
    }

    #[test]
    fn what_ended_stays() {
        let at = Duration::from_secs(72);
        let took = Duration::from_millis(2_900);
        let done = Event::StepDone { step: "etcd", title: "etcd gets ready", took };
        assert_eq!(ended(at, &done, PLAIN), ["✓ etcd gets ready  2.9 s"]);
        let failed = Event::StepFailed { step: "etcd", title: "etcd gets ready", took, reason: "no space\non /var" };
        assert_eq!(ended(at, &failed, PLAIN), ["✗ etcd gets ready  2.9 s", "    no space", "    on /var"]);
        let result = Event::Result {
            outcome: Outcome::Failed,
            message: "timed out\n  more",
            exit_code: 6,
            next: "look",
            why: None,
            steps: Vec::new(),
        };
        assert_eq!(ended(at, &result, PLAIN), ["failed after 1 m 12 s: timed out"]);
        assert!(ended(at, &Event::Waiting { step: "etcd", what: "a disk" }, PLAIN).is_empty());
    }
}
