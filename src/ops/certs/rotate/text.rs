//! What a rotation says.

use crate::desired::rotation::etcd_ca::MEMBER;
use crate::desired::rotation::front_proxy::CONFIG_MAP;
use crate::desired::rotation::{Keys, Level, Rotation, Seen, Step, decide, towards};

/// What is done next, as a line.
pub(super) fn text(keys: Keys, step: &Step, rotation: &dyn Rotation) -> String {
    let (name, key, going) = (keys.name(), rotation.staying(), rotation.going().join(", "));
    let has = |level: &Level| match (level, keys) {
        (Level::Lacks | Level::Knows, Keys::EncryptionKey) => format!("{key} can be read by"),
        (Level::Lacks | Level::Knows, Keys::ServiceAccount) => format!("tokens of {key} are accepted"),
        (Level::Uses, Keys::EncryptionKey) => format!("{key} writes"),
        (Level::Uses, Keys::ServiceAccount) => format!("{key} signs"),
        (Level::Lacks | Level::Knows, Keys::FrontProxyCa | Keys::EtcdCa) => format!("{key} is trusted"),
        (Level::Uses, Keys::FrontProxyCa | Keys::EtcdCa) => format!("{key} issues"),
        (Level::Alone, _) => format!("{going} is dropped"),
    };
    match step {
        Step::Nothing => format!("{key} is the only {}", word(keys)),
        Step::Begin => match keys {
            Keys::EncryptionKey => "a new key is made, and added to guard's Secret, to be read by".to_owned(),
            Keys::ServiceAccount => "a new key is made, and added to guard's Secret, to be accepted".to_owned(),
            Keys::FrontProxyCa | Keys::EtcdCa => {
                "a new CA is made, and added to guard's Secret, to be trusted".to_owned()
            }
        },
        Step::WriteGuards(level) => format!("guard's Secret: {}", has(level)),
        Step::WriteDirectory(level) => format!("the asset directory: {}", has(level)),
        Step::WriteSecret(name, level) => format!("the Secret {name}: {}", has(level)),
        Step::Roll("kube-apiserver") => {
            "kube-apiserver is rolled, one controller after the other, under the bridge".to_owned()
        }
        Step::Roll(CONFIG_MAP) => {
            format!("the ConfigMap {CONFIG_MAP}: aggregated API servers are told to trust {key} alone")
        }
        Step::Roll(MEMBER) => {
            "etcd begins again, to trust what its file has: requests wait for some seconds".to_owned()
        }
        Step::Roll(name) => format!("{name} is rolled, one pod after the other"),
        Step::Wait(what) => format!("waiting for: {what}"),
        Step::Count => match keys {
            Keys::EncryptionKey => "etcd is read".to_owned(),
            Keys::ServiceAccount => format!("who may still have a token of another key than {key} is looked for"),
            Keys::FrontProxyCa | Keys::EtcdCa => "nobody else has certificates of it".to_owned(),
        },
        Step::Rewrite => format!("Secrets that {key} has not encrypted are written again"),
        Step::AwaitFinish(held) => {
            let done = match keys {
                Keys::EncryptionKey => format!("every Secret in etcd is encrypted by {key}"),
                Keys::ServiceAccount => format!("{key} signs every token, and tokens of {going} are accepted"),
                Keys::FrontProxyCa => {
                    format!("API servers and aggregated ones trust {key} and {going}, and {key} issues")
                }
                Keys::EtcdCa => format!("etcd and the API server trust {key} and {going}, and {key} issues"),
            };
            let next = format!("`hoist certs rotate {name} --finish` drops {going}; until then `--abort` leads back");
            match &held[..] {
                [] => format!("{done}. {next}"),
                held => format!("{done}. Not yet: {}. Then {next}", held.join("; ")),
            }
        }
        Step::Held(held) => format!("{going} is not dropped: {}", held.join("; ")),
    }
}

/// What is changed, in a word.
fn word(keys: Keys) -> &'static str {
    match keys {
        Keys::EncryptionKey | Keys::ServiceAccount => "key",
        Keys::FrontProxyCa | Keys::EtcdCa => "CA",
    }
}

