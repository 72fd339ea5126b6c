//! The exit codes that scripts rely on.

use hoist::error::Error;

/// Every kind of failure with its exit code.
fn table() -> Vec<(Error, u8)> {
    let timed_out = |api_served| Error::TimedOut {
        waiting_for: String::new(),
        api_served,
        details: Vec::new(),
        next: String::new(),
    };
    let all = vec![
        (Error::io("read", "/x".as_ref(), std::io::ErrorKind::NotFound.into()), 1),
        (Error::failed("think", "no idea"), 1),
        (Error::Input(Vec::new()), 3),
        (Error::Preflight(Vec::new()), 4),
        (Error::Locked { holder: String::new() }, 5),
        (timed_out(true), 6),
        (timed_out(false), 7),
        (Error::Refused(Vec::new()), 8),
        (Error::Interrupted { signal: 2, state: String::new() }, 130),
        (Error::Interrupted { signal: 15, state: String::new() }, 143),
    ];
    for (error, _) in &all {
        // A new kind of failure belongs into the table above, and into the README's.
        match error {
            Error::Io { .. } | Error::Failed { .. } | Error::Input(_) | Error::Preflight(_) | Error::Locked { .. } => {}
            Error::TimedOut { .. } | Error::Refused(_) | Error::Interrupted { .. } => {}
        }
    }
    all
}

#[test]
fn they_are_what_they_were() {
    for (error, code) in table() {
        assert_eq!(error.exit_code(), code, "{error}");
    }
}
