//! Helpers with which tests compare findings with what they expect.

/// Each finding begins as expected, and has a remedy: where none is expected, any.
#[track_caller]
pub(crate) fn same<F: AsRef<str>, E: AsRef<str>>(found: &[F], expected: &[E]) {
    let found: Vec<_> = found.iter().map(AsRef::as_ref).collect();
    let expected: Vec<_> = expected.iter().map(AsRef::as_ref).collect();
    let fits = |(found, expected): (&&str, &&str)| match found.split_once(" | ") {
        Some((finding, _)) => found == expected || finding == *expected,
        None => false,
    };
    let all = found.len() == expected.len() && found.iter().zip(&expected).all(fits);
    assert!(all, "found {found:#?}, expected {expected:#?}");
}
