use super::*;
use serde_json::json;

const TIMING: Timing = Timing { lease: Duration::from_secs(15), renew: Duration::from_secs(10), retry: Duration::from_secs(2) };

fn record(holder: &str, renewed: &str) -> Record {
    Record { holder: holder.to_owned(), renewed: renewed.to_owned(), duration: Some(Duration::from_secs(15)) }
}

/// An elector named `me` and its clock, in seconds from its start.
struct Play {
    elector: Elector,
    start: Moment,
}

impl Play {
    fn new() -> Self {
        let start = Moment::now();
        Self { elector: Elector::new("me".to_owned(), TIMING, Duration::ZERO, start), start }
    }

    fn at(&self, seconds: f64) -> Moment {
        self.start + Duration::from_secs_f64(seconds)
    }

    #[track_caller]
    fn step(&mut self, seconds: f64, expected: Step) {
        let now = self.at(seconds);
        assert_eq!(self.elector.step(now), expected, "at {seconds} s: {:?}", self.elector);
    }

    #[track_caller]
    fn wait(&mut self, seconds: f64, expected: f64) {
        self.step(seconds, Step::Wait(Duration::from_secs_f64(expected)));
    }

    /// An answer at once.
    fn answer(&mut self, seconds: f64, answer: Answer) {
        self.late_answer(seconds, seconds, answer);
    }

    fn late_answer(&mut self, sent: f64, now: f64, answer: Answer) {
        let (sent, now) = (self.at(sent), self.at(now));
        self.elector.take_in(answer, sent, now);
    }

    fn leads_until(&self) -> Option<f64> {
        self.elector.until().map(|until| (until - self.start).as_secs_f64())
    }

    /// Leads since 0 s, with the Lease as `record("me", "a")`.
    fn leading() -> Self {
        let mut play = Self::new();
        play.answer(0.0, Answer::Absent);
        play.answer(0.0, Answer::Written(record("me", "a")));
        assert_eq!(play.leads_until(), Some(10.0));
        play
    }
}

#[test]
fn a_lease_that_is_not_there_is_made() {
    let mut play = Play::new();
    play.step(0.0, Step::Read);
    play.answer(0.0, Answer::Absent);
    play.step(0.0, Step::Create);
    play.answer(0.5, Answer::Written(record("me", "a")));
    assert_eq!(play.leads_until(), Some(10.5));
    play.wait(1.0, 1.5);
    play.step(2.5, Step::Write);
}

#[test]
fn a_lease_that_was_given_back_is_taken_at_once() {
    let mut play = Play::new();
    play.answer(0.0, Answer::Found(record("", "a")));
    play.step(0.0, Step::Write);
    assert_eq!(play.leads_until(), None, "not before the answer");
}

#[test]
fn anothers_lease_is_looked_at_until_it_has_not_changed_for_its_duration() {
    let mut play = Play::new();
    play.answer(0.0, Answer::Found(record("other", "a")));
    play.wait(0.0, 1.0);
    play.wait(0.5, 0.5);
    play.step(1.0, Step::Read);
    play.answer(1.0, Answer::Found(record("other", "b")));
    play.wait(1.0, 1.0);
    // Renewed at 1 s as we saw it, whatever its own clock says.
    play.step(15.5, Step::Read);
    play.answer(15.5, Answer::Found(record("other", "b")));
    play.wait(15.5, 1.0);
    play.step(16.5, Step::Read);
    play.answer(16.5, Answer::Found(record("other", "b")));
    play.step(16.5, Step::Write);
    // Another was faster.
    play.answer(16.5, Answer::Conflict);
    play.wait(16.5, 1.0);
    play.step(17.5, Step::Read);
    play.answer(17.5, Answer::Found(record("third", "c")));
    play.wait(17.5, 1.0);
    assert_eq!(play.leads_until(), None);
}

#[test]
fn the_duration_is_the_holders_and_ours_if_it_has_none() {
    for (duration, over) in [(Some(Duration::from_secs(3)), 3.0), (None, 15.0)] {
        let found = Record { duration, ..record("other", "a") };
        let mut play = Play::new();
        play.answer(0.0, Answer::Found(found.clone()));
        play.answer(over - 0.1, Answer::Found(found.clone()));
        play.wait(over - 0.1, 1.0);
        play.answer(over + 1.0, Answer::Found(found));
        play.step(over + 1.0, Step::Write);
    }
}

