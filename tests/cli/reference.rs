//! The pages of docs/reference that say what the program knows: `commands.md` is written from the command line itself, and
//! `cluster-yaml.md` has every field. `UPDATE_GOLDEN=1 cargo test --test cli reference` writes `commands.md` anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, CommandFactory};
use hoist::cli::Cli;

const HEAD: &str = "\
# Commands

<!-- Written from the command line's own definition by: UPDATE_GOLDEN=1 cargo test --test cli reference -->

`hoist COMMAND --help` says the same as this page. [Exit codes](exit-codes.md) has the exit code of every command.
`source <(hoist completion bash)` makes the shell complete commands and options; `hoist man --output-dir DIR` writes a man
page for each command.

A DURATION is written as `90s`, `20m` or `1h30m`.

";

/// The pages that say more of a command.
const PAGES: [(&str, &str); 23] = [
    ("hoist render", "[Rendering again](rendering-again.md), [First boot](../first-boot.md)"),
    (
        "hoist start",
        "[How it works](../how-it-works.md), [When etcd's data is gone](../recover.md#etcds-data-is-not-there)",
    ),
    ("hoist apply", "[Add-ons](../addons.md)"),
    ("hoist backup", "[Backup and recover](../recover.md)"),
    ("hoist recover", "[Backup and recover](../recover.md)"),
    ("hoist unpivot", "[The way back](../unpivot.md)"),
    ("hoist reset", "[The way back](../unpivot.md#hoist-reset)"),
    ("hoist preflight", "[Preflight](preflight.md)"),
    ("hoist status", "[Status](status.md)"),
    ("hoist validate", "[hoist validate](../validate.md)"),
    ("hoist certs list", "[Certificates](../certificates.md#how-to-see-it)"),
    ("hoist certs renew", "[Certificates](../certificates.md#what-is-renewed-and-when)"),
    ("hoist certs rotate", "[Rotation of keys](../rotation.md)"),
    ("hoist token create", "[Workers](../workers.md)"),
    ("hoist token list", "[Workers](../workers.md#tokens)"),
    ("hoist token delete", "[Workers](../workers.md#tokens)"),
    ("hoist join-assets", "[Workers](../workers.md)"),
    ("hoist config default", "[cluster.yaml](cluster-yaml.md)"),
    ("hoist images list", "[Images](../network.md#images-and-machines-without-a-registry)"),
    ("hoist images save", "[hoist as an image](../packages.md#hoist-as-an-image)"),
    ("hoist version", "[Output for programs](../events.md#other-output-for-programs)"),
    ("hoist endpoint", "[The endpoint](../endpoint.md)"),
    ("hoist guard", "[guard](../guard.md)"),
];

fn page(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "docs/reference", name].iter().collect()
}

#[test]
fn commands_are_what_the_command_line_knows() {
    let mut hoist = Cli::command().disable_help_subcommand(true);
    hoist.build();
    let mut named = Vec::new();
    names(&hoist, "hoist", &mut named);
    let mut text = HEAD.to_owned();
    text.push_str("| command | |\n|---|---|\n");
    for (name, about) in named {
        text.push_str(&format!("| [`{name}`](#{}) | {} |\n", name.replace(' ', "-"), cell(&about)));
    }
    let global: Vec<&Arg> = shown(&hoist).filter(|arg| arg.is_global_set()).collect();
    let global_names: BTreeSet<_> = global.iter().map(|arg| arg.get_id().to_string()).collect();
    text.push_str("\n## Options of all commands\n\n");
    text.push_str(&options(global));
    sections(&hoist, &["hoist".to_owned()], &global_names, &mut text);

    let path = page("commands.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let line = text.lines().zip(there.lines()).position(|(made, there)| made != there);
    let line = line.unwrap_or(text.lines().count().min(there.lines().count())) + 1;
    assert!(
        text == there,
        "{}:{line} is not what the command line says. `UPDATE_GOLDEN=1 cargo test --test cli reference` writes it anew",
        path.display()
    );
    for (name, _) in PAGES {
        assert!(text.contains(&format!("\n## {name}\n")), "there is no command {name}");
    }
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

/// The names of all commands that can be typed, with what they do.
fn names(command: &Command, name: &str, named: &mut Vec<(String, String)>) {
    for below in visible(command) {
        let name = format!("{name} {}", below.get_name());
        if !below.is_subcommand_required_set() {
            named.push((name.clone(), below.get_about().map(ToString::to_string).unwrap_or_default()));
        }
        names(below, &name, named);
    }
}

/// A section for each command that can be typed.
fn sections(command: &Command, called: &[String], global: &BTreeSet<String>, text: &mut String) {
    for below in visible(command) {
        let own: Vec<_> = std::iter::once(below.get_name()).chain(below.get_visible_aliases()).collect();
        let called: Vec<_> =
            called.iter().flat_map(|before| own.iter().map(move |name| format!("{before} {name}"))).collect();
        if !below.is_subcommand_required_set() {
            text.push_str(&section(below, &called, global));
        }
        sections(below, &called, global, text);
    }
}

/// Of a command, by all that it is called.
fn section(command: &Command, called: &[String], global: &BTreeSet<String>) -> String {
    let name = &called[0];
    let about = command.get_long_about().or(command.get_about()).map(ToString::to_string).unwrap_or_default();
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").lines().map(|line| format!("    {}\n", line.trim()));
    let mut text = format!("\n## {name}\n\n{}.\n\n{}", escaped(about.trim_end_matches('.')), usage.collect::<String>());
    let others: Vec<_> = called[1..].iter().map(|other| format!("`{other}`")).collect();
    if !others.is_empty() {
        text.push_str(&format!("\nIt is also called {}.\n", others.join(", ")));
    }
    let own: Vec<_> = shown(command).filter(|arg| !global.contains(arg.get_id().as_str())).collect();
    if !own.is_empty() {
        text.push_str(&format!("\n{}", options(own)));
    }
    if let Some((_, pages)) = PAGES.iter().find(|(of, _)| of == name) {
        text.push_str(&format!("\nMore: {pages}.\n"));
    }
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str()))
}

