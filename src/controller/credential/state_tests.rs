use super::*;

/// The machine has been up for a day.
const START: Moment = Moment::after_boot(Duration::from_secs(86_400));

fn run_of(number: u64) -> Run {
    Run { quarks_job: ObjectKey::new("ns", "q"), owner: Uid::from("q"), number, job: format!("q-{number}") }
}

fn listed(number: u64, has_ended: bool) -> ListedJob {
    ListedJob { name: format!("q-{number}"), owner: Uid::from("q"), is_without_output: false, has_ended }
}

/// A state and its clock, in seconds from its start.
struct Play {
    state: State,
}

impl Play {
    fn new() -> Self {
        Self { state: State::new(0.0, Duration::from_secs(30), START) }
    }

    /// With the Secret `s` and a token of account `a` that was asked for at 0 s and lives for an hour.
    fn held() -> Self {
        let mut play = Self::new();
        play.show(0, false, Fate::Waiting);
        play.need(0, 1);
        play.obtain(0);
        play
    }

    fn obtain(&mut self, at: u64) {
        play_answers(
            self,
            at,
            &[
                (Step::Look, Answer::Absent),
                (Step::Create("a".to_owned()), Answer::Created { secret: Uid::from("s"), account: "a".to_owned() }),
                (request(), issued(Some(3_600))),
                (store(), stored()),
            ],
        );
        assert_eq!(self.state.readiness("a", moment(at)), Readiness::Ready);
    }

    fn need(&mut self, at: u64, number: u64) {
        self.state.need(run_of(number), "a", moment(at));
    }

    fn show(&mut self, at: u64, is_running: bool, fate: Fate) {
        let shown = Shown { is_in: true, is_running, account: Some("a".to_owned()) };
        self.state.observe(shown, &|_| fate, moment(at));
    }

    #[track_caller]
    fn step(&mut self, at: u64, expected: Step) {
        assert_eq!(self.state.step(moment(at)), expected, "at {at} s: {:?}", self.state);
    }

    #[track_caller]
    fn wait(&mut self, at: u64, until: u64) {
        self.step(at, Step::Wait(moment(until)));
    }

    /// The step, answered at once.
    #[track_caller]
    fn answer(&mut self, at: u64, expected: Step, answer: Answer) {
        self.step(at, expected);
        self.state.take_in(answer, moment(at), moment(at));
    }

    /// Looks that find all as it was, until then; the next step that is another one.
    fn quiet_until(&mut self, from: u64, until: u64) -> Option<(u64, Step)> {
        for at in from..until {
            match self.state.step(moment(at)) {
                Step::Look => self.state.take_in(found("s", Some("a")), moment(at), moment(at)),
                Step::Wait(later) => assert!(later > moment(at), "a wait that is over at {at} s"),
                step => return Some((at, step)),
            }
        }
        None
    }
}

#[track_caller]
fn play_answers(play: &mut Play, at: u64, answers: &[(Step, Answer)]) {
    for (step, answer) in answers {
        play.answer(at, step.clone(), answer.clone());
    }
}

fn moment(seconds: u64) -> Moment {
    START + Duration::from_secs(seconds)
}

fn request() -> Step {
    Step::Request { account: "a".to_owned(), secret: Uid::from("s") }
}

fn store() -> Step {
    Step::Store { secret: Uid::from("s"), account: "a".to_owned(), token: Token("t".to_owned()), expires: "later".to_owned() }
}

fn issued(seconds: Option<i64>) -> Answer {
    Answer::Issued { token: Token("t".to_owned()), seconds, expires: "later".to_owned() }
}

fn stored() -> Answer {
    Answer::Stored(ResourceVersion::from("1"))
}

fn found(secret: &str, account: Option<&str>) -> Answer {
    found_at("1", secret, account)
}

fn found_at(version: &str, secret: &str, account: Option<&str>) -> Answer {
    Answer::Found { secret: Uid::from(secret), version: ResourceVersion::from(version), account: account.map(str::to_owned) }
}