#[test]
fn a_leader_renews_from_the_start_of_its_last_good_renewal() {
    let mut play = Play::leading();
    play.step(2.0, Step::Write);
    play.late_answer(2.0, 3.0, Answer::Written(record("me", "b")));
    assert_eq!(play.leads_until(), Some(12.0));
    play.wait(3.0, 1.0);
    // The reply of the next one is lost, though it was done: read, and go on.
    play.step(4.0, Step::Write);
    play.answer(5.0, Answer::Failed);
    play.wait(5.0, 2.0);
    play.step(7.0, Step::Read);
    play.answer(7.0, Answer::Found(record("me", "c")));
    assert_eq!(play.leads_until(), Some(12.0), "a read renews nothing");
    play.step(7.0, Step::Write);
    play.answer(7.0, Answer::Written(record("me", "d")));
    assert_eq!(play.leads_until(), Some(17.0));
}

#[test]
fn a_leader_without_renewal_has_lost_at_the_deadline_and_for_good() {
    let mut play = Play::leading();
    play.answer(8.5, Answer::Failed);
    play.wait(8.5, 1.5);
    play.step(10.0, Step::Lost(Lost::Deadline(TIMING.renew)));
    play.answer(10.0, Answer::Written(record("me", "b")));
    assert_eq!(play.leads_until(), Some(10.0), "an answer after the deadline gives nothing");
    play.step(10.0, Step::Lost(Lost::Deadline(TIMING.renew)));
    // Stopped, and continued long after: nothing is sent first.
    let mut play = Play::leading();
    play.step(100.0, Step::Lost(Lost::Deadline(TIMING.renew)));
}

#[test]
fn a_leader_that_sees_another_holder_has_lost() {
    for holder in ["other", ""] {
        let mut play = Play::leading();
        play.answer(2.0, Answer::Conflict);
        play.wait(2.0, 0.5);
        play.step(2.5, Step::Read);
        play.answer(2.5, Answer::Found(record(holder, "b")));
        play.step(2.5, Step::Lost(Lost::Taken(holder.to_owned())));
    }
}

#[test]
fn a_leader_makes_a_deleted_lease_anew() {
    let mut play = Play::leading();
    play.answer(2.0, Answer::Failed);
    play.step(4.0, Step::Read);
    play.answer(4.0, Answer::Absent);
    play.step(4.0, Step::Create);
    play.answer(4.0, Answer::Written(record("me", "b")));
    assert_eq!(play.leads_until(), Some(14.0));
}

#[test]
fn a_candidate_whose_answer_was_lost_or_late_writes_again() {
    let mut play = Play::new();
    play.answer(0.0, Answer::Absent);
    play.answer(1.0, Answer::Failed);
    play.wait(1.0, 1.0);
    play.step(2.0, Step::Read);
    play.answer(2.0, Answer::Found(record("me", "a")));
    play.step(2.0, Step::Write);
    play.late_answer(2.0, 12.0, Answer::Written(record("me", "b")));
    assert_eq!(play.leads_until(), None, "its time was over before it began");
    play.step(12.0, Step::Write);
    play.answer(12.0, Answer::Written(record("me", "c")));
    assert_eq!(play.leads_until(), Some(22.0));
}

#[test]
fn a_claim_changes_what_is_the_holders_and_keeps_the_rest() {
    // (spec before, identity, spec after)
    let cases = [
        (
            json!(null),
            "me",
            json!({"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 0, "acquireTime": "now", "renewTime": "now"}),
        ),
        (
            json!({"holderIdentity": "other", "leaseDurationSeconds": 60, "leaseTransitions": 4, "acquireTime": "then", "renewTime": "then"}),
            "me",
            json!({"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 5, "acquireTime": "now", "renewTime": "now"}),
        ),
        (
            json!({"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 4, "acquireTime": "then", "renewTime": "then"}),
            "me",
            json!({"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 4, "acquireTime": "then", "renewTime": "now"}),
        ),
        (
            json!({"holderIdentity": "me", "leaseTransitions": 4, "acquireTime": "then", "strategy": "x"}),
            "",
            json!({"holderIdentity": "", "leaseDurationSeconds": 15, "leaseTransitions": 4, "acquireTime": "now", "renewTime": "now", "strategy": "x"}),
        ),
    ];
    for (before, identity, after) in cases {
        let mut object = json!({"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}, "spec": before});
        claim(&mut object, identity, 15, "now");
        assert_eq!(object, json!({"metadata": {"resourceVersion": "7", "labels": {"a": "b"}}, "spec": after}));
    }
}

#[test]
fn what_a_lease_says() {
    let whole = json!({"spec": {"holderIdentity": "me", "renewTime": "t", "leaseDurationSeconds": 15}});
    assert_eq!(Record::of(&whole), record("me", "t"));
    for odd in [json!({}), json!({"spec": null}), json!({"spec": {"holderIdentity": null, "renewTime": 1, "leaseDurationSeconds": -1}})] {
        assert_eq!(Record::of(&odd), Record::default());
    }
}
