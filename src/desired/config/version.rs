//! The version of Kubernetes for a cluster.yaml that names none.

use serde::Deserialize;
use serde_json::Value;

use super::{Version, defaults, syntax};
use crate::base::yaml;

/// The version of Kubernetes that the asset directory has which is rendered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendered {
    /// Nothing was rendered there yet.
    Never,
    /// It was rendered with this one.
    With(Version),
    /// It was rendered, and its cluster.yaml does not say with which: it is gone, or was edited.
    Unknown,
}

/// Only what is looked for: the rest may be of another hoist.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Text {
    kubernetes_version: Option<Value>,
}

impl Rendered {
    /// What the text of an asset directory's cluster.yaml says, whatever else it says.
    pub fn of(text: &str) -> Self {
        let parsed = yaml::parse_one::<Text>("cluster.yaml", text).ok();
        let named = parsed.and_then(|(text, _)| Some(syntax::version(text.kubernetes_version?.as_str()?)));
        named.and_then(Result::ok).map_or(Self::Unknown, Self::With)
    }

    /// The version that a cluster.yaml means which names none: a cluster that is there keeps its own, and is not
    /// upgraded because hoist was.
    ///
    /// # Errors
    /// What is wrong, and its remedy.
    pub(super) fn unnamed(self) -> Result<String, (&'static str, String)> {
        match self {
            Self::Never => Ok(defaults::KUBERNETES_VERSION.to_owned()),
            Self::With(version) => Ok(version.to_string()),
            Self::Unknown => Err((
                "none is named, and the cluster.yaml of the asset directory does not say which one it was rendered with",
                format!("write the version that the cluster runs, such as {}", defaults::KUBERNETES_VERSION),
            )),
        }
    }
}

/// Major and minor version and the patch, as programs and tags of images say them: `v1.36.3`, `v1.36.3-1`.
pub fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.strip_prefix('v')?.split(['.', '-', '+', '_']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

impl Version {
    /// That of a text like `v1.37.2`.
    pub fn read(text: &str) -> Option<Self> {
        let (major, minor, patch) = numbers(text)?;
        Some(Self { major, minor, patch })
    }

    /// Whether a program that says `said` has this version.
    pub fn is(self, said: &str) -> bool {
        numbers(said) == Some((self.major, self.minor, self.patch))
    }
}

/// The same of an image, by its tag.
pub fn of_image(reference: &str) -> Option<(u32, u32, u32)> {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    let (_, tag) = name.rsplit_once(':')?;
    numbers(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: Rendered = Rendered::With(Version { major: 1, minor: 36, patch: 3 });

    #[test]
    fn a_cluster_keeps_the_version_that_it_was_rendered_with() {
        assert_eq!(Rendered::Never.unnamed().as_deref(), Ok(defaults::KUBERNETES_VERSION));
        assert_eq!(OLDER.unnamed().as_deref(), Ok("v1.36.3"));
        let (message, remedy) = Rendered::Unknown.unnamed().unwrap_err();
        assert!(message.contains("rendered") && remedy.ends_with(defaults::KUBERNETES_VERSION), "{message} {remedy}");
    }

    #[test]
    fn a_version_is_read_alone_and_from_an_image() {
        for (version, expected) in [
            ("v1.36.3", Some((1, 36, 3))),
            ("v1.36.0-rc.1+abc", Some((1, 36, 0))),
            ("v1.36.3_1", Some((1, 36, 3))),
            ("1.36.3", None),
            ("v1.36", None),
            ("v1.36.x", None),
            ("latest", None),
            ("", None),
        ] {
            assert_eq!(numbers(version), expected, "{version}");
            assert_eq!(of_image(&format!("r.io:5000/kube-apiserver:{version}@sha256:aa")), expected, "{version}");
        }
        assert_eq!(of_image("r.io:5000/kube-apiserver"), None);
    }

    #[test]
    fn the_version_of_a_rendered_directory_is_read_from_its_configuration() {
        for (text, expected) in [
            ("kubernetesVersion: v1.36.3\n", OLDER),
            ("kind: Cluster\nkubernetesVersion: 1.36.3\nwhatIsToCome: {a: 1}\n", OLDER),
            ("kind: Cluster\n", Rendered::Unknown),
            ("kubernetesVersion: 1.36\n", Rendered::Unknown),
            ("kubernetesVersion: stable\n", Rendered::Unknown),
            ("kubernetesVersion: [\n", Rendered::Unknown),
            ("", Rendered::Unknown),
        ] {
            assert_eq!(Rendered::of(text), expected, "{text}");
        }
    }
}
