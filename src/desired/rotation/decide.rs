//! What is done next, as a table: the first row that fits decides. Rows 3 to 10 are looked at for one phase after the other, and
//! for the last phase only where the rows 13 and 14 let it come.
//!
//! | | seen | done |
//! |---|---|---|
//! | 1 | one key everywhere, and to go on, to abort or to finish is asked for | nothing |
//! | 2 | one key everywhere | a new one is made, and written into guard's Secret |
//! | 3 | guard's Secret is not as far as the phase | it is written; in the last phase after the asset directory |
//! | 4 | the asset directory on this controller is not | it is written |
//! | 5 | the guard of a controller does not keep what guard's Secret has | it is waited for: a bridge must have what the others have |
//! | 6 | a component's Secret is not as far as the phase | it is written |
//! | 7 | a rollout is under way, or a bridge stands | it is waited for |
//! | 8 | a server does not say what it has | it is waited for: no other is rolled meanwhile |
//! | 9 | a server is not as far, and reads what is new by itself | it is waited for |
//! | 10 | a server is not as far | its component is rolled, under the bridge; a ConfigMap by which servers tell others is written |
//! | 11 | the new one is used everywhere, and nobody has looked at what is still of the old | it is looked at |
//! | 12 | something is, and hoist can make it anew | it is made anew by the new one |
//! | 13 | a place still has the old key, and nobody asked for the end | `--finish` is waited for |
//! | 14 | a place still has the old key, and somebody may still need it | the command ends, and says who |
//! | 15 | the last phase is over, too | nothing |

/// How far a place is. Every place is as far as a phase before any goes on to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It lacks one of the keys.
    Lacks,
    /// It has both, and uses another.
    Knows,
    /// It has both, and uses the one that is to stay.
    Uses,
    /// It has that alone.
    Alone,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To begin one, or to go on with the one that is under way. Whoever has gone on with one asks to continue from then on.
    Rotate,
    /// To go on, and not to begin.
    Continue,
    /// To lead back to the old key.
    Abort,
    /// To go on, and to drop the old key in the end.
    Finish,
}

/// A server that reads the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its component, and where it runs.
    pub component: &'static str,
    /// The same.
    pub node: String,
    /// How far it says it is; or why it does not say.
    pub level: Result<Level, String>,
    /// It reads what is new by itself.
    pub reloads: bool,
}

/// What is seen of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// What is asked for.
    pub asked: Asked,
    /// There is another key somewhere than the one that is to stay, or a place that may not have that one yet.
    pub is_under_way: bool,
    /// Guard's Secret.
    pub guards_secret: Level,
    /// The asset directory on this controller, if there is one.
    pub directory: Option<Level>,
    /// Whose guards do not keep what guard's Secret has, with why.
    pub guards_behind: Vec<String>,
    /// The Secrets of components.
    pub secrets: Vec<(&'static str, Level)>,
    /// What is under way of rollouts, and which bridges stand.
    pub unsettled: Vec<String>,
    /// The servers, in the order in which they come to it.
    pub servers: Vec<Server>,
    /// What is still of another key than the one that is to stay; `None` before it was looked at.
    pub left: Option<Left>,
}

/// What is still of an old key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// How many objects are that hoist makes anew.
    pub others: u64,
    /// Who may need it until then, in words.
    pub held: Vec<String>,
}