#[test]
fn several_starts_share_one_obtaining() {
    let mut play = Play::new();
    play.need(0, 1);
    play.step(0, Step::Look);
    for number in 2..5 {
        play.need(0, number);
        play.step(0, Step::Busy);
        assert_eq!(play.state.readiness("a", moment(0)), Readiness::NotYet);
    }
    play.state.take_in(Answer::Absent, moment(0), moment(0));
    play.step(0, Step::Create("a".to_owned()));
    play.step(0, Step::Busy);
    play.state.take_in(Answer::Created { secret: Uid::from("s"), account: "a".to_owned() }, moment(0), moment(0));
    play_answers(&mut play, 0, &[(request(), issued(Some(3_600))), (store(), stored())]);
    assert_eq!(play.state.readiness("a", moment(0)), Readiness::Ready);
    assert_eq!(play.state.readiness("b", moment(0)), Readiness::NotYet, "of another account");
    play.wait(0, 6);
}

#[test]
fn the_token_goes_after_the_last_run_and_a_list_that_shows_no_other() {
    let mut play = Play::held();
    play.show(10, true, Fate::Waiting);
    assert_eq!(play.quiet_until(10, 100), None);
    play.show(100, false, Fate::Judged);
    play.wait(100, 130);
    assert_eq!(play.quiet_until(100, 130), None, "no look either");
    play.answer(130, Step::ListJobs, Answer::Jobs(vec![listed(1, true)]));
    play.answer(130, Step::Delete(Uid::from("s")), Answer::Deleted);
    play.step(130, Step::Over);
}

#[test]
fn a_silent_watch_of_jobs_ends_no_use() {
    // Neither the Job nor its end is shown, for an hour; each list shows it at work.
    let mut play = Play::held();
    let (mut lists, mut at) = (0, 0);
    while let Some((later, step)) = play.quiet_until(at, 3_600) {
        at = later;
        play.show(at, false, Fate::Waiting);
        match step {
            Step::ListJobs => {
                lists += 1;
                play.state.take_in(Answer::Jobs(vec![listed(1, false)]), moment(at), moment(at));
            }
            Step::Request { .. } => {
                assert_eq!(at, 1_800, "half of its life");
                play.state.take_in(issued(Some(3_600)), moment(at), moment(at));
            }
            Step::Store { .. } => play.state.take_in(stored(), moment(at), moment(at)),
            other => panic!("{other:?} at {at} s"),
        }
    }
    assert!((5..20).contains(&lists), "{lists} lists in an hour");
}

#[test]
fn a_job_that_only_a_list_shows_keeps_the_token_of_a_namespace_without_own_runs() {
    for (job, keeps) in [
        (ListedJob { owner: Uid::from("others"), ..listed(7, false) }, true),
        (ListedJob { is_without_output: true, ..listed(7, false) }, false),
        (ListedJob { has_ended: true, ..listed(7, false) }, false),
    ] {
        let mut play = Play::held();
        play.show(10, false, Fate::Judged);
        play.answer(40, Step::ListJobs, Answer::Jobs(vec![job]));
        if keeps {
            // It is in use again: checked, and listed again later.
            play.answer(40, Step::Look, found("s", Some("a")));
            play.show(41, false, Fate::Judged);
            assert_eq!(play.quiet_until(41, 400), Some((70, Step::ListJobs)));
            play.state.take_in(Answer::Jobs(vec![]), moment(70), moment(70));
        }
        let at = if keeps { 70 } else { 40 };
        play.step(at, Step::Delete(Uid::from("s")));
    }
}