fn options(args: Vec<&Arg>) -> String {
    let rows = args.into_iter().map(|arg| format!("| {} | {} | {} |\n", name_of(arg), default_of(arg), meaning(arg)));
    format!("| option | default | meaning |\n|---|---|---|\n{}", rows.collect::<String>())
}

/// As it is typed.
fn name_of(arg: &Arg) -> String {
    let takes = arg.get_num_args().is_none_or(|range| range.takes_values()) && arg.get_action().takes_values();
    let is_optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let choices = possible(arg);
    let value = match (takes, choices.is_empty()) {
        (false, _) => String::new(),
        (true, false) => choices.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>().join("\\|"),
        (true, true) => arg.get_value_names().unwrap_or_default().join(" "),
    };
    if arg.is_positional() {
        let more = if matches!(arg.get_action(), ArgAction::Append) { "…" } else { "" };
        return format!("`{value}{more}`");
    }
    let long = arg.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
    let more: String =
        arg.get_visible_aliases().unwrap_or_default().iter().map(|alias| format!(", `--{alias}`")).collect();
    let value = match (takes, is_optional) {
        (false, _) => String::new(),
        (true, false) => format!(" {value}"),
        (true, true) => format!("[={value}]"),
    };
    format!("{short}`{long}{value}`{more}")
}

/// The values that an option can have, with what they mean, where they are told.
fn possible(arg: &Arg) -> Vec<(String, String)> {
    let is_bool = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::SetFalse);
    let values = if is_bool { Vec::new() } else { arg.get_possible_values() };
    let told = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
    values.iter().filter(|value| !value.is_hide_set()).map(|value| (value.get_name().to_owned(), told(value))).collect()
}

fn default_of(arg: &Arg) -> String {
    if let Some((_, after)) = help(arg).split_once(" [default: ") {
        return cell(after.trim_end_matches(']'));
    }
    let takes = arg.get_action().takes_values();
    let values = arg.get_default_values().iter().filter(|value| takes && !value.is_empty());
    let values: Vec<_> = values.map(|value| format!("`{}`", value.to_string_lossy())).collect();
    match values.is_empty() && arg.is_required_set() {
        true => "required".to_owned(),
        false => values.join(", "),
    }
}

fn help(arg: &Arg) -> String {
    arg.get_long_help().or(arg.get_help()).map(ToString::to_string).unwrap_or_default()
}

fn meaning(arg: &Arg) -> String {
    let text = help(arg);
    let mut text = text.split(" [default: ").next().unwrap_or_default().to_owned();
    if let Some(variable) = arg.get_env() {
        text.push_str(&format!("; or the environment variable `{}`", variable.to_string_lossy()));
    }
    if arg.get_value_delimiter().is_some() {
        text.push_str("; several with commas between them, or the option several times");
    }
    let told: Vec<_> = possible(arg).into_iter().filter(|(_, told)| !told.is_empty()).collect();
    let told: String = told.iter().map(|(name, told)| format!("<br>`{name}`: {}", cell(told))).collect();
    cell(&text) + &told
}

/// Text of `--help` as Markdown has it.
fn escaped(text: &str) -> String {
    let mut is_code = false;
    let mut escaped = String::new();
    for c in text.chars() {
        is_code ^= c == '`';
        match c {
            '<' | '*' | '[' | '_' if !is_code => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// The same in one cell of a table.
fn cell(text: &str) -> String {
    escaped(&text.split_whitespace().collect::<Vec<_>>().join(" ")).replace('|', "\\|")
}

#[test]
fn every_field_of_cluster_yaml_has_its_place() {
    let text = fs::read_to_string(page("cluster-yaml.md")).unwrap();
    let code: BTreeSet<&str> =
        text.split('`').skip(1).step_by(2).flat_map(|code| code.split(['.', '[', ']', ':', ' ', '{', '}'])).collect();
    // What is commented out once is a field with its default; what is twice is an example of a value.
    let lines = include_str!("../../assets/cluster.yaml")
        .lines()
        .map(|line| line.strip_prefix('#').unwrap_or(line).trim_start());
    let keys =
        lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.trim_start_matches("- ").split_once(':'));
    let keys: BTreeSet<&str> = keys.map(|(key, _)| key).filter(|key| !key.contains(' ')).collect();
    assert!(keys.len() > 40, "{keys:?}");
    let missing: Vec<_> = keys.difference(&code).collect();
    assert!(missing.is_empty(), "docs/reference/cluster-yaml.md does not have {missing:?}");
}
