//! Bootstrap tokens.

use crate::base::error::{Error, Finding, Result};

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID: usize = 6;
const SECRET: usize = 16;

/// The token that is there, or else a new one (`[a-z0-9]{6}.[a-z0-9]{16}`) from the system's randomness.
pub fn bootstrap_token(existing: Option<&str>) -> Result<String> {
    match existing {
        None => Ok(format!("{}.{}", random(ID)?, random(SECRET)?)),
        Some(token) if is_token(token) => Ok(token.to_owned()),
        // The token itself is a secret: it is not repeated.
        Some(_) => Err(Error::Input(vec![
            Finding::new("bootstrap token", "is not of the form [a-z0-9]{6}.[a-z0-9]{16}")
                .remedy("remove it, and a new one is made"),
        ])),
    }
}

/// Whether it has a token's form.
pub fn is_token(token: &str) -> bool {
    token.split_once('.').is_some_and(|(id, secret)| is_token_id(id) && part(secret, SECRET))
}

/// Whether it has the form of a token's first, public part.
pub fn is_token_id(id: &str) -> bool {
    part(id, ID)
}

fn part(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

fn random(len: usize) -> Result<String> {
    // Bytes from 252 on are thrown away: 256 is no multiple of 36, and the first letters would be likelier.
    let fair = |byte: &u8| *byte < 252;
    let mut text = String::new();
    while text.len() < len {
        let bytes: [u8; 32] = random_bytes()?;
        let letters = bytes.iter().filter(|b| fair(b)).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]));
        text.extend(letters.take(len - text.len()));
    }
    Ok(text)
}

/// Bytes from the system's randomness.
pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::failed("get random bytes from the system", e))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_the_form_kubernetes_wants() {
        let token = bootstrap_token(None).unwrap();
        assert!(is_token(&token), "{token}");
        assert_ne!(token, bootstrap_token(None).unwrap());
    }

    #[test]
    fn a_token_that_is_there_stays() {
        assert_eq!(bootstrap_token(Some("abcdef.0123456789abcdef")).unwrap(), "abcdef.0123456789abcdef");
    }

    #[test]
    fn a_malformed_token_is_refused_and_not_repeated() {
        for bad in ["", "abcdef", "abcdef.0123", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef.x"] {
            let error = bootstrap_token(Some(bad)).unwrap_err().to_string();
            assert!(!error.to_lowercase().contains("abcdef"), "{error}");
        }
    }

    #[test]
    fn every_letter_is_as_likely() {
        let text = random(36_000).unwrap();
        for letter in ALPHABET {
            let n = text.bytes().filter(|b| b == letter).count();
            // 1000 expected with a deviation of 31: eight of them either way.
            assert!((750..1250).contains(&n), "{} occurs {n} times", char::from(*letter));
        }
    }
}
