//! Whether a program accepts the value of a flag, as far as that is cheap to decide: by the kind of the value as Go
//! reads it, by the words that some flags accept, and by the form of lists of feature gates.

use super::{Kind, Program, kind};
use crate::desired::config::duration;

const SERVERS: &[Program] = &[Program::ApiServer, Program::ControllerManager, Program::Scheduler, Program::Kubelet];

/// Flags that take one of a few words, or several with commas between them; the empty word stands for no value.
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
    (SERVERS, "tls-min-version", false, &["VersionTLS10", "VersionTLS11", "VersionTLS12", "VersionTLS13", ""]),
    (SERVERS, "logging-format", false, &["text", "json"]),
    (&[Program::Etcd], "auto-compaction-mode", false, &["periodic", "revision"]),
    (
        &[Program::Etcd],
        "log-level",
        false,
        &["debug", "info", "warn", "warning", "error", "dpanic", "panic", "fatal", ""],
    ),
    (&[Program::Etcd], "logger", false, &["zap"]),
];

/// Programs and flags of theirs, what each name in such a flag's value is, and the names that there are.
type Names = (&'static [Program], &'static [&'static str], &'static str, &'static [&'static str]);

/// Lists of names that a program knows, each with what one of them is: it exits on any other.
const NAMES: [Names; 2] = [
    (
        &[Program::ApiServer],
        &["enable-admission-plugins", "disable-admission-plugins", "admission-control"],
        "admission plugin of Kubernetes",
        ADMISSION_PLUGINS,
    ),
    (SERVERS, &["tls-cipher-suites"], "cipher suite of Go", CIPHER_SUITES),
];

/// Those of all supported versions (AllOrderedPlugins of pkg/kubeapiserver/options/plugins.go).
const ADMISSION_PLUGINS: &[&str] = &[
    "AlwaysAdmit",
    "AlwaysDeny",
    "AlwaysPullImages",
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "ClusterTrustBundleAttest",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "DenyServiceExternalIPs",
    "EventRateLimit",
    "ExtendedResourceToleration",
    "ImagePolicyWebhook",
    "JobValidation",
    "LimitPodHardAntiAffinityTopology",
    "LimitRanger",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "NamespaceAutoProvision",
    "NamespaceExists",
    "NamespaceLifecycle",
    "NodeDeclaredFeatureValidator",
    "NodeRestriction",
    "OwnerReferencesPermissionEnforcement",
    "PersistentVolumeClaimResize",
    "PodGroupProtection",
    "PodGroupWorkloadExists",
    "PodNodeSelector",
    "PodResizeValidator",
    "PodSecurity",
    "PodTolerationRestriction",
    "PodTopologyLabels",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
];

/// Those of crypto/tls, and two older names that component-base keeps (cli/flag/ciphersuites_flag.go).
const CIPHER_SUITES: &[&str] = &[
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_RSA_WITH_RC4_128_SHA",
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
        // etcd takes them in any case of letters.
        let is_it =
            |word: &str, known: &&str| *known == word || program == Program::Etcd && known.eq_ignore_ascii_case(word);
        if given.all(|word| words.iter().any(|known| is_it(word, known))) {
            return Ok(());
        }
        let named: Vec<_> = words.iter().filter(|word| !word.is_empty()).copied().collect();
        return Err(format!("is none of {}", named.join(", ")));
    }
    let names = NAMES.iter().find(|(programs, flags, ..)| programs.contains(&program) && flags.contains(&flag));
    if let Some((_, _, what, names)) = names {
        // No name at all is an empty list.
        let mut given = value.split(',').filter(|_| !value.is_empty());
        return given.find(|name| !names.contains(name)).map_or(Ok(()), |name| Err(unknown(name, what, names)));
    }
    match flag {
        "v" if program != Program::Etcd && value.parse::<u32>().is_err() => {
            return Err("is not a whole number that is not negative".to_owned());
        }
        "service-node-port-range" if !is_port_range(value) => {
            return Err("is not a range of ports such as 30000-32767".to_owned());
        }
        "goaway-chance" if !value.parse::<f64>().is_ok_and(|chance| (0.0..=0.02).contains(&chance)) => {
            return Err("is not a number from 0 to 0.02".to_owned());
        }
        _ => {}
    }
    let (is_good, what) = match kind(program, flag) {
        // Both say something else as well.
        _ if ["version", "help"].contains(&flag) => return Ok(()),
        None => return Ok(()),
        Some(Kind::Bool) => (boolean(value).is_some(), "true or false"),
        Some(Kind::Int) => (is_integer(value.strip_prefix(['+', '-']).unwrap_or(value)), "a whole number"),
        Some(Kind::Uint) => (is_integer(value), "a whole number that is not negative"),
        Some(Kind::Float) => (value.parse::<f64>().is_ok(), "a number"),
        Some(Kind::Duration) => (is_duration(value), "a duration such as 90s or 1h30m"),
    };
    if is_good { Ok(()) } else { Err(format!("is not {what}")) }
}

