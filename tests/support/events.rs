//! What `--output json` writes, held against its schema.

use serde_json::Value;

/// The events of a run; each is as docs/schema/event-v1.schema.json has it, nothing stands beside them, and the last
/// one is the result.
#[track_caller]
pub fn events(stdout: &str) -> Vec<Value> {
    let schema: Value = serde_json::from_str(include_str!("../../docs/schema/event-v1.schema.json")).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let wrong: Vec<_> = validator.iter_errors(&event).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{line}: {wrong:?}");
        event
    };
    let events: Vec<_> = stdout.lines().map(event).collect();
    let results = events.iter().filter(|event| event["event"] == "result").count();
    assert_eq!(results, 1, "results: {stdout}");
    assert_eq!(events.last().unwrap()["event"], "result", "{stdout}");
    events
}
