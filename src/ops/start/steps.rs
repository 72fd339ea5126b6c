//! The steps of a start, as its users see them.

use super::decide::Step;
use crate::plane::hand_over::Target;

impl Step {
    pub(super) const ALL: [Self; 9] = [
        Self::Install,
        Self::Api,
        Self::Apply,
        Self::Node,
        Self::HandOver,
        Self::SelfHosted,
        Self::Required,
        Self::Lower,
        Self::Prove,
    ];

    pub(super) fn id(self, target: Target) -> &'static str {
        match self {
            Self::Install => "install",
            Self::Api => "api",
            Self::Apply => "apply",
            Self::Node => "node",
            Self::SelfHosted if target == Target::Static => "static",
            Self::SelfHosted => "self-hosted",
            Self::Required => "required-pods",
            Self::HandOver => "hand-over",
            Self::Lower => "lower",
            Self::Prove => "prove",
        }
    }

    pub(super) fn title(self, target: Target) -> &'static str {
        match self {
            Self::SelfHosted if target == Target::Static => "the static API server serves",
            Self::HandOver if target == Target::Static => "hand over to the static controllers",
            Self::Prove if target == Target::Static => "prove that the static control plane serves",
            Self::Install => "raise the bridge",
            Self::Api => "the bridge serves the API",
            Self::Apply => "apply the self-hosted control plane",
            Self::Node => "the kubelet joins as a controller",
            Self::SelfHosted => "the self-hosted API server serves",
            Self::Required => "the required pods are ready",
            Self::HandOver => "hand over to the self-hosted controllers",
            Self::Lower => "lower the bridge",
            Self::Prove => "prove that the cluster serves itself",
        }
    }
}