fn gate(text: &str) -> Result<(), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && boolean(value.trim()).is_some() => Ok(()),
        _ => Err(format!("has the gate `{}`, which is not written NAME=true or NAME=false", text.trim())),
    }
}

/// What Go's `strconv.ParseBool` makes of a value; `None` where it is none.
pub fn boolean(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// That `name`, one of a list, is none of `names`; with the likely one.
fn unknown(name: &str, what: &str, names: &[&str]) -> String {
    let likeness = |known: &&&str| strsim::jaro_winkler(&name.trim().to_lowercase(), &known.to_lowercase());
    let closest = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b))).filter(|known| likeness(known) > 0.9);
    let likely = closest.map(|known| format!(" (did you mean {known}?)")).unwrap_or_default();
    format!("has `{name}`, which is no {what}{likely}")
}

/// As `PortRange.Set` of k8s.io/apimachinery: a port, `LOW-HIGH` or `LOW+COUNT`.
fn is_port_range(value: &str) -> bool {
    let value = value.trim();
    let ports = match (value.split_once('-'), value.split_once('+')) {
        (Some((low, high)), None) => low.parse().ok().zip(high.parse().ok()),
        (None, Some((low, count))) => {
            let both = low.parse::<u32>().ok().zip(count.parse::<u32>().ok());
            both.and_then(|(low, count)| Some((low, low.checked_add(count)?)))
        }
        _ => value.parse().ok().map(|port| (port, port)),
    };
    value.is_empty() || ports.is_some_and(|(low, high): (u32, u32)| low <= high && high <= 65535)
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
            (ApiServer, "goaway-chance", &["0.01", "0"], &["often", "0.5"]),
            (ApiServer, "feature-gates", &["A=true,B=false", "A=true,", ""], &["A", "A=on", "=true", "A:true"]),
            (ApiServer, "authorization-mode", &["Node,RBAC", "RBAC"], &["Node,RBCA", "Node, RBAC", ""]),
            (ApiServer, "tls-min-version", &["VersionTLS13", ""], &["1.2"]),
            (
                ApiServer,
                "enable-admission-plugins",
                &["NodeRestriction,PodNodeSelector", ""],
                &["NodeRestrction", "NodeRestriction, PodNodeSelector", "NodeRestriction,"],
            ),
            (
                ApiServer,
                "tls-cipher-suites",
                &["TLS_AES_128_GCM_SHA256,TLS_RSA_WITH_RC4_128_SHA"],
                &["ECDHE-RSA-AES128"],
            ),
            (
                ApiServer,
                "service-node-port-range",
                &["30000-32767", "30000+10", "80", ""],
                &["30000:32767", "2-1", "1-70000"],
            ),
            (Scheduler, "v", &["4", "10"], &["high", "4.5", "", "-1"]),
            (Etcd, "log-level", &["INFO", "warning", ""], &["verbose"]),
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
