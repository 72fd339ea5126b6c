use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::InMemoryTerm;

use super::*;

/// A clock to be set, and the buffer that is written to.
#[derive(Clone, Default)]
struct Stage {
    milliseconds: Arc<AtomicU64>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Stage {
    fn at(&self, milliseconds: u64) {
        self.milliseconds.store(milliseconds, Ordering::Relaxed);
    }

    fn clock(&self) -> Clock {
        let milliseconds = self.milliseconds.clone();
        let started = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        Clock::new(started, move || Duration::from_millis(milliseconds.load(Ordering::Relaxed)))
    }

    fn out(&self) -> Box<dyn Write + Send> {
        Box::new(self.clone())
    }

    fn text(&self) -> String {
        String::from_utf8(self.written.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Stage {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.written.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A run with everything in it: levels said again, two steps at once, a step that falls back, a failure.
fn play(stage: &Stage, reporter: &Reporter) {
    reporter.start("bridge", "the bridge serves the API");
    stage.at(300);
    for _ in 0..3 {
        reporter.start("bridge", "the bridge serves the API");
        reporter.waiting("bridge", "127.0.0.1:6444: connection refused");
    }
    stage.at(1_200);
    reporter.waiting("bridge", "127.0.0.1:6444: 500: [-]etcd failed");
    reporter.start("labels", "this node is labelled");
    stage.at(11_200);
    reporter.waiting("bridge", "127.0.0.1:6444: 500: [-]etcd failed");
    stage.at(12_000);
    reporter.waiting("bridge", "127.0.0.1:6444: 500: [-]etcd failed");
    reporter.done("bridge");
    reporter.done("bridge");
    reporter.note("an image is being pulled");
    stage.at(13_000);
    reporter.waiting("bridge", "127.0.0.1:6444: no answer in time");
    stage.at(13_500);
    reporter.done("bridge");
    reporter.fail("labels", "forbidden\nby RBAC");
    reporter.fail("labels", "forbidden\nby RBAC");
    stage.at(72_000);
    let error = Error::failed("label the node", "forbidden\nby RBAC");
    reporter.finish(Err(&error));
}

#[test]
fn plain_lines() {
    let stage = Stage::default();
    play(&stage, &Reporter::plain(stage.out(), stage.clock()));
    assert_eq!(
        stage.text(),
        "\
[  0.0s] bridge: the bridge serves the API
[  0.3s] bridge: waiting for 127.0.0.1:6444: connection refused
[  1.2s] bridge: waiting for 127.0.0.1:6444: 500: [-]etcd failed
[  1.2s] labels: this node is labelled
[ 11.2s] bridge: still waiting for 127.0.0.1:6444: 500: [-]etcd failed (11.2 s)
[ 12.0s] bridge: done in 12.0 s
[ 12.0s] an image is being pulled
[ 13.0s] bridge: the bridge serves the API
[ 13.0s] bridge: waiting for 127.0.0.1:6444: no answer in time
[ 13.5s] bridge: done in 0.5 s
[ 13.5s] labels: failed after 12.3 s: forbidden
         by RBAC
[ 72.0s] failed after 1 m 12 s: cannot label the node: forbidden
"
    );
}

#[test]
fn json_lines() {
    let stage = Stage::default();
    play(&stage, &Reporter::json(stage.out(), stage.clock()));
    let text = stage.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        r#"{"schema":"hoist.event/v1","time":"2023-11-14T22:13:20Z","elapsedSeconds":0.0,"event":"step-started","step":"bridge","title":"the bridge serves the API"}"#
    );
    assert_eq!(
        lines[1],
        r#"{"schema":"hoist.event/v1","time":"2023-11-14T22:13:20.3Z","elapsedSeconds":0.3,"event":"waiting","step":"bridge","for":"127.0.0.1:6444: connection refused"}"#
    );
    assert_eq!(
        lines[4],
        r#"{"schema":"hoist.event/v1","time":"2023-11-14T22:13:32Z","elapsedSeconds":12.0,"event":"step-done","step":"bridge","title":"the bridge serves the API","durationSeconds":12.0}"#
    );
    assert_eq!(
        lines[lines.len() - 1],
        concat!(
            r#"{"schema":"hoist.event/v1","time":"2023-11-14T22:14:32Z","elapsedSeconds":72.0,"event":"result","outcome":"failed","#,
            r#""message":"cannot label the node: forbidden","exitCode":1,"#,
            r#""next":"remove the cause and run the same command again; `--log-level debug` says more","#,
            r#""class":"failed","details":["by RBAC"],"steps":["#,
            r#"{"step":"bridge","title":"the bridge serves the API","state":"done","durationSeconds":12.5},"#,
            r#"{"step":"labels","title":"this node is labelled","state":"failed","durationSeconds":12.3}]}"#
        )
    );
    let events: Vec<String> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        events.join(" "),
        "step-started waiting waiting step-started step-done note step-started waiting step-done step-failed result"
    );
}

#[test]
fn a_terminal_keeps_what_ended_above_what_runs() {
    let (stage, screen) = (Stage::default(), InMemoryTerm::new(12, 80));
    let reporter = Reporter::terminal(ProgressDrawTarget::term_like(Box::new(screen.clone())), false, stage.clock());
    reporter.start("etcd", "etcd serves");
    reporter.start("bridge", "the bridge serves the API");
    stage.at(2_900);
    reporter.done("etcd");
    stage.at(3_000);
    reporter.waiting("bridge", "127.0.0.1:6444: connection refused");
    let expected =
        "✓ etcd serves  2.9 s\n⠋ the bridge serves the API  3.0 s\n    waiting for 127.0.0.1:6444: connection refused";
    // indicatif draws from a thread of its own.
    let deadline = Instant::now() + Duration::from_secs(10);
    while screen.contents() != expected {
        assert!(Instant::now() < deadline, "{}", screen.contents());
        std::thread::sleep(Duration::from_millis(10));
    }
    reporter.done("bridge");
    stage.at(5_000);
    reporter.finish(Ok(Success { message: "the cluster is up", next: "use it" }));
    assert_eq!(
        screen.contents(),
        "✓ etcd serves  2.9 s\n✓ the bridge serves the API  3.0 s\ndone in 5.0 s: the cluster is up"
    );
}

#[test]
fn a_terminal_keeps_what_ran_when_the_run_failed() {
    let (stage, screen) = (Stage::default(), InMemoryTerm::new(24, 80));
    let reporter = Reporter::terminal(ProgressDrawTarget::term_like(Box::new(screen.clone())), false, stage.clock());
    reporter.waiting("etcd", "a disk");
    stage.at(72_000);
    reporter.finish(Err(&Error::failed("start etcd", "no disk")));
    let expected = "· etcd  1 m 12 s\n    waiting for a disk\nfailed after 1 m 12 s: cannot start etcd: no disk";
    assert_eq!(screen.contents(), expected);
    drop(reporter);
    assert_eq!(screen.contents(), expected);
}

#[test]
fn steps_may_be_reported_from_several_threads() {
    let stage = Stage::default();
    let reporter = Reporter::plain(stage.out(), stage.clock());
    std::thread::scope(|scope| {
        for id in ["one", "two", "three"] {
            let reporter = &reporter;
            scope.spawn(move || {
                reporter.waiting(id, "its turn");
                reporter.done(id);
            });
        }
    });
    assert_eq!(stage.text().lines().count(), 9, "{}", stage.text());
}

#[test]
fn a_closed_pipe_is_no_failure() {
    struct Closed;
    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    Reporter::plain(Box::new(Closed), Clock::system()).note("to nobody");
    Reporter::json(Box::new(Closed), Clock::system()).note("to nobody");
}

#[test]
fn the_format_fits_the_wish_and_the_place() {
    assert_eq!(Format::auto(Output::Text, true), Format::Terminal);
    assert_eq!(Format::auto(Output::Text, false), Format::Plain);
    assert_eq!(Format::auto(Output::Json, true), Format::Json);
}

#[test]
fn durations_are_for_people() {
    let shown = |milliseconds| Human(Duration::from_millis(milliseconds)).to_string();
    assert_eq!(shown(0), "0.0 s");
    assert_eq!(shown(2_900), "2.9 s");
    assert_eq!(shown(59_960), "1 m 00 s");
    assert_eq!(shown(72_400), "1 m 12 s");
    assert_eq!(shown(7_500_000), "2 h 05 m");
}

/// What a program may meet: each kind of event, and each kind of end.
#[test]
fn every_event_is_as_its_schema_says() {
    let schema = include_str!("../../../docs/schema/event-v1.schema.json");
    let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], EVENT_SCHEMA);
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let stage = Stage::default();
    play(&stage, &Reporter::json(stage.out(), stage.clock()));
    let reporter = Reporter::json(stage.out(), stage.clock());
    reporter.waiting("etcd", "a disk");
    reporter.finish(Ok(Success { message: "the cluster is up", next: "use it" }));
    let finding = crate::base::error::Finding::new("a.yaml", "is wrong").at(Some((3, 7))).remedy("make it right");
    let timed_out = |api_served| Error::TimedOut {
        waiting_for: "a pod".into(),
        api_served,
        details: vec!["x".into()],
        next: "look".into(),
    };
    for error in [
        Error::Input(vec![finding.clone()]),
        Error::Preflight(vec![finding.clone().warning()]),
        Error::Refused(vec![finding]),
        Error::Locked { holder: "pid 7".into() },
        timed_out(true),
        timed_out(false),
        Error::Interrupted { signal: 15, state: "x\ny".into() },
        Error::io("read", "/x".as_ref(), std::io::ErrorKind::NotFound.into()),
    ] {
        Reporter::json(stage.out(), stage.clock()).finish(Err(&error));
    }
    let mut events = std::collections::BTreeSet::new();
    for line in stage.text().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let wrong: Vec<_> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{line}: {wrong:?}");
        events.insert(event["event"].as_str().unwrap().to_owned());
        // Programs may meet new fields and must let them pass; hoist itself writes none that has no description.
        let described = |object: &serde_json::Value, at: &str| {
            let known = schema.pointer(at).unwrap().as_object().unwrap();
            for name in object.as_object().unwrap().keys() {
                assert!(known.contains_key(name), "{name} is not in {at} of the schema: {line}");
            }
        };
        described(&event, "/properties");
        let items = |name: &str| event[name].as_array().cloned().unwrap_or_default();
        items("findings").iter().for_each(|finding| described(finding, "/$defs/finding/properties"));
        items("steps").iter().for_each(|step| described(step, "/$defs/step/properties"));
    }
    let known: Vec<_> =
        schema["properties"]["event"]["enum"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(known.iter().all(|name| events.contains(*name)), "{events:?} of {known:?}");

    // It also refuses: a schema that lets everything pass would show nothing.
    let mut event: serde_json::Value = serde_json::from_str(stage.text().lines().last().unwrap()).unwrap();
    event.as_object_mut().unwrap().remove("next");
    assert!(!validator.is_valid(&event), "{event}");
}
