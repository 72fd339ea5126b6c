//! On which node the kubelet, or hoist, is exchanged next, where all are: a pure function of the Nodes and of the pods that do it.
//!
//! | | is so | then |
//! |---|---|---|
//! | 1 | a pod has done its work, or was left by an earlier run that failed | it is taken away |
//! | 2 | a node of this run has failed | nothing is begun any more, and what is under way is waited for |
//! | 3 | fewer than the most are under way, and a ready node has the old one | it is begun: controllers first, one at a time |
//! | 4 | something is under way | it is waited for |
//! | 5 | a node is left that is not ready | the run ends, and names it |

use std::collections::BTreeSet;

/// What the pod of a node does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// It is at work, or waits for this.
    Runs(String),
    /// It has come to its end.
    Done,
    /// It has failed, for this reason.
    Failed(String),
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// It is a controller.
    pub is_controller: bool,
    /// It has what is wanted: its kubelet the version, or it the hoist.
    pub is_new: bool,
    /// It is ready.
    pub ready: bool,
    /// What its pod does, where it has one.
    pub task: Option<Task>,
}

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Make the pod of this node.
    Begin(String),
    /// Take the pod of this node away.
    Clean(String),
    /// Wait, for this.
    Wait(String),
    /// End: these nodes stay as they are, each for its reason.
    Stop(Vec<(String, String)>),
    /// Every node has what is wanted.
    Done,
}

use Decision::{Begin, Clean, Done, Stop, Wait};

/// Decides. `begun` are the nodes that this run has begun, `most` how many may be under way.
pub fn decide(nodes: &[Node], begun: &BTreeSet<String>, most: usize) -> Decision {
    let is_old = |node: &&Node| match &node.task {
        Some(Task::Done) => true,
        Some(Task::Failed(_)) => !begun.contains(&node.name),
        _ => false,
    };
    if let Some(node) = nodes.iter().find(is_old) {
        return Clean(node.name.clone());
    }
    let under_way: Vec<_> = nodes.iter().filter(|node| matches!(node.task, Some(Task::Runs(_)))).collect();
    let failed = nodes.iter().filter_map(|node| match &node.task {
        Some(Task::Failed(why)) => Some((node.name.clone(), why.clone())),
        _ => None,
    });
    let failed: Vec<_> = failed.collect();
    if failed.is_empty()
        && let Some(next) = next(nodes, &under_way, most)
    {
        return Begin(next.name.clone());
    }
    if let Some(node) = under_way.first()
        && let Some(Task::Runs(what)) = &node.task
    {
        return Wait(format!("{}: {what}", node.name));
    }
    if !failed.is_empty() {
        return Stop(failed);
    }
    let left = nodes.iter().filter(|node| !node.is_new).map(|node| (node.name.clone(), "it is not ready".to_owned()));
    let left: Vec<_> = left.collect();
    if left.is_empty() { Done } else { Stop(left) }
}

fn next<'a>(nodes: &'a [Node], under_way: &[&Node], most: usize) -> Option<&'a Node> {
    let mut left: Vec<_> = nodes.iter().filter(|node| !node.is_new && node.ready && node.task.is_none()).collect();
    left.sort_by_key(|node| (!node.is_controller, &node.name));
    let next = left.into_iter().next()?;
    // Not two controllers at once, and nothing beside one.
    let is_alone = next.is_controller || under_way.iter().any(|node| node.is_controller);
    (under_way.len() < if is_alone { 1 } else { most }).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> Node {
        Node { name: name.into(), is_controller: name.starts_with('c'), is_new: false, ready: true, task: None }
    }

    fn runs() -> Option<Task> {
        Some(Task::Runs("works".into()))
    }

    #[test]
    fn controllers_come_first_one_at_a_time_and_then_so_many_workers() {
        let mut nodes = vec![node("w1"), node("w2"), node("w3"), node("c2"), node("c1")];
        let mut begun = BTreeSet::new();
        let mut order = Vec::new();
        for _ in 0..40 {
            match decide(&nodes, &begun, 2) {
                Done => break,
                Begin(name) => {
                    nodes.iter_mut().filter(|node| node.name == name).for_each(|node| node.task = runs());
                    begun.insert(name.clone());
                    order.push(name);
                }
                Wait(what) => {
                    let under_way = nodes.iter().filter(|node| node.task == runs()).count();
                    order.push(format!("{under_way} under way"));
                    let name = what.split(':').next().unwrap().to_owned();
                    for node in nodes.iter_mut().filter(|node| node.name == name) {
                        (node.task, node.is_new) = (Some(Task::Done), true);
                    }
                }
                Clean(name) => nodes.iter_mut().filter(|node| node.name == name).for_each(|node| node.task = None),
                Stop(why) => panic!("{why:?}"),
            }
        }
        let expected =
            ["c1", "1 under way", "c2", "1 under way", "w1", "w2", "2 under way", "w3", "2 under way", "1 under way"];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_failure_ends_it_once_what_is_under_way_has_ended() {
        let mut nodes = vec![node("w1"), node("w2"), node("w3")];
        nodes[0].task = Some(Task::Failed("no".into()));
        nodes[1].task = runs();
        let begun = BTreeSet::from(["w1".to_owned(), "w2".to_owned()]);
        assert_eq!(decide(&nodes, &begun, 3), Wait("w2: works".into()));
        (nodes[1].task, nodes[1].is_new) = (None, true);
        assert_eq!(decide(&nodes, &begun, 3), Stop(vec![("w1".into(), "no".into())]));
        // The next run begins it again.
        assert_eq!(decide(&nodes, &BTreeSet::new(), 3), Clean("w1".into()));
        nodes[0].task = None;
        assert_eq!(decide(&nodes, &BTreeSet::new(), 3), Begin("w1".into()));
    }

    #[test]
    fn a_run_that_was_killed_is_gone_on_with_and_one_that_is_away_is_named() {
        let mut nodes = vec![node("w1"), node("w2")];
        nodes[0].task = runs();
        assert_eq!(decide(&nodes, &BTreeSet::new(), 1), Wait("w1: works".into()));
        (nodes[0].task, nodes[0].is_new) = (None, true);
        nodes[1].ready = false;
        assert_eq!(decide(&nodes, &BTreeSet::new(), 1), Stop(vec![("w2".into(), "it is not ready".into())]));
        nodes[1].is_new = true;
        assert_eq!(decide(&nodes, &BTreeSet::new(), 1), Done);
    }
}