#[test]
fn a_start_that_made_no_job_is_let_go_by_a_list_and_not_before() {
    for (job, fate, is_kept) in [
        (None, Fate::Waiting, false),
        (None, Fate::Ownerless, false),
        // It has ended, but was not judged yet.
        (Some(true), Fate::Waiting, true),
        (Some(true), Fate::Ownerless, false),
        (Some(false), Fate::Ownerless, true),
    ] {
        let mut play = Play::held();
        play.show(1, false, fate);
        assert_eq!(play.quiet_until(1, 200), Some((120, Step::ListJobs)), "{job:?} {fate:?}");
        let jobs = job.map(|has_ended| listed(1, has_ended)).into_iter().collect();
        play.state.take_in(Answer::Jobs(jobs), moment(120), moment(120));
        play.show(120, false, fate);
        let is_deletion = matches!(play.quiet_until(120, 121), Some((_, Step::Delete(_))));
        assert_eq!(is_deletion, !is_kept, "{job:?} {fate:?}");
    }
    // A Job of that name which is another one's does not count.
    let mut play = Play::held();
    assert_eq!(play.quiet_until(1, 200), Some((120, Step::ListJobs)));
    let other = ListedJob { owner: Uid::from("other"), ..listed(1, true) };
    play.state.take_in(Answer::Jobs(vec![other]), moment(120), moment(120));
    play.step(120, Step::Delete(Uid::from("s")));
}

#[test]
fn a_start_that_is_tried_again_is_not_let_go() {
    let mut play = Play::held();
    // Between the list and its answer.
    assert_eq!(play.quiet_until(1, 200), Some((120, Step::ListJobs)));
    play.need(121, 1);
    play.state.take_in(Answer::Jobs(vec![]), moment(120), moment(122));
    play.show(122, false, Fate::Waiting);
    // Before the list.
    for at in [200, 300, 400] {
        assert_eq!(play.quiet_until(123, at), None);
        play.need(at, 1);
    }
}

#[test]
fn a_list_allows_a_deletion_for_a_short_time_only() {
    type Happens = fn(&mut Play);
    let cases: [(&str, Happens); 3] = [
        ("a start", |play| play.need(42, 2)),
        ("the index", |play| play.show(42, true, Fate::Judged)),
        // Or the machine has slept.
        ("time", |_| {}),
    ];
    for (what, happens) in cases {
        let mut play = Play::held();
        play.show(10, false, Fate::Judged);
        play.answer(40, Step::ListJobs, Answer::Jobs(vec![]));
        happens(&mut play);
        let step = play.state.step(moment(50));
        assert_eq!(step, if what == "time" { Step::ListJobs } else { Step::Look }, "{what}");
    }
    let mut play = Play::held();
    play.show(10, false, Fate::Judged);
    play.answer(40, Step::ListJobs, Answer::Jobs(vec![]));
    play.step(49, Step::Delete(Uid::from("s")));
}

#[test]
fn nothing_is_deleted_before_the_index_is_in() {
    let mut play = Play::held();
    play.state.observe(Shown::default(), &|_| Fate::Judged, moment(10));
    assert_eq!(play.quiet_until(10, 500), None);
    play.show(500, false, Fate::Judged);
    play.step(500, Step::ListJobs);
}

#[test]
fn a_start_during_the_deletion_waits_and_has_it_made_anew() {
    for (answer, next) in [
        (Answer::Deleted, Step::Create("a".to_owned())),
        // Another Secret is there by now.
        (Answer::Changed, Step::Look),
    ] {
        let mut play = Play::held();
        play.show(10, false, Fate::Judged);
        play.answer(40, Step::ListJobs, Answer::Jobs(vec![]));
        play.step(40, Step::Delete(Uid::from("s")));
        play.need(41, 2);
        assert_eq!(play.state.readiness("a", moment(41)), Readiness::NotYet);
        play.step(41, Step::Busy);
        play.state.take_in(answer, moment(40), moment(42));
        play.step(42, next);
    }
}

#[test]
fn a_deletion_without_an_answer_is_looked_into_and_listed_for_again() {
    let mut play = Play::held();
    play.show(10, false, Fate::Judged);
    play.answer(40, Step::ListJobs, Answer::Jobs(vec![]));
    play.answer(40, Step::Delete(Uid::from("s")), Answer::Failed);
    play.wait(40, 42);
    play.answer(42, Step::Look, found("s", Some("a")));
    play.answer(42, Step::ListJobs, Answer::Failed);
    play.wait(43, 72);
    assert_eq!(play.quiet_until(43, 72), None, "a list that fails deletes nothing");
    play.answer(72, Step::ListJobs, Answer::Jobs(vec![]));
    play.step(72, Step::Delete(Uid::from("s")));
}

