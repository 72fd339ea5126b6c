//! kubectl, as an administrator runs it on a machine that is no node.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::cache;
use super::command::{Ended, Running};

const LIMIT: Duration = Duration::from_secs(120);

pub struct Kubectl {
    pub program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    /// kubectl of the Kubernetes that scripts/kubernetes has built.
    pub fn new(kubernetes: &str, kubeconfig: &Path) -> Self {
        let program = cache().join(format!("kubernetes/v{kubernetes}/bin/kubectl"));
        assert!(program.exists(), "{} is missing; run scripts/kubernetes {kubernetes}", program.display());
        Self { program, kubeconfig: kubeconfig.to_owned() }
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, "")
    }

    /// Applies manifests given as text.
    #[track_caller]
    pub fn apply(&self, text: &str) {
        self.run_with(&["apply", "-f", "-"], text).ok();
    }

    /// An object, or a list of them.
    #[track_caller]
    pub fn get(&self, args: &[&str]) -> Value {
        let text = self.run(&[&["get", "-o", "json"], args].concat()).ok();
        serde_json::from_str(&text).unwrap()
    }

    /// The items of a list.
    #[track_caller]
    pub fn list(&self, args: &[&str]) -> Vec<Value> {
        self.get(args)["items"].as_array().unwrap().clone()
    }

    /// kubectl at work.
    pub fn spawn(&self, args: &[&str]) -> Running {
        self.spawn_with(args, "")
    }

    fn run_with(&self, args: &[&str], input: &str) -> Ended {
        self.spawn_with(args, input).wait(LIMIT)
    }

    fn spawn_with(&self, args: &[&str], input: &str) -> Running {
        let mut command = Command::new(&self.program);
        // No request hangs for ever, and nothing is read from the user's own configuration.
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--request-timeout=60s").args(args);
        Running::spawn(&mut command, input)
    }
}
