//! Who may still show a token of a key that is to go. Nobody says by which key a token is signed that he was shown: tokens in
//! Secrets can be read, and those of pods end.

use std::time::Duration;

use time::OffsetDateTime;

use super::service_account::shown;
use crate::base::time::rfc3339;

/// The kubelet has another token made when a fifth of its life is left ...
const LIVES: f64 = 0.8;
/// ... or after this time.
const LONGEST: Duration = Duration::from_hours(24);
/// How much later it may be: a kubelet looks at a pod every 90 s, a client reads its file every minute, and one of them may be
/// busy.
const LATE: Duration = Duration::from_mins(5);
/// How far two clocks may be apart.
const CLOCKS: Duration = Duration::from_secs(30);
/// How many names are told.
const TOLD: usize = 5;

/// A token in a Secret, which has no end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSecret {
    /// As in `users/robot`.
    pub name: String,
    /// The name of the key that has signed it.
    pub key: String,
}

/// A pod with a token that its kubelet renews.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfPod {
    /// As in `users/robot`.
    pub name: String,
    /// When it was made.
    pub made: OffsetDateTime,
    /// The longest life of its tokens.
    pub lives: Duration,
}

/// How many tokens API servers were shown in a while that are older than their life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The controller.
    pub node: String,
    /// How many.
    pub count: u64,
    /// Whose, as far as the audit log here says.
    pub subjects: Vec<String>,
}

/// What is seen of tokens.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// Those in Secrets.
    pub secrets: Vec<InSecret>,
    /// Those of pods.
    pub pods: Vec<OfPod>,
    /// What API servers were shown.
    pub stale: Vec<Stale>,
}

/// Who may still show a token of another key than `stays`, in words. No API server has signed by another since `since`.
pub fn held(tokens: &Tokens, stays: &str, since: OffsetDateTime, now: OffsetDateTime) -> Vec<String> {
    let mut held = Vec::new();
    let others: Vec<_> = tokens.secrets.iter().filter(|token| token.key != stays).collect();
    if !others.is_empty() {
        let names: Vec<_> = others.iter().map(|token| format!("{} (key {})", token.name, shown(&token.key))).collect();
        held.push(format!(
            "{} of the type kubernetes.io/service-account-token with a token of another key, which never ends: {}",
            count(others.len(), "Secret"),
            told(&names)
        ));
    }
    let until = |pod: &OfPod| since + pod.lives.mul_f64(LIVES).min(LONGEST) + LATE;
    let pods: Vec<_> = tokens.pods.iter().filter(|pod| pod.made < since + CLOCKS && now < until(pod)).collect();
    if let Some(last) = pods.iter().map(|pod| until(pod)).max() {
        let names: Vec<_> = pods.iter().map(|pod| pod.name.clone()).collect();
        held.push(format!(
            "{} may have a token of another key until their kubelets have renewed it, by {} at the latest: {}",
            count(pods.len(), "pod"),
            rfc3339(last),
            told(&names)
        ));
    }
    for stale in tokens.stale.iter().filter(|stale| stale.count > 0) {
        let whose = match stale.subjects.is_empty() {
            true => String::new(),
            false => format!(", by {}", told(&stale.subjects)),
        };
        held.push(format!(
            "{} that should have been renewed, shown to the API server of {} in the last minute{whose}: a client reads its token once, and never again",
            count(usize::try_from(stale.count).unwrap_or(usize::MAX), "token"),
            stale.node
        ));
    }
    held
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

fn told(names: &[String]) -> String {
    let more = names.len().saturating_sub(TOLD);
    let mut text = names[..names.len() - more].join(", ");
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_have_an_old_token_is_named_until_it_is_renewed() {
        let since = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let minutes = |count: i64| time::Duration::minutes(count);
        let pod = |name: &str, age: i64, lives: u64| OfPod {
            name: name.into(),
            made: since - minutes(age),
            lives: Duration::from_secs(lives),
        };
        let of = |pods: Vec<OfPod>| Tokens { pods, ..Tokens::default() };
        let said = |tokens: &Tokens, after: i64| held(tokens, "new", since, since + minutes(after)).join("; ");
        // 0.8 of 3607 s are 48 minutes, and five are let pass beyond.
        let old = of(vec![pod("a/old", 100, 3607)]);
        assert!(said(&old, 53).contains("1 pod may have"), "{}", said(&old, 53));
        assert!(said(&old, 53).contains("2026-07-01T12:53:05Z at the latest: a/old"), "{}", said(&old, 53));
        assert_eq!(said(&old, 54), "");
        // One that came later has another token; where clocks differ, it is not known.
        assert_eq!(said(&of(vec![pod("a/new", -1, 3607)]), 1), "");
        assert_ne!(said(&of(vec![pod("a/same", 0, 3607)]), 1), "");
        // No token is kept for longer than a day.
        let long = of(vec![pod("a/long", 1, 3_000_000)]);
        assert_ne!(said(&long, 24 * 60 + 4), "");
        assert_eq!(said(&long, 24 * 60 + 6), "");
        let many = of((0..7).map(|number| pod(&format!("a/{number}"), 1, 600)).collect());
        assert!(said(&many, 1).ends_with("a/0, a/1, a/2, a/3, a/4 and 2 more"), "{}", said(&many, 1));
    }

    #[test]
    fn a_token_in_a_secret_ends_with_its_key_alone() {
        let since = OffsetDateTime::from_unix_timestamp(1_782_907_200).unwrap();
        let token = |name: &str, key: &str| InSecret { name: name.into(), key: key.into() };
        let tokens = Tokens {
            secrets: vec![token("a/robot", "older-than-it"), token("a/new", "new")],
            stale: vec![
                Stale { node: "c1".into(), count: 3, subjects: vec!["system:serviceaccount:a:b".into()] },
                Stale { node: "c2".into(), count: 0, subjects: Vec::new() },
            ],
            ..Tokens::default()
        };
        let said = held(&tokens, "new", since, since + time::Duration::days(400));
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].starts_with("1 Secret of the type") && said[0].ends_with("a/robot (key older-th)"), "{said:?}");
        assert!(
            said[1].contains("3 tokens")
                && said[1].contains("of c1")
                && said[1].contains("by system:serviceaccount:a:b")
        );
    }
}