#[test]
fn what_is_deleted_by_somebody_is_made_anew() {
    let mut play = Play::held();
    play.show(1, true, Fate::Waiting);
    play.wait(5, 6);
    play_answers(
        &mut play,
        6,
        &[
            (Step::Look, Answer::Absent),
            (Step::Create("a".to_owned()), Answer::Created { secret: Uid::from("s"), account: "a".to_owned() }),
            (request(), issued(Some(3_600))),
            (store(), stored()),
        ],
    );
    // Deleted and made by somebody else: ours by its annotation, but without a token of ours.
    play.answer(12, Step::Look, found("s2", Some("a")));
    play.step(12, Step::Request { account: "a".to_owned(), secret: Uid::from("s2") });
}

#[test]
fn what_was_deleted_while_the_operator_was_down_is_made_anew_for_a_running_job() {
    let mut play = Play::new();
    play.show(0, true, Fate::Waiting);
    play.obtain(0);
}

/// When a new token is asked for; `version` is what each look finds, and no look makes a start wait.
fn until_request(play: &mut Play, mut at: u64, version: &mut dyn FnMut() -> u64) -> u64 {
    loop {
        match play.state.step(moment(at)) {
            Step::Look => {
                let found = found_at(&version().to_string(), "s", Some("a"));
                play.state.take_in(found, moment(at), moment(at));
                assert_eq!(play.state.readiness("a", moment(at)), Readiness::Ready, "at {at} s");
            }
            Step::Wait(until) => at = (until - START).as_secs(),
            step => {
                assert_eq!(step, request(), "at {at} s");
                return at;
            }
        }
    }
}

#[test]
fn where_somebody_writes_all_the_time_tokens_come_less_and_less_often_until_one_is_left_alone() {
    let mut play = Play::held();
    play.show(1, true, Fate::Waiting);
    let (mut stored, mut version) = (0, 1);
    for (is_written, life) in
        [(true, 60), (true, 120), (true, 240), (true, 480), (true, 600), (true, 600), (false, 1_800), (true, 60), (true, 120)]
    {
        let at = until_request(&mut play, stored + 1, &mut || {
            version += u64::from(is_written);
            version
        });
        assert_eq!(at - stored, life);
        play.state.take_in(issued(Some(3_600)), moment(at), moment(at));
        version += 1;
        play.answer(at, store(), Answer::Stored(ResourceVersion(version.to_string())));
        stored = at;
    }
    // A pause that is longer than half of a token's life does not count.
    let life = |seconds| {
        let mut play = Play::held();
        play.show(1, true, Fate::Waiting);
        (0..4).fold(0, |stored, _| {
            let mut version = stored + 1;
            let at = until_request(&mut play, stored + 1, &mut || {
                version += 1;
                version
            });
            play.state.take_in(issued(Some(seconds)), moment(at), moment(at));
            play.answer(at, store(), Answer::Stored(ResourceVersion(at.to_string())));
            at
        })
    };
    assert_eq!(life(200), 60 + 100 + 100 + 100);
}

#[test]
fn a_secret_that_somebody_wrote_to_gets_a_new_token_but_not_more_than_one_a_minute() {
    let mut play = Play::held();
    play.show(6, true, Fate::Waiting);
    play.answer(6, Step::Look, found_at("2", "s", Some("a")));
    assert_eq!(play.state.readiness("a", moment(59)), Readiness::Ready, "it may be as it was");
    for at in [12, 18, 24, 30, 36, 42, 48, 54] {
        play.answer(at, Step::Look, found_at("3", "s", Some("a")));
    }
    assert_eq!(play.state.readiness("a", moment(60)), Readiness::Ready, "a start does not wait for the new one");
    play_answers(&mut play, 60, &[(request(), issued(Some(3_600))), (store(), Answer::Stored(ResourceVersion::from("4")))]);
    for at in [66, 72] {
        play.answer(at, Step::Look, found_at("4", "s", Some("a")));
    }
    play.answer(180, Step::Look, found_at("5", "s", Some("a")));
    play.step(180, request());
}

