//! The exit codes that scripts rely on.

use hoist::base::error::{EXIT_CODES, Error};

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
        (Error::Later { action: String::new(), cause: String::new(), after: std::time::Duration::ZERO }, 1),
        (Error::Input(Vec::new()), 3),
        (Error::Preflight(Vec::new()), 4),
        (Error::Locked { holder: String::new() }, 5),
        (timed_out(true), 6),
        (timed_out(false), 7),
        (Error::Refused(Vec::new()), 8),
        (Error::Interrupted { signal: 1, state: String::new() }, 129),
        (Error::Unsigned(Vec::new()), 9),
        (Error::Interrupted { signal: 2, state: String::new() }, 130),
        (Error::Interrupted { signal: 15, state: String::new() }, 143),
    ];
    for (error, _) in &all {
        // A new kind of failure belongs into the table above, and into the page's.
        match error {
            Error::Io { .. } | Error::Failed { .. } | Error::Input(_) | Error::Preflight(_) | Error::Locked { .. } => {}
            Error::Later { .. }
            | Error::TimedOut { .. }
            | Error::Refused(_)
            | Error::Unsigned(_)
            | Error::Interrupted { .. } => {}
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

#[test]
fn the_page_says_so() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/exit-codes.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once("| code | meaning |").expect("the page has a table of exit codes");
    let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(|row| row.trim_matches(['|', ' ']).split_once(" | ").unwrap()).collect();
    assert_eq!(rows, EXIT_CODES);
}

#[test]
fn every_kind_of_failure_has_a_row() {
    // 0 is success, 2 is usage, which clap refuses before there is an error of hoist's, and a --diff that shows
    // changes; signals share a row.
    let own = table().into_iter().map(|(_, code)| code).filter(|code| *code < 128);
    let mut expected: Vec<_> = own.chain([0, hoist::cli::WOULD_CHANGE]).collect();
    expected.sort_unstable();
    expected.dedup();
    let expected: Vec<_> = expected.iter().map(ToString::to_string).chain(["128+n".to_owned()]).collect();
    assert_eq!(EXIT_CODES.map(|(code, _)| code), expected[..]);
}
