//! The uid of a static pod: a line of its manifest that hoist puts in, and that is no part of what is read.

use crate::base::files;
use crate::base::yaml;

/// The line that the uid stands behind, how its own line begins and ends, and what in it stands before a program that it is of, or
/// before the uid that would follow from the text of one that was kept.
const METADATA: &str = "metadata:\n";
const LINE: (&str, &str) = ("  uid: ", " # hoist's: docs/upgrade.md\n");
const PROGRAM: &str = " # of the program ";
const KEPT: &str = " # kept, in place of ";

/// What follows from `machine`, the file's `name`, its `text` and a program of the disk, with the program behind it. Images have no part
/// in it: under one uid, a kubelet changes a container's image and nothing else, in the pod that is there.
pub fn derived(machine: &str, name: &str, text: &str, program: Option<&str>) -> String {
    let is_image = |line: &&str| line.trim_start().trim_start_matches("- ").starts_with("image:");
    let rest: String = text.split_inclusive('\n').filter(|line| !is_image(line)).collect();
    let parts = [machine, name, &*rest].into_iter().chain(program);
    let uid = in_quotes(&uid(&parts.collect::<Vec<_>>()));
    program.map_or(uid.clone(), |program| format!("{uid}{PROGRAM}{program}"))
}

/// The manifest `name` of a pod that is to outlive its kubelet, for machines that somebody else copies it to: its uid follows from
/// the file and the text, and stays there until hoist changes the manifest.
pub fn to_copy(name: &str, text: &str) -> String {
    with(text, &derived("", name, text, None))
}

/// What an older hoist has derived, from images, too.
pub fn derived_once(machine: &str, name: &str, text: &str) -> String {
    in_quotes(&uid(&[machine, name, text]))
}

/// The uid `kept`, where `derived` would follow from the text.
pub fn keeping(kept: &str, derived: &str) -> String {
    format!("{}{KEPT}{derived}", in_quotes(kept))
}

/// Whether the uid of a manifest was kept, and the text is still the one that it was kept for: the one `derived` follows from.
pub fn is_kept(text: &str, derived: &str) -> bool {
    line(text).and_then(|line| line.split_once(KEPT)).is_some_and(|(_, of)| of == derived)
}

/// The program that the uid of a manifest follows from.
pub fn program(text: &str) -> Option<&str> {
    line(text)?.split_once(PROGRAM).map(|(_, program)| program)
}

/// A manifest with this uid, in quotes; as it is where it has one, or is not written as hoist's are.
pub fn with(text: &str, uid: &str) -> String {
    match text.find(&format!("\n{METADATA}")) {
        Some(at) if of(text).is_none() => {
            let (head, rest) = text.split_at(at + 1 + METADATA.len());
            format!("{head}{}{uid}{}{rest}", LINE.0, LINE.1)
        }
        _ => text.to_owned(),
    }
}

/// A manifest without the uid that hoist has given it.
pub fn without(text: &str) -> String {
    text.split_inclusive('\n').filter(|line| !is_line(line)).collect()
}

/// The uid that the pod of a manifest has, whoever gave it.
pub fn of(text: &str) -> Option<String> {
    let documents = yaml::documents("", text).ok()?;
    documents.iter().find_map(|document| Some(document.value.pointer("/metadata/uid")?.as_str()?.to_owned()))
}

fn line(text: &str) -> Option<&str> {
    text.split_inclusive('\n').find(|line| is_line(line))?.strip_suffix(LINE.1)
}

fn is_line(line: &str) -> bool {
    line.starts_with(LINE.0) && line.ends_with(LINE.1)
}

fn in_quotes(uid: &str) -> String {
    format!("\"{uid}\"")
}

/// A uid that is the same for the same parts, in the form of a UUID that is made of a hash (version 8 of RFC 9562).
fn uid(parts: &[&str]) -> String {
    let hex = files::sha256_of_all(parts.iter().copied());
    // The digits in front of the third and the fourth part say which form of a UUID it is.
    format!("{}-{}-8{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}
