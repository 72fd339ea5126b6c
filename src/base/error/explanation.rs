//! An error for programs: the words of its text, each in a field of its own.

use std::borrow::Cow;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{APPLY_CORRECTED, Error, Finding, PUT_SIGNED, Severity};

/// An error in fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation<'a> {
    /// What failed, in one line.
    pub message: String,
    /// The exit code of the process.
    pub exit_code: u8,
    /// What to do next.
    pub next: Cow<'a, str>,
    /// The rest.
    #[serde(flatten)]
    pub why: Why<'a>,
}

/// Why it failed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Why<'a> {
    /// Which kind of failure it is, by name.
    pub class: &'static str,
    /// Whether NODE_IP still serves the API, where that was looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_served: Option<bool>,
    /// All that is wrong with the input, the machine or the objects.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub findings: &'a [Finding],
    /// Further lines worth reading: pods, reasons, ends of logs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<&'a str>,
}

impl Error {
    /// The error as programs read it.
    pub fn explanation(&self) -> Explanation<'_> {
        let text = self.to_string();
        Explanation {
            message: text.lines().next().unwrap_or_default().to_owned(),
            exit_code: self.exit_code(),
            next: self.remedy(),
            why: Why {
                class: self.class(),
                api_served: match self {
                    Self::TimedOut { api_served, .. } => Some(*api_served),
                    _ => None,
                },
                findings: self.findings(),
                details: self.details(),
            },
        }
    }

    fn class(&self) -> &'static str {
        match self {
            Self::Io { .. } | Self::Failed { .. } | Self::Later { .. } => "failed",
            Self::Input(_) => "invalid-input",
            Self::Preflight(_) => "not-ready",
            Self::Locked { .. } => "locked",
            Self::TimedOut { .. } => "timed-out",
            Self::Refused(_) => "refused",
            Self::Unsigned(_) => "unsigned",
            Self::Interrupted { .. } => "interrupted",
        }
    }

    fn findings(&self) -> &[Finding] {
        match self {
            Self::Input(findings) | Self::Preflight(findings) | Self::Refused(findings) | Self::Unsigned(findings) => {
                findings
            }
            _ => &[],
        }
    }

    fn details(&self) -> Vec<&str> {
        match self {
            Self::TimedOut { details, .. } => details.iter().map(String::as_str).collect(),
            Self::Interrupted { state, .. } => state.lines().map(str::trim).collect(),
            // The first line is in the message.
            Self::Failed { cause, .. } | Self::Later { cause, .. } => cause.lines().skip(1).collect(),
            _ => Vec::new(),
        }
    }

    /// Never empty: who reads it at night may have nothing else.
    fn remedy(&self) -> Cow<'_, str> {
        match self {
            Self::TimedOut { next, .. } | Self::Failed { next: Some(next), .. } => next.into(),
            Self::Input(_) | Self::Preflight(_) => {
                "do what the findings advise, then run the same command again".into()
            }
            Self::Unsigned(_) => PUT_SIGNED.into(),
            Self::Locked { .. } => "wait until it has ended, then run the same command again".into(),
            Self::Refused(_) => APPLY_CORRECTED.into(),
            Self::Interrupted { .. } => "run the same command again to continue".into(),
            Self::Io { .. } | Self::Failed { next: None, .. } | Self::Later { .. } => {
                "remove the cause and run the same command again; `--log-level debug` says more".into()
            }
        }
    }
}

/// `{severity, file, line, column, message, remedy}`, without those that it has not.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Finding", 6)?;
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        object.serialize_field("severity", severity)?;
        object.serialize_field("file", &self.place)?;
        if let Some((line, column)) = self.position {
            object.serialize_field("line", &line)?;
            object.serialize_field("column", &column)?;
        }
        object.serialize_field("message", &self.message)?;
        if let Some(remedy) = &self.remedy {
            object.serialize_field("remedy", remedy)?;
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_word_has_a_field() {
        let finding = Finding::new("a.yaml", "is wrong").at(Some((3, 7))).remedy("make it right");
        let error = Error::Refused(vec![finding, Finding::new("b.yaml", "is odd").warning()]);
        assert_eq!(
            serde_json::to_value(error.explanation()).unwrap(),
            json!({
                "message": "the API server refused objects; all objects that do not depend on them are applied",
                "exitCode": 8,
                "next": "correct the file and run `hoist apply`",
                "class": "refused",
                "findings": [
                    {"severity": "error", "file": "a.yaml", "line": 3, "column": 7, "message": "is wrong", "remedy": "make it right"},
                    {"severity": "warning", "file": "b.yaml", "message": "is odd"},
                ],
            })
        );
        let error = Error::TimedOut {
            waiting_for: "a pod".into(),
            api_served: false,
            details: vec!["kube-system/x: crashes".into(), "    its last line".into()],
            next: "look".into(),
        };
        assert_eq!(
            serde_json::to_value(error.explanation()).unwrap(),
            json!({
                "message": "timed out waiting for a pod",
                "exitCode": 7,
                "next": "look",
                "class": "timed-out",
                "apiServed": false,
                "details": ["kube-system/x: crashes", "    its last line"],
            })
        );
    }

    #[test]
    fn a_message_is_one_line_and_the_rest_is_not_lost() {
        let error = Error::failed("label the node", "forbidden\nby RBAC");
        let Explanation { message, next, why, .. } = error.explanation();
        assert_eq!((&*message, &*why.details), ("cannot label the node: forbidden", &["by RBAC"][..]));
        assert!(!next.is_empty());
        let error = Error::Interrupted { signal: 15, state: "the bridge stands\n  to undo: remove it".into() };
        assert_eq!(error.explanation().why.details, ["the bridge stands", "to undo: remove it"]);
    }
}
