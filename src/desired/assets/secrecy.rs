//! What nobody but root should read.

/// Whether a text that anybody may read today holds what nobody else should see: a Secret that a user put there, a key.
pub(super) fn holds_secrets(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    let bare = |line: &str| line.replace([' ', '"', '\'', '-', ','], "");
    text.contains("PRIVATE KEY-----") || text.lines().any(|line| bare(line).contains("kind:Secret"))
}
