//! Kubernetes' own conformance tests on a cluster of one controller and two workers, and on one of three controllers of which
//! one after the other loses its power. By default those that `quick.txt` names; `scripts/conformance` asks for others. None is left out but those of `left-out.txt`, each with its reason.
//!
//! `HOIST_CONFORMANCE` is a regular expression for the names of tests; `HOIST_CONFORMANCE_UNREST=1` has the control plane
//! move, and lose its power, meanwhile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::beside::Beside;
use crate::support::cluster::{Cluster, START_LIMIT};
use crate::support::command::run;
use crate::support::node::Node;
use crate::support::several::{LABEL, make_candidate, until_made_of};
use crate::support::{cache, repository, worker};

/// How many tests run at once: most of them wait for most of their time.
const AT_ONCE: &str = "--procs=6";
/// How long all of them may take, at most: two hours and a half.
const LIMIT: Duration = Duration::from_secs(9000);
/// Between two reboots: both leaders lead again meanwhile.
const BETWEEN: Duration = Duration::from_secs(20);
const CONFORMANCE: &str = r"\[Conformance\]";

#[test]
fn conformance() {
    let node = Node::plain("conformance");
    let cluster = Cluster::render(&node);
    cluster.started(&node, &[]).expect(0);
    let workers = ["conformance-1", "conformance-2"].map(|name| worker::up(name, &cluster));
    for node in std::iter::once(&node).chain(&workers) {
        worker::is_ready(node, &cluster);
    }
    let has_unrest = std::env::var_os("HOIST_CONFORMANCE_UNREST").is_some_and(|value| value == "1");
    let (report, begun) = (report("conformance"), Instant::now());
    let mut suite = ginkgo(&node, &cluster, &asked(), &report);
    let ended = if has_unrest {
        let suite = Beside::begin(move |_| run(&mut suite, LIMIT));
        let mut rounds = 0;
        while !suite.is_finished() {
            node.spawn(cluster.command("unpivot", &[])).wait(START_LIMIT).expect(0);
            cluster.started(&node, &[]).expect(0);
            node.power_cut();
            node.boot();
            rounds += 1;
            std::thread::sleep(Duration::from_secs(60));
        }
        eprintln!("moved to static pods and back, and its power cut: {rounds} times");
        suite.end()
    } else {
        run(&mut suite, LIMIT)
    };
    let outcome = Outcome::read(&report).unwrap_or_else(|| panic!("no report in {}: {ended}", report.display()));
    eprintln!("{outcome} in {:.0?}; {} has all of it", begun.elapsed(), report.display());
    // What tolerates no unrest is for a reader to judge.
    assert!(has_unrest || outcome.failed.is_empty(), "{outcome}\n{ended}");
    assert!(!outcome.passed.is_empty(), "no test ran: {ended}");
}

/// Those that a label made lose their power in turn. The suite and the workers ask the first one.
#[test]
fn conformance_while_controllers_reboot() {
    let node = Node::plain("conf-three-1");
    let cluster = Cluster::render(&node);
    cluster.started(&node, &[]).expect(0);
    let others = ["conf-three-2", "conf-three-3"].map(|name| make_candidate(Node::plain(name), &cluster));
    let workers = ["conf-three-w1", "conf-three-w2"].map(|name| worker::up(name, &cluster));
    for node in &workers {
        worker::is_ready(node, &cluster);
    }
    let label = format!("{LABEL}=");
    cluster.kubectl().run(&["label", "node", &others[0].name, &others[1].name, &label]).ok();
    let all = [&node, &others[0], &others[1]];
    until_made_of(&cluster, &all);

    let (report, begun) = (report("conformance-three"), Instant::now());
    let mut suite = ginkgo(&node, &cluster, &asked(), &report);
    let suite = Beside::begin(move |_| run(&mut suite, LIMIT));
    let mut reboots = 0;
    while !suite.is_finished() {
        let other = &others[reboots % 2];
        other.power_cut();
        other.boot();
        until_made_of(&cluster, &all);
        reboots += 1;
        std::thread::sleep(BETWEEN);
    }
    let ended = suite.end();
    let outcome = Outcome::read(&report).unwrap_or_else(|| panic!("no report in {}: {ended}", report.display()));
    eprintln!("{outcome} in {:.0?}, {reboots} reboots meanwhile; {} has all of it", begun.elapsed(), report.display());
    assert!(outcome.failed.is_empty(), "{outcome}\n{ended}");
    assert!(!outcome.passed.is_empty() && reboots > 0, "{reboots} reboots: {ended}");
}