/// What is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// None is under way, or none any more.
    Nothing,
    /// A new key is made.
    Begin,
    /// Guard's Secret is brought so far.
    WriteGuards(Level),
    /// The asset directory is.
    WriteDirectory(Level),
    /// The Secret of a component is.
    WriteSecret(&'static str, Level),
    /// A component is brought so far: its pods are made anew, one after the other; what is an object of the API is written.
    Roll(&'static str),
    /// This is waited for.
    Wait(String),
    /// What is still of the old key is counted.
    Count,
    /// It is made anew.
    Rewrite,
    /// The old one is dropped when somebody says so; these may need it until then.
    AwaitFinish(Vec<String>),
    /// The old one is not dropped: these may need it.
    Held(Vec<String>),
}

/// What is done next.
pub fn decide(seen: &Seen) -> Step {
    if !seen.is_under_way {
        return if seen.asked == Asked::Rotate { Step::Begin } else { Step::Nothing };
    }
    for phase in [Level::Knows, Level::Uses] {
        if let Some(step) = towards(phase, seen) {
            return step;
        }
    }
    let held = match &seen.left {
        None => return Step::Count,
        Some(left) if left.others > 0 => return Step::Rewrite,
        Some(left) => &left.held,
    };
    let mut written = seen.secrets.iter().map(|(_, level)| *level).chain(seen.directory).chain([seen.guards_secret]);
    if written.any(|level| level < Level::Alone) {
        match seen.asked {
            Asked::Rotate | Asked::Continue => return Step::AwaitFinish(held.clone()),
            Asked::Finish | Asked::Abort if !held.is_empty() => return Step::Held(held.clone()),
            Asked::Finish | Asked::Abort => {}
        }
    }
    towards(Level::Alone, seen).unwrap_or(Step::Nothing)
}

/// What is missing until every place is as far as `phase`.
pub fn towards(phase: Level, seen: &Seen) -> Option<Step> {
    let wait = |texts: &[String]| Some(Step::Wait(texts.join("; ")));
    let guards = (seen.guards_secret < phase).then_some(Step::WriteGuards(phase));
    let directory = seen.directory.is_some_and(|level| level < phase).then_some(Step::WriteDirectory(phase));
    // A key that only the asset directory has, nobody knows any more.
    let first = if phase == Level::Alone { directory.or(guards) } else { guards.or(directory) };
    if first.is_some() {
        return first;
    }
    if !seen.guards_behind.is_empty() {
        return wait(&seen.guards_behind);
    }
    if let Some((name, _)) = seen.secrets.iter().find(|(_, level)| *level < phase) {
        return Some(Step::WriteSecret(name, phase));
    }
    if !seen.unsettled.is_empty() {
        return wait(&seen.unsettled);
    }
    let silent = seen.servers.iter().filter_map(|server| {
        let why = server.level.as_ref().err()?;
        Some(format!("{} of {} does not say what it has read: {why}", server.component, server.node))
    });
    let silent: Vec<_> = silent.collect();
    if !silent.is_empty() {
        return wait(&silent);
    }
    let behind = |server: &&Server| server.level.as_ref().is_ok_and(|level| *level < phase);
    let behind: Vec<_> = seen.servers.iter().filter(behind).collect();
    match behind.first() {
        Some(first) if first.reloads => {
            let text =
                |server: &&Server| format!("{} of {} has yet to read what is new", server.component, server.node);
            wait(
                &behind
                    .iter()
                    .copied()
                    .filter(|server| server.component == first.component)
                    .map(|server| text(&server))
                    .collect::<Vec<_>>(),
            )
        }
        first => first.map(|server| Step::Roll(server.component)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All is as far as `level`.
    fn at(level: Level, asked: Asked) -> Seen {
        let server =
            |node: &str| Server { component: "kube-apiserver", node: node.into(), level: Ok(level), reloads: false };
        Seen {
            asked,
            is_under_way: true,
            guards_secret: level,
            directory: Some(level),
            guards_behind: Vec::new(),
            secrets: vec![("kube-apiserver", level)],
            unsettled: Vec::new(),
            servers: vec![server("c1"), server("c2")],
            left: None,
        }
    }

    #[test]
    fn the_table() {
        use Asked::{Abort, Continue, Finish, Rotate};
        use Level::{Alone, Knows, Lacks, Uses};
        let none = |asked| Seen { is_under_way: false, ..at(Alone, asked) };
        let counted = |level, others, asked| Seen { left: Some(Left { others, held: Vec::new() }), ..at(level, asked) };
        let held = |level, asked| Seen { left: Some(Left { others: 0, held: vec!["p".into()] }), ..at(level, asked) };
        let await_finish = Step::AwaitFinish(Vec::new());
        let wait = |text: &str| Step::Wait(text.into());
        let all_use = |edit: &dyn Fn(&mut Seen)| {
            let mut seen = at(Uses, Rotate);
            edit(&mut seen);
            seen
        };
        let told = |guards_secret, directory| Seen { guards_secret, directory, ..at(Knows, Rotate) };
        for (row, seen, step) in [
            (1, none(Continue), Step::Nothing),
            (1, none(Abort), Step::Nothing),
            (1, none(Finish), Step::Nothing),
            (2, none(Rotate), Step::Begin),
            (3, at(Lacks, Rotate), Step::WriteGuards(Knows)),
            (3, at(Knows, Continue), Step::WriteGuards(Uses)),
            (3, Seen { directory: None, ..counted(Uses, 0, Finish) }, Step::WriteGuards(Alone)),
            (4, told(Uses, Some(Knows)), Step::WriteDirectory(Uses)),
            (4, counted(Uses, 0, Finish), Step::WriteDirectory(Alone)),
            (4, counted(Uses, 0, Abort), Step::WriteDirectory(Alone)),
            (5, Seen { guards_behind: vec!["c2".into()], ..told(Uses, None) }, wait("c2")),
            (6, told(Uses, Some(Alone)), Step::WriteSecret("kube-apiserver", Uses)),
            (7, all_use(&|seen| seen.unsettled = vec!["c1".into()]), wait("c1")),
            (
                8,
                all_use(&|seen| {
                    seen.servers[0].level = Err("silent".into());
                    seen.servers[1].level = Ok(Knows);
                }),
                wait("kube-apiserver of c1 does not say what it has read: silent"),
            ),
            (
                9,
                all_use(&|seen| {
                    seen.servers[1].reloads = true;
                    seen.servers[1].level = Ok(Knows);
                }),
                wait("kube-apiserver of c2 has yet to read what is new"),
            ),
            (10, all_use(&|seen| seen.servers[1].level = Ok(Knows)), Step::Roll("kube-apiserver")),
            (11, at(Uses, Rotate), Step::Count),
            (12, counted(Uses, 2, Finish), Step::Rewrite),
            (13, counted(Uses, 0, Rotate), await_finish.clone()),
            (13, counted(Uses, 0, Continue), await_finish.clone()),
            (13, Seen { guards_secret: Alone, ..counted(Uses, 0, Rotate) }, await_finish),
            (13, held(Uses, Continue), Step::AwaitFinish(vec!["p".into()])),
            (14, held(Uses, Finish), Step::Held(vec!["p".into()])),
            (14, held(Uses, Abort), Step::Held(vec!["p".into()])),
            (14, Seen { directory: Some(Alone), ..held(Uses, Finish) }, Step::Held(vec!["p".into()])),
            (15, counted(Alone, 0, Finish), Step::Nothing),
            (15, counted(Alone, 0, Abort), Step::Nothing),
            (15, counted(Alone, 0, Continue), Step::Nothing),
            (15, held(Alone, Finish), Step::Nothing),
        ] {
            assert_eq!(decide(&seen), step, "row {row}: {seen:?}");
        }
    }

    #[test]
    fn nobody_drops_a_key_while_a_place_is_not_as_far() {
        for lagging in 0..4 {
            for asked in [Asked::Finish, Asked::Abort] {
                let mut seen = Seen { left: Some(Left::default()), ..at(Level::Uses, asked) };
                match lagging {
                    0 => seen.guards_behind = vec!["c3".into()],
                    1 => seen.servers[1].level = Ok(Level::Knows),
                    2 => seen.servers[1].level = Err("silent".into()),
                    _ => seen.unsettled = vec!["c1".into()],
                }
                let step = decide(&seen);
                assert!(matches!(step, Step::Wait(_) | Step::Roll(_)), "{lagging} {step:?}");
            }
        }
    }
}
