//! What is asked before something is lost for good.

use std::io::{BufRead, Write};

use crate::base::error::{Error, Result};

/// Asks on `out`, as kubeadm does, whether the command `name` is to proceed; `next` is what asks nothing.
///
/// # Errors
/// Any answer but yes.
pub(super) fn ask(name: &str, next: &str, out: &mut dyn Write) -> Result<()> {
    super::print(out, &format!("[{name}] Are you sure you want to proceed? [y/N]: "))?;
    out.flush().map_err(|error| Error::failed("write to standard output", error))?;
    confirmed(&mut std::io::stdin().lock(), next)
}

/// Whether the user says yes, in kubeadm's words.
fn confirmed(input: &mut dyn BufRead, next: &str) -> Result<()> {
    let mut answer = String::new();
    input.read_line(&mut answer).map_err(|error| Error::failed("read from standard input", error))?;
    match answer.trim() {
        yes if yes.eq_ignore_ascii_case("y") || yes.eq_ignore_ascii_case("yes") => Ok(()),
        _ => Err(Error::Failed {
            action: "proceed".into(),
            cause: "the user didn't answer (Y|y) in order to continue; nothing was changed".into(),
            next: Some(next.to_owned()),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        for (answer, yes) in [
            ("y\n", true),
            ("Yes\n", true),
            ("YES", true),
            ("\n", false),
            ("", false),
            ("n\ny\n", false),
            ("yep\n", false),
        ] {
            assert_eq!(confirmed(&mut answer.as_bytes(), "").is_ok(), yes, "{answer:?}");
        }
    }
}
