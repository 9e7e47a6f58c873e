//! The reasons in conditions, in `lastRun` and on Events: one list of all that quarks-job defines. The reason of a failed run can
//! also be one of Kubernetes' own (`BackoffLimitExceeded`).
//!
//! `tests/architecture` compares the tables of the docs with it, both ways.

use std::fmt;

use super::report::OutputErrorReason;

/// Where a reason stands. Conditions are `True`, `False` or, for `Succeeded`, `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Condition `Ready`.
    Ready(bool),
    /// Condition `Running`.
    Running(bool),
    /// Condition `Succeeded`, and `lastRun.reason`; `None` for `Unknown`.
    Succeeded(Option<bool>),
    /// An Event of type `Normal`.
    Normal,
    /// An Event of type `Warning`.
    Warning,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident $places:tt)*) => {
        /// One word.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $name,)*
        }

        impl Reason {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Where it stands.
            pub fn places(self) -> &'static [Place] {
                use Place::*;
                match self {
                    $(Self::$name => &$places,)*
                }
            }
        }
    };
}

reasons! {
    /// It can run.
    Ready [Ready(true)]
    /// `spec.suspend` is set.
    Suspended [Ready(true)]
    /// Answers are not the API server's, or come too late.
    APIUnavailable [Ready(false), Warning]
    /// Annotation `run-requested` is too long.
    InvalidRequest [Ready(false), Warning]
    /// The spec breaks a rule.
    InvalidSpec [Ready(false), Warning]
    /// The API server refuses the Job of this template.
    InvalidTemplate [Ready(false), Warning]
    /// A quota, an admission policy or a webhook refuses the Job.
    JobRefused [Ready(false), Warning]
    /// A ConfigMap or Secret that the template references does not exist.
    MissingReference [Ready(false), Warning]
    /// The Job's name is taken.
    NameConflict [Ready(false), Warning]
    /// A right, a label or an account is missing.
    NamespaceNotReady [Ready(false), Warning]
    /// The end of a run may not be recorded.
    SettleRefused [Ready(false), Warning]

    /// A run is active.
    RunActive [Running(true)]
    /// No run is active.
    Idle [Running(false)]

    /// The run ended well.
    Completed [Succeeded(Some(true))]
    /// The Job failed, and Kubernetes gave no reason.
    JobFailed [Succeeded(Some(false))]
    /// Somebody deleted the Job during its run.
    JobDeleted [Succeeded(Some(false))]
    /// A file is missing, unreadable or invalid.
    OutputInvalid [Succeeded(Some(false)), Warning]
    /// A Secret of that name is not this QuarksJob's.
    OutputConflict [Succeeded(Some(false)), Warning]
    /// The API server did not take the output.
    OutputNotStored [Succeeded(Some(false)), Warning]
    /// The QuarksJob was gone, or the run over, when output was to be stored.
    OwnerGone [Succeeded(Some(false)), Warning]
    /// Nobody knows whether the output is stored.
    OutputUnverified [Succeeded(None), Warning]

    /// A run has started.
    JobCreated [Normal]
    /// The API server warned about the Job, or a part of the template has no place in one.
    TemplateWarning [Warning]
    /// The template refers to the QuarksJob's own output.
    SelfReference [Warning]
    /// A run has ended well.
    RunSucceeded [Normal]
    /// A run has ended otherwise.
    RunFailed [Warning]
    /// The Job was deleted during its run.
    RunCancelled [Warning]
    /// Secrets that the run wrote.
    OutputStored [Normal]
    /// `once` was applied again.
    AlreadyRan [Normal]
    /// Config changes make it run again and again.
    ConfigLoop [Warning]
}

impl Reason {
    /// `None` for a word that is none of ours.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|reason| reason.as_str() == word).copied()
    }

    /// The reason of a run, if the word is one of ours.
    pub fn of_run(word: &str) -> Option<Self> {
        Self::parse(word).filter(|reason| reason.places().iter().any(|place| matches!(place, Place::Succeeded(_))))
    }

    /// Whether its Event is a warning; `None` for what is never an Event.
    pub fn event(self) -> Option<bool> {
        self.places().iter().find_map(|place| match place {
            Place::Normal => Some(false),
            Place::Warning => Some(true),
            Place::Ready(_) | Place::Running(_) | Place::Succeeded(_) => None,
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<OutputErrorReason> for Reason {
    fn from(reason: OutputErrorReason) -> Self {
        match reason {
            OutputErrorReason::OutputInvalid => Self::OutputInvalid,
            OutputErrorReason::OutputConflict => Self::OutputConflict,
            OutputErrorReason::OutputNotStored => Self::OutputNotStored,
            OutputErrorReason::OwnerGone => Self::OwnerGone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_failed_for_a_reason_of_ours_is_told_by_an_event_of_that_reason() {
        let told = |word: &str| Reason::of_run(word).and_then(|reason| reason.event().map(|_| reason));
        assert_eq!(told("OutputUnverified"), Some(Reason::OutputUnverified));
        for word in ["Completed", "JobDeleted", "BackoffLimitExceeded", "RunFailed", "InvalidSpec", ""] {
            assert_eq!(told(word), None, "{word}");
        }
    }
}
