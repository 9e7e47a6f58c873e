//! The triggers of a run, as the QuarksJob has them. Pure.

use crate::api::{Strategy, Trigger};
use crate::digest;

use super::QuarksJobView;

/// Triggers that wait, taken together: one run consumes them all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The one that status and metrics name.
    pub trigger: Trigger,
    /// The strategy that the run consumes.
    pub strategy: Option<Strategy>,
    /// The value of `run-requested` that the run consumes.
    pub request: Option<String>,
}

/// Triggers of this QuarksJob that no settled run has consumed.
pub fn pending(view: &QuarksJobView) -> Option<Pending> {
    let strategy = match view.strategy {
        Some(Strategy::Now) => Some(Strategy::Now),
        Some(Strategy::Once) if !once_has_run(view) => Some(Strategy::Once),
        _ => None,
    };
    let request = view.request.clone().filter(|value| view.marker.request.as_ref() != Some(value));
    let trigger = match (strategy, &request) {
        (Some(Strategy::Now), _) => Trigger::Now,
        (Some(_), _) => Trigger::Once,
        (None, Some(_)) => Trigger::Request,
        (None, None) => return None,
    };
    Some(Pending { trigger, strategy, request })
}

/// `once` means once per template. A digest made by another algorithm cannot be compared and counts as equal.
fn once_has_run(view: &QuarksJobView) -> bool {
    view.marker.once.as_ref().is_some_and(|once| view.template_digest.is(once) || !digest::is_current(once))
}
