//! The line that `systemctl status` shows for a run under systemd, and the notification that the run is ready.

use std::time::Duration;

use sd_notify::NotifyState;

use super::{Event, Outcome, State, Step, View, plain};

/// Tells a service manager something; it may be gone or refuse to listen.
type Notify = Box<dyn FnMut(&[NotifyState<'_>]) + Send>;

pub(super) struct Systemd {
    notify: Notify,
    said: String,
}

impl Systemd {
    /// The view of the service manager that has started this process, if one wants to know.
    pub(super) fn from_environment() -> Option<Self> {
        std::env::var_os("NOTIFY_SOCKET")?;
        Some(Self::new(Box::new(|states| {
            let _ = sd_notify::notify(states);
        })))
    }

    fn new(notify: Notify) -> Self {
        Self { notify, said: String::new() }
    }
}

impl View for Systemd {
    fn event(&mut self, at: Duration, event: &Event<'_>) {
        let Event::Result { outcome, message, why, .. } = event else { return };
        let mut status = plain::result(at, *outcome, message);
        // The first detail is the cause, or the first of them.
        let finding = why.as_ref().and_then(|why| why.findings.first()).map(ToString::to_string);
        let detail = finding.or_else(|| why.as_ref()?.details.first().map(ToString::to_string));
        if let Some(detail) = detail.as_deref().and_then(|detail| detail.lines().next()) {
            status = format!("{status}: {}", detail.trim());
        }
        match outcome {
            Outcome::Succeeded => (self.notify)(&[NotifyState::Ready, NotifyState::Status(&status)]),
            Outcome::Failed => (self.notify)(&[NotifyState::Status(&status)]),
        }
    }

    fn steps(&mut self, _at: Duration, steps: &[Step]) {
        let running = |step: &&Step| matches!(step.state, State::Running { .. });
        let Some(step) = steps.iter().rfind(running) else { return };
        let status = match &step.state {
            State::Running { waiting: Some(what) } => format!("{}: waiting for {what}", step.title),
            _ => step.title.clone(),
        };
        // A newline would begin another variable.
        let status = status.replace('\n', " ");
        if status != self.said {
            (self.notify)(&[NotifyState::Status(&status)]);
            self.said = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::base::report::{Clock, Reporter, Success};

    fn told(play: impl FnOnce(&Reporter)) -> Vec<String> {
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = told.clone();
        let notify = move |states: &[NotifyState<'_>]| {
            kept.lock().unwrap().push(states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        };
        let clock = Clock::new(time::OffsetDateTime::UNIX_EPOCH, || Duration::from_secs(72));
        play(&Reporter::new(clock, vec![Box::new(Systemd::new(Box::new(notify)))]));
        let told = told.lock().unwrap();
        told.clone()
    }

    #[test]
    fn the_last_step_that_runs_is_the_status() {
        let told = told(|reporter| {
            reporter.start("api", "the bridge serves the API");
            for _ in 0..3 {
                reporter.waiting("api", "500:\n[-]etcd failed");
            }
            reporter.start("node", "the kubelet joins");
            reporter.note("not for a status");
            reporter.done("node");
            reporter.done("api");
            reporter.finish(Ok(Success { message: "the cluster serves itself", next: "" }));
        });
        assert_eq!(
            told,
            [
                "STATUS=the bridge serves the API",
                "STATUS=the bridge serves the API: waiting for 500: [-]etcd failed",
                "STATUS=the kubelet joins",
                "STATUS=the bridge serves the API: waiting for 500: [-]etcd failed",
                "READY=1\nSTATUS=done in 1 m 12 s: the cluster serves itself",
            ]
        );
    }

    #[test]
    fn a_failure_has_its_cause() {
        use crate::base::error::{Error, Finding};
        let findings =
            vec![Finding::new("port 6443", "is held by x").remedy("stop it"), Finding::new("user", "is no root")];
        let told = told(|reporter| reporter.finish(Err(&Error::Preflight(findings))));
        let status = "failed after 1 m 12 s: this machine is not ready; nothing was changed: port 6443: is held by x";
        assert_eq!(told, [format!("STATUS={status}")]);
    }
}
