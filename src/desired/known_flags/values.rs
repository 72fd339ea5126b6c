//! Whether a program would take the value of a flag, as far as that is cheap to tell: by the kind of the value as Go reads
//! it, by the few words that some flags take, and by the form of lists of feature gates.

use super::{Kind, Program, kind};
use crate::desired::config::duration;

/// Flags that take one of a few words, or several with commas between them.
const WORDS: [(&[Program], &str, bool, &[&str]); 9] = [
    (
        &[Program::ApiServer],
        "authorization-mode",
        true,
        &["AlwaysAllow", "AlwaysDeny", "ABAC", "Webhook", "RBAC", "Node"],
    ),
    (&[Program::ApiServer], "audit-log-format", false, &["legacy", "json"]),
    (&[Program::ApiServer], "audit-log-mode", false, &["batch", "blocking", "blocking-strict"]),
    (&[Program::ApiServer], "audit-webhook-mode", false, &["batch", "blocking", "blocking-strict"]),
    (
        &[Program::ApiServer, Program::ControllerManager, Program::Scheduler, Program::Kubelet],
        "tls-min-version",
        false,
        &["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13"],
    ),
    (
        &[Program::ApiServer, Program::ControllerManager, Program::Scheduler, Program::Kubelet],
        "logging-format",
        false,
        &["text", "json"],
    ),
    (&[Program::Etcd], "auto-compaction-mode", false, &["periodic", "revision"]),
    (&[Program::Etcd], "log-level", false, &["debug", "info", "warn", "error", "panic", "fatal"]),
    (&[Program::Etcd], "logger", false, &["zap"]),
];

/// Whether `program` takes `value` for `flag`. What is not known of here is given the benefit of the doubt.
///
/// # Errors
/// Why not, as the end of a sentence that begins with the value.
pub fn fits(program: Program, flag: &str, value: &str) -> Result<(), String> {
    // The kubelet fills in variables of a pod.
    if value.contains("$(") || value.contains("${") {
        return Ok(());
    }
    if flag == "feature-gates" {
        return value.split(',').filter(|gate| !gate.trim().is_empty()).try_for_each(gate);
    }
    let words = WORDS.iter().find(|(programs, name, ..)| programs.contains(&program) && *name == flag);
    if let Some((_, _, is_list, words)) = words {
        let mut given = if *is_list { value.split(',').collect() } else { vec![value] }.into_iter();
        return match given.all(|word| words.contains(&word)) {
            true => Ok(()),
            false => Err(format!("is none of {}", words.join(", "))),
        };
    }
    let (is_good, what) = match kind(program, flag) {
        // Both say something else as well.
        _ if ["version", "help"].contains(&flag) => return Ok(()),
        None => return Ok(()),
        Some(Kind::Bool) => (is_bool(value), "true or false"),
        Some(Kind::Int) => (is_integer(value.strip_prefix(['+', '-']).unwrap_or(value)), "a whole number"),
        Some(Kind::Uint) => (is_integer(value), "a whole number that is not negative"),
        Some(Kind::Float) => (value.parse::<f64>().is_ok(), "a number"),
        Some(Kind::Duration) => (is_duration(value), "a duration such as 90s or 1h30m"),
    };
    if is_good { Ok(()) } else { Err(format!("is not {what}")) }
}

fn gate(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && is_bool(value.trim()) => Ok(()),
        _ => Err(format!("has the gate `{}`, which is not written NAME=true or NAME=false", text.trim())),
    }
}

/// As Go's `strconv.ParseBool`.
fn is_bool(value: &str) -> bool {
    ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"].contains(&value)
}

/// As Go's `strconv.ParseUint` with base 0.
fn is_integer(value: &str) -> bool {
    let digits = value.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, &*digits),
    };
    !digits.starts_with(['+', '-']) && u64::from_str_radix(digits, radix).is_ok()
}

/// As Go's `time.ParseDuration`, which takes none and negative ones, too.
fn is_duration(value: &str) -> bool {
    let bare = value.strip_prefix(['+', '-']).unwrap_or(value);
    let is_nothing = bare.chars().all(|c| c == '0' || c.is_ascii_alphabetic() || c == 'µ' || c == '.');
    // A duration of nothing is one in another unit, too.
    bare == "0"
        || duration(bare).is_ok()
        || is_nothing && bare.contains('0') && duration(&bare.replace('0', "1")).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_as_go_reads_them() {
        use Program::{ApiServer, Etcd, Scheduler};
        for (program, flag, good, bad) in [
            (ApiServer, "allow-privileged", &["true", "F", "1"][..], &["yes", "on", "", "tRUE"][..]),
            (ApiServer, "audit-log-maxage", &["30", "-1", "0x1F", "1_0"], &["30d", "3.5", "", "ten", "--1"]),
            (ApiServer, "event-ttl", &["2h", "1h30m", "0", "0s", "-1s", "1.5h"], &["2", "2 h", "2d", ""]),
            (ApiServer, "goaway-chance", &["0.01", "0"], &["often"]),
            (ApiServer, "feature-gates", &["A=true,B=false", "A=true,", ""], &["A", "A=on", "=true", "A:true"]),
            (ApiServer, "authorization-mode", &["Node,RBAC", "RBAC"], &["Node,RBCA", "Node, RBAC", ""]),
            (ApiServer, "tls-min-version", &["VersionTLS13"], &["1.2"]),
            (ApiServer, "service-account-issuer", &["https://x", ""], &[]),
            (ApiServer, "etcd-servers", &["$(X)"], &[]),
            (Scheduler, "kube-api-qps", &["50", "50.5"], &["50/s"]),
            (Etcd, "quota-backend-bytes", &["8589934592"], &["8GiB"]),
            (Etcd, "auto-compaction-mode", &["periodic"], &["hourly"]),
            (Etcd, "snapshot-count", &["10000"], &["-1"]),
            (Etcd, "grpc-keepalive-timeout", &["20s"], &["20"]),
        ] {
            for value in good {
                assert_eq!(fits(program, flag, value), Ok(()), "--{flag}={value}");
            }
            for value in bad {
                assert!(fits(program, flag, value).is_err(), "--{flag}={value}");
            }
        }
    }
}