/// Which tests are asked for.
fn asked() -> String {
    std::env::var("HOIST_CONFORMANCE").unwrap_or_else(|_| any_of(&lines("quick.txt")))
}

/// The lines of a list in tests/conformance, without what follows `|` or begins with `#`.
fn lines(file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("tests/conformance").join(file)).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split('|').next().unwrap_or_default().trim().to_owned()).collect()
}

/// A regular expression that finds each of these texts.
fn any_of(texts: &[String]) -> String {
    let quoted = |text: &String| {
        text.chars().map(|c| if c.is_alphanumeric() || c == ' ' { c.to_string() } else { format!("\\{c}") }).collect()
    };
    texts.iter().map(quoted).collect::<Vec<String>>().join("|")
}

fn report(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.xml"))
}

/// The suite, about to run the conformance tests whose names `asked` finds.
fn ginkgo(node: &Node, cluster: &Cluster, asked: &str, report: &Path) -> Command {
    let bin = cache().join(format!("kubernetes/v{}/bin", node.kubernetes));
    let suite = bin.join("e2e.test");
    assert!(suite.exists(), "{} is missing; run scripts/kubernetes --suite {}", suite.display(), node.kubernetes);
    if report.exists() {
        std::fs::remove_file(report).unwrap();
    }
    // However this test ends, it ends, too, and the suite's processes with it: those of a namespace end with its first.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--pid", "--kill-child"]).arg(bin.join("ginkgo"));
    command.current_dir(report.parent().unwrap());
    command.args([AT_ONCE, "--no-color", "--silence-skips", "--timeout=150m", "--keep-going"]);
    // Both must be found in a test's name.
    command.arg(format!("--focus=({asked}).*{CONFORMANCE}|{CONFORMANCE}.*({asked})"));
    let left_out = any_of(&lines("left-out.txt"));
    if !left_out.is_empty() {
        command.arg(format!("--skip={left_out}"));
    }
    command.arg(format!("--junit-report={}", report.file_name().unwrap().display()));
    command.arg(suite).arg("--").arg("--provider=skeleton").arg("--kubeconfig");
    command
        .arg(cluster.assets.join("auth/kubeconfig"))
        .arg(format!("--kubectl-path={}", bin.join("kubectl").display()));
    command
}

/// What became of the tests that ran.
struct Outcome {
    passed: Vec<String>,
    failed: Vec<String>,
}

impl Outcome {
    /// As a JUnit report has it: a test case that was not skipped has passed unless something in it says otherwise.
    fn read(report: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(report).ok()?;
        let (mut passed, mut failed) = (Vec::new(), Vec::new());
        for case in text.split("<testcase ").skip(1) {
            let attribute = |name: &str| case.split(&format!("{name}=\"")).nth(1)?.split('"').next();
            let name = attribute("name")?.to_owned();
            match attribute("status")? {
                "skipped" | "pending" => {}
                "passed" if !name.starts_with("[It]") => {}
                "passed" => passed.push(name),
                _ => failed.push(name),
            }
        }
        Some(Self { passed, failed })
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} conformance tests passed, {} failed", self.passed.len(), self.failed.len())?;
        self.failed.iter().try_for_each(|name| write!(f, "\n  failed: {name}"))
    }
}