#[test]
fn adoption_is_tried_again_and_renews_at_once_whatever_the_clocks_say() {
    let mut play = Play::new();
    play.show(0, true, Fate::Waiting);
    play.answer(0, Step::Look, Answer::Failed);
    play.wait(0, 2);
    play.answer(2, Step::Look, Answer::Failed);
    play.wait(2, 6);
    play_answers(&mut play, 6, &[(Step::Look, found("s", Some("a"))), (request(), issued(Some(3_600))), (store(), stored())]);
    assert_eq!(play.quiet_until(6, 1_806), None, "and then at half of its life");
    play.step(1_806, request());
}

#[test]
fn a_look_that_fails_is_repeated_soon_and_other_failures_back_off() {
    let mut play = Play::held();
    play.show(0, true, Fate::Waiting);
    let mut at = 6;
    for wait in [2, 4, 6, 6, 6] {
        play.answer(at, Step::Look, Answer::Failed);
        play.wait(at, at + wait);
        at += wait;
    }
    let mut play = Play::new();
    play.show(0, true, Fate::Waiting);
    let mut at = 0;
    for wait in [2, 4, 8, 16, 32, 60, 60] {
        play.answer(at, Step::Look, found("s", Some("a")));
        play.answer(at, request(), Answer::Failed);
        assert_eq!(play.quiet_until(at, at + wait), None, "only looks");
        at += wait;
        if matches!(play.state.known, Known::Empty(_)) {
            // The last look has just been; it need not be repeated.
            play.state.known = Known::Unknown;
        }
    }
    // A good look does not make it forget, a stored token does.
    play_answers(&mut play, at, &[(Step::Look, found("s", Some("a"))), (request(), issued(None)), (store(), stored())]);
    play.answer(at + 6, Step::Look, Answer::Absent);
    play.answer(at + 6, Step::Create("a".to_owned()), Answer::Failed);
    play.wait(at + 6, at + 8);
}

#[test]
fn what_is_left_over_and_not_used_is_removed_and_failures_there_are_rare() {
    let mut play = Play::new();
    play.show(0, false, Fate::Waiting);
    let mut at = 0;
    for wait in [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
        play.answer(at, Step::Look, Answer::Failed);
        play.wait(at, at + wait);
        at += wait;
    }
    play.answer(at, Step::Look, found("s", Some("a")));
    play.answer(at, Step::ListJobs, Answer::Jobs(vec![]));
    play.answer(at, Step::Delete(Uid::from("s")), Answer::Deleted);
    play.step(at, Step::Over);
    for nothing in [Answer::Absent, found("s", None)] {
        let mut play = Play::new();
        play.show(0, false, Fate::Waiting);
        play.answer(0, Step::Look, nothing);
        play.step(0, Step::Over);
    }
}

#[test]
fn life_is_counted_from_the_question() {
    let mut play = Play::new();
    play.show(0, true, Fate::Waiting);
    play.answer(0, Step::Look, found("s", Some("a")));
    play.step(1, request());
    play.state.take_in(issued(Some(600)), moment(1), moment(11));
    play.answer(15, store(), stored());
    assert_eq!(play.quiet_until(15, 4_000), Some((301, request())));
}

#[test]
fn while_a_renewal_fails_runs_start_with_the_former_token_as_long_as_it_is_good() {
    // What was made for an account that is gone is worth nothing.
    let cases = [("request", Answer::Failed, 2_700), ("store", Answer::Failed, 2_700), ("request", Answer::NoAccount, 1_800)];
    for (failing, answer, until) in cases {
        let (mut play, mut failed, mut at) = (Play::held(), 0, 1_800);
        play.show(0, true, Fate::Waiting);
        assert_eq!(play.quiet_until(0, 1_800), None);
        while play.state.readiness("a", moment(at)) == Readiness::Ready {
            let step = play.state.step(moment(at));
            failed += usize::from(step.name() == failing);
            if let Step::Wait(later) = step {
                at = (later - START).as_secs().max(at + 1);
                continue;
            }
            let answer = match step {
                step if step.name() == failing => answer.clone(),
                Step::Look => found("s", Some("a")),
                _ => issued(Some(3_600)),
            };
            play.state.take_in(answer, moment(at), moment(at));
        }
        assert!((until..until + 60).contains(&at), "{failing}: until {at} s");
        assert!(failed < 25 && (failed > 9 || until == 1_800), "{failing}: {failed} times");
    }
}

