//! Status, reason and message of condition `Ready`. Pure.

use crate::api::{Condition, QuarksJobStatus, SIDECAR_ACCOUNT, Strategy};
use crate::contract::reason::Reason;
use crate::contract::record::REQUEST_MAX;
use crate::controller::shared::memory::Missing;
use crate::views::{NamespaceView, QuarksJobView};

/// What condition `Ready` says of a QuarksJob with nothing to run, or that must not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It could run now.
    Ready,
    /// `spec.suspend`.
    Suspended,
    /// `once` applied again over a run with the same template.
    AlreadyRan,
    /// The spec breaks a rule.
    InvalidSpec,
    /// Output needs an account for the sidecar, and the namespace names none.
    NamespaceNotReady,
    /// Something that the template references does not exist.
    MissingReference,
    /// Annotation `run-requested` is not a valid request; all other triggers work.
    InvalidRequest,
}

impl Readiness {
    /// True if a trigger leads to a run, or to a look whether what is missing has come.
    pub fn could_run(self) -> bool {
        match self {
            Self::Ready | Self::AlreadyRan | Self::MissingReference | Self::InvalidRequest => true,
            Self::Suspended | Self::InvalidSpec | Self::NamespaceNotReady => false,
        }
    }

    /// Status and reason of condition `Ready`.
    pub fn condition(self) -> (bool, Reason) {
        match self {
            Self::Ready | Self::AlreadyRan => (true, Reason::Ready),
            Self::Suspended => (true, Reason::Suspended),
            Self::InvalidSpec => (false, Reason::InvalidSpec),
            Self::NamespaceNotReady => (false, Reason::NamespaceNotReady),
            Self::MissingReference => (false, Reason::MissingReference),
            Self::InvalidRequest => (false, Reason::InvalidRequest),
        }
    }
}

/// Whether the QuarksJob could run now.
pub fn readiness(view: &QuarksJobView, namespace: &NamespaceView, has_trigger: bool, is_missing: bool) -> Readiness {
    if view.spec_error.is_some() {
        Readiness::InvalidSpec
    } else if view.is_suspended {
        Readiness::Suspended
    } else if view.has_output && namespace.service_account.is_none() {
        Readiness::NamespaceNotReady
    } else if is_missing {
        Readiness::MissingReference
    } else if view.is_request_too_long {
        Readiness::InvalidRequest
    } else if view.strategy == Some(Strategy::Once) && !has_trigger {
        Readiness::AlreadyRan
    } else {
        Readiness::Ready
    }
}

/// Status and reason of the condition.
pub fn ready_of(status: &QuarksJobStatus) -> Option<(&str, &str)> {
    status.condition("Ready").map(|Condition { status, reason, .. }| (status.as_str(), reason.as_str()))
}

/// Its message.
pub fn ready_message(readiness: Readiness, view: &QuarksJobView, missing: Option<&Missing>) -> String {
    match readiness {
        Readiness::Ready => "ready to run".to_owned(),
        Readiness::AlreadyRan => "already ran once for this template".to_owned(),
        Readiness::Suspended => "spec.suspend is true: no run starts, triggers stay pending".to_owned(),
        Readiness::InvalidSpec => view.spec_error.as_ref().map(ToString::to_string).unwrap_or_default(),
        Readiness::MissingReference => missing.map(missing_message).unwrap_or_default(),
        Readiness::NamespaceNotReady => no_account_message(&view.key.namespace),
        Readiness::InvalidRequest => format!(
            "annotation {} must be at most {REQUEST_MAX} bytes and is ignored; set a shorter value; other triggers still work",
            crate::api::ANNOTATION_RUN_REQUESTED
        ),
    }
}

fn missing_message(missing: &Missing) -> String {
    let text = format!("missing: {}; a pending run starts when all of them exist", missing.names.join(", "));
    if missing.missing_own.is_empty() {
        return text;
    }
    let own = missing.missing_own.join(", secret/");
    format!("{text}; this QuarksJob itself writes secret/{own}, so it cannot start: create the Secret or make the reference optional")
}

fn no_account_message(namespace: &str) -> String {
    format!(
        "spec.output requires a service account for the sidecar; run: kubectl apply -n {namespace} -f manifests/monitored-namespace.yaml && \
         kubectl label namespace {namespace} quarks.cloudfoundry.org/qjob-service-account={SIDECAR_ACCOUNT}"
    )
}