/// The phases, with where it stands.
pub(super) fn plan(keys: Keys, rotation: &dyn Rotation, seen: &Seen) -> Vec<String> {
    let what = word(keys);
    let (key, going) = match seen.is_under_way {
        true if rotation.going().is_empty() => (rotation.staying(), "what was there before".to_owned()),
        true => (rotation.staying(), rotation.going().join(", ")),
        false => (format!("a new {what}"), rotation.staying()),
    };
    let mut is_reached = seen.is_under_way;
    let mut state = |next: Option<Step>| match next {
        _ if !is_reached => "to come".to_owned(),
        None => "done".to_owned(),
        Some(step) => {
            is_reached = false;
            format!("next: {}", text(keys, &step, rotation))
        }
    };
    let count = seen.left.as_ref().is_none_or(|left| left.others > 0).then_some(Step::Count);
    let states = [state(towards(Level::Knows, seen)), state(towards(Level::Uses, seen)), state(count)];
    let under = match seen.is_under_way {
        true if rotation.going().is_empty() => {
            format!("{key} is the only {what}, and not everything has settled: {}", text(keys, &decide(seen), rotation))
        }
        true => format!("{going} is to go, {key} is to stay"),
        false => format!("{going} is the only {what}, and no rotation is under way"),
    };
    let phases = match keys {
        Keys::EncryptionKey => [
            format!(
                "{key} is added, to be read by: in guard's Secret, the copy of each guard, the Secret kube-apiserver; then the API servers are rolled under the bridge. It waits until each guard and each API server says that it has read the file"
            ),
            format!("{key} writes: in the same places, in the same order. It waits for the same"),
            "every Secret is written again. It waits until no value in etcd is of another key".to_owned(),
        ],
        Keys::ServiceAccount => [
            format!(
                "tokens of {key} are accepted: in guard's Secret, the copy of each guard, the Secrets kube-apiserver and kube-controller-manager; then the API servers are rolled under the bridge. It waits until each guard says that it keeps it, and each API server that it accepts it"
            ),
            format!(
                "{key} signs: in the same places, in the same order; then the controller manager is rolled, too. It waits until a token that each API server makes, and one that the controller manager makes, is signed by it"
            ),
            format!(
                "who may still have a token of {going} is named: Secrets, pods, clients that do not read their token again"
            ),
        ],
        Keys::FrontProxyCa => [
            format!(
                "{key} is trusted: in guard's Secret, the copy of each guard, the Secrets of the control plane. API servers read it there by themselves, and tell aggregated ones by the ConfigMap {CONFIG_MAP}. It waits until each guard says that it keeps it, the ConfigMap has it, and each API server and aggregated one names it in its handshakes"
            ),
            format!(
                "{key} issues what API servers show: in the same places, in the same order. It waits until each API server names it first"
            ),
            "nobody else has certificates of it: nothing is waited for".to_owned(),
        ],
        Keys::EtcdCa => [
            format!(
                "{key} is trusted: in guard's Secret, guard's copy, the Secret kube-apiserver. The API server is rolled under the bridge, and then etcd begins again, in which requests wait. It waits until guard says that it keeps it, the API server has begun with it, and etcd names it in its handshakes"
            ),
            format!(
                "{key} issues what etcd and its clients show: in the same places, in the same order. Nothing begins again. It waits until etcd shows a certificate of it"
            ),
            "nobody else has certificates of it: nothing is waited for".to_owned(),
        ],
    };
    let mut lines = vec![format!("{}: {under}", keys.name())];
    for (number, (phase, state)) in phases.iter().zip(states).enumerate() {
        lines.push(format!("{}. {phase}. {state}", number + 1));
    }
    let when = if keys == Keys::ServiceAccount { ", if nobody may have a token of it" } else { "" };
    lines.push(format!("4. {going} is dropped, on --finish{when}: in the same places, in the same order. to come"));
    lines
}