#[test]
fn a_renewal_by_another_operator_is_no_reason_for_one_of_ours() {
    let mut play = Play::held();
    play.show(0, true, Fate::Waiting);
    // Whatever the look finds besides UID and account is not asked for.
    assert_eq!(play.quiet_until(0, 1_800), None);
}

#[test]
fn anothers_secret_is_left_alone_and_looked_at_again() {
    let mut play = Play::new();
    play.need(0, 1);
    play.answer(0, Step::Look, found("s", None));
    assert_eq!(play.state.readiness("a", moment(0)), Readiness::Foreign);
    play.wait(0, 60);
    // The next start looks itself.
    play.need(3, 1);
    play.answer(3, Step::Look, found("s", None));
    play.answer(63, Step::Look, found("s", Some("a")));
    play.step(63, request());
    // Ours before: somebody took the annotation off.
    let mut play = Play::held();
    play.show(0, true, Fate::Waiting);
    play.answer(6, Step::Look, found("s", None));
    play.wait(6, 66);
    play.show(10, false, Fate::Judged);
    play.step(10, Step::Over);
}

#[test]
fn starts_that_come_together_share_a_failure() {
    let mut play = Play::new();
    play.need(0, 1);
    play.answer(0, Step::Look, Answer::Failed);
    play.need(1, 2);
    play.wait(1, 2);
    play.answer(2, Step::Look, Answer::Failed);
    // Long after, a start does not wait for the backoff.
    play.need(4, 2);
    play.step(4, Step::Look);
}

#[test]
fn a_secret_that_changes_under_a_step_is_looked_at_again_but_not_in_circles() {
    let mut play = Play::new();
    play.need(0, 1);
    play.answer(0, Step::Look, Answer::Absent);
    play.answer(0, Step::Create("a".to_owned()), Answer::Changed);
    play.answer(0, Step::Look, found("s", Some("a")));
    play.answer(0, request(), Answer::Changed);
    play.wait(0, 4);
    play.answer(4, Step::Look, Answer::Absent);
}

#[test]
fn the_namespaces_account_is_followed_and_the_last_one_kept_when_it_names_none() {
    let mut play = Play::held();
    let shown = |account: Option<&str>| Shown { is_in: true, is_running: true, account: account.map(str::to_owned) };
    play.state.observe(shown(None), &|_| Fate::Waiting, moment(1));
    assert_eq!(play.quiet_until(1, 1_800), None);
    play.state.observe(shown(Some("b")), &|_| Fate::Waiting, moment(1_000));
    play.step(1_000, Step::Request { account: "b".to_owned(), secret: Uid::from("s") });
    // After a restart without a label: what the Secret says.
    let mut play = Play::new();
    play.state.observe(shown(None), &|_| Fate::Waiting, moment(0));
    play.answer(0, Step::Look, Answer::Absent);
    play.wait(0, 6);
    let mut play = Play::new();
    play.state.observe(shown(None), &|_| Fate::Waiting, moment(0));
    play.answer(0, Step::Look, found("s", Some("a")));
    play.step(0, request());
}

#[test]
fn a_token_is_not_printed() {
    let mut play = Play::new();
    play.need(0, 1);
    play.answer(0, Step::Look, found("s", Some("a")));
    let token = Token("canary".to_owned());
    play.answer(0, request(), Answer::Issued { token, seconds: None, expires: String::new() });
    let step = play.state.step(moment(0));
    assert!(matches!(&step, Step::Store { token, .. } if token.0 == "canary"));
    assert!(!format!("{step:?} {:?}", play.state).contains("canary"));
}

/// A running Job's namespace where this step has failed so often that the next try is a minute away; the second of the last failure.
fn in_long_backoff(failing: &Step) -> (Play, u64) {
    let mut play = Play::new();
    play.show(0, true, Fate::Waiting);
    for at in 0..1_000 {
        loop {
            let step = play.state.step(moment(at));
            let answer = match &step {
                Step::Wait(_) => break,
                step if step.name() == failing.name() => Answer::Failed,
                Step::Look => found("s", Some("a")),
                Step::Request { .. } => issued(Some(3_600)),
                other => panic!("{other:?}"),
            };
            play.state.take_in(answer, moment(at), moment(at));
            if play.state.retry_at - moment(at) >= RETRY.max {
                return (play, at);
            }
        }
    }
    panic!("no long backoff: {:?}", play.state);
}

#[test]
fn a_backoff_does_not_hide_that_the_secret_was_deleted() {
    for failing in [request(), store()] {
        let (mut play, at) = in_long_backoff(&failing);
        let until = loop_until_look(&mut play, at);
        assert!(until - at <= LOOK.as_secs(), "{failing:?}: {} s", until - at);
        play.state.take_in(Answer::Absent, moment(until), moment(until));
        play.answer(until, Step::Create("a".to_owned()), Answer::Created { secret: Uid::from("s"), account: "a".to_owned() });
        // Once: what fails again backs off again.
        play.answer(until, request(), Answer::Failed);
        let next = loop_until_look(&mut play, until);
        play.state.take_in(found("s", Some("a")), moment(next), moment(next));
        assert!(matches!(play.state.step(moment(next)), Step::Wait(_)), "{:?}", play.state);
        // Deleted and made by somebody else counts as well.
        let next = loop_until_look(&mut play, next);
        play.state.take_in(found("s2", Some("a")), moment(next), moment(next));
        play.step(next, Step::Request { account: "a".to_owned(), secret: Uid::from("s2") });
    }
}

/// When the next look was given out.
fn loop_until_look(play: &mut Play, mut at: u64) -> u64 {
    loop {
        match play.state.step(moment(at)) {
            Step::Wait(until) => at = (until - START).as_secs(),
            Step::Look => return at,
            other => panic!("{other:?} at {at} s"),
        }
    }
}

#[test]
fn a_create_that_fails_again_and_again_backs_off_although_looks_go_on() {
    let mut play = Play::new();
    play.show(0, true, Fate::Waiting);
    let mut creates = Vec::new();
    for at in 0..300 {
        loop {
            let step = play.state.step(moment(at));
            let answer = match step {
                Step::Look => Answer::Absent,
                Step::Create(_) => {
                    creates.push(at);
                    Answer::Failed
                }
                Step::Wait(_) => break,
                other => panic!("{other:?}"),
            };
            play.state.take_in(answer, moment(at), moment(at));
        }
    }
    assert_eq!(creates, [0, 2, 6, 14, 30, 62, 122, 182, 242]);
}

#[test]
fn a_list_that_is_too_slow_to_allow_a_deletion_is_not_repeated_at_once() {
    let mut play = Play::held();
    play.show(10, false, Fate::Judged);
    play.step(40, Step::ListJobs);
    play.state.take_in(Answer::Jobs(vec![]), moment(40), moment(50));
    play.wait(50, 80);
    play.step(80, Step::ListJobs);
}

#[test]
fn a_look_that_fails_changes_nothing_that_is_known_and_any_other_failure_is_looked_into() {
    let mut play = Play::held();
    play.answer(6, Step::Look, Answer::Failed);
    assert_eq!(play.state.readiness("a", moment(6)), Readiness::Ready);
    let mut play = Play::held();
    play.show(0, true, Fate::Waiting);
    assert_eq!(play.quiet_until(0, 2_000), Some((1_800, request())));
    play.state.take_in(Answer::Failed, moment(1_800), moment(1_800));
    // In a renewal the Secret keeps one token or the other; so it is asked for again, and nothing has to be found out.
    assert_eq!(play.state.readiness("a", moment(1_800)), Readiness::Ready);
    play.step(1_802, request());
    let mut play = Play::new();
    play.need(0, 1);
    play.answer(0, Step::Look, found("s", Some("a")));
    play.answer(0, request(), Answer::Failed);
    assert_eq!(play.state.readiness("a", moment(0)), Readiness::NotYet);
    play.step(2, Step::Look);
}
