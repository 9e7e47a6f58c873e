use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(10);

/// With this jitter a wait has its full length.
fn rules(timings: &WatchTimings) -> Rules<'_> {
    Rules { timings, page_limit: 250, jitter: 1.0 }
}

fn listing(limit: Option<u32>, token: Option<&str>, failures: u32) -> Listing {
    Listing { cursor: Cursor { limit, token: token.map(str::to_owned) }, failures }
}

fn watching(progressed: bool, failures: u32) -> Watching {
    Watching { version: "7".into(), progressed, failures }
}

/// Delay in milliseconds, and what follows.
fn waiting(step: Step) -> (u128, WatchState) {
    assert!(!step.publish);
    let WatchState::Waiting(state) = step.state else { panic!("not waiting: {step:?}") };
    (state.delay.as_millis(), state.waited())
}

#[test]
fn pages_are_followed_and_published_only_when_complete() {
    let timings = WatchTimings::default();
    let WatchState::Listing(first) = WatchState::start(250) else { panic!("a watch starts with a list") };
    assert_eq!(first.cursor, Cursor { limit: Some(250), token: None });
    let step = first.page("7".into(), Some("t1".to_owned()), rules(&timings));
    assert!(!step.publish && step.restart.is_none());
    assert_eq!(step.state, WatchState::Listing(listing(Some(250), Some("t1"), 0)));
    let step = listing(Some(250), Some("t1"), 3).page("7".into(), Some(String::new()), rules(&timings));
    assert!(step.publish);
    assert_eq!(step.state, WatchState::Watching(watching(false, 3)), "failures stay until the watch lives");
    let step = listing(Some(250), None, 0).page("".into(), None, rules(&timings));
    assert_eq!(waiting(step).1, WatchState::Listing(listing(Some(250), None, 1)), "no version to watch from");
}

#[test]
fn a_list_that_fails_goes_on_where_it_can() {
    let timings = WatchTimings::default();
    let busy = Failure::Busy { retry_after: Some(Duration::from_secs(5)) };
    let cases = [
        // (failure, cursor then; delay in ms, cursor next)
        (Failure::Interrupted, (Some(250), Some("t")), 800, (Some(250), Some("t"))),
        (Failure::Idle, (Some(250), Some("t")), 800, (Some(250), Some("t"))),
        (Failure::Denied, (Some(250), None), 800, (Some(250), None)),
        (busy, (Some(250), Some("t")), 5500, (Some(250), Some("t"))),
        (Failure::Gone, (Some(250), Some("t")), 800, (None, None)),
        (Failure::Gone, (None, None), 800, (Some(250), None)),
        (Failure::TooLarge, (Some(250), Some("t")), 800, (Some(62), None)),
        (Failure::TooLarge, (Some(62), Some("t")), 800, (Some(20), None)),
        (Failure::TooLarge, (Some(20), None), 800, (Some(20), None)),
        (Failure::TooLarge, (Some(2), None), 800, (Some(2), None)),
        (Failure::TooLarge, (None, None), 800, (Some(250), None)),
        (Failure::Garbled, (Some(250), Some("t")), 800, (Some(250), None)),
        (Failure::Missing, (Some(250), Some("t")), 800, (Some(250), None)),
    ];
    for (failure, (limit, token), delay, (next_limit, next_token)) in cases {
        let step = listing(limit, token, 0).failed(failure, rules(&timings));
        assert_eq!(step.restart, Some(failure.reason()));
        assert_eq!(waiting(step), (delay, WatchState::Listing(listing(next_limit, next_token, 1))), "{failure:?}");
    }
}

#[test]
fn a_watch_that_fails_keeps_its_position_unless_that_is_void() {
    let timings = WatchTimings::default();
    let busy = Failure::Busy { retry_after: Some(Duration::from_secs(120)) };
    let resumes = |failures| WatchState::Watching(watching(false, failures));
    let relists = |failures| WatchState::Listing(listing(Some(250), None, failures));
    let cases = [
        // (failure, progressed, failures then, lived; delay in ms, next)
        (Failure::Interrupted, false, 0, SHORT, 800, resumes(1)),
        (Failure::Interrupted, false, 4, SHORT, 12_800, resumes(5)),
        (Failure::Interrupted, true, 4, SHORT, 6400, resumes(4)),
        (Failure::Interrupted, true, 4, LONG, 800, resumes(1)),
        (Failure::Idle, false, 4, LONG, 800, resumes(1)),
        (Failure::Denied, false, 1, Duration::ZERO, 1600, resumes(2)),
        (busy, false, 0, Duration::ZERO, 132_000, resumes(1)),
        (Failure::Busy { retry_after: None }, false, 1, Duration::ZERO, 1600, resumes(2)),
        (Failure::Gone, false, 0, Duration::ZERO, 800, relists(1)),
        (Failure::Gone, true, 4, SHORT, 12_800, relists(5)),
        (Failure::Gone, true, 4, LONG, 800, relists(1)),
        (Failure::Missing, false, 2, Duration::ZERO, 3200, relists(3)),
        (Failure::Garbled, true, 0, LONG, 800, relists(1)),
        (Failure::TooLarge, true, 0, LONG, 800, relists(1)),
    ];
    for (failure, progressed, failures, lived, delay, next) in cases {
        let step = watching(progressed, failures).failed(failure, lived, rules(&timings));
        assert_eq!(step.restart, Some(failure.reason()));
        assert_eq!(waiting(step), (delay, next), "{failure:?}, {failures} failures, lived {lived:?}");
    }
}

#[test]
fn a_clean_end_resumes_at_once_only_after_a_life() {
    let timings = WatchTimings::default();
    for progressed in [false, true] {
        let step = watching(progressed, 3).ended(LONG, rules(&timings));
        assert_eq!((step.restart, step.notice), (Some("ended"), Some(Notice::Recovered(3))));
        assert_eq!(step.state, WatchState::Watching(watching(false, 0)));
    }
    let step = watching(false, 3).ended(SHORT, rules(&timings));
    assert_eq!(step.restart, Some("closed-early"));
    assert_eq!(waiting(step), (6400, WatchState::Watching(watching(false, 4))));
    assert_eq!(waiting(watching(true, 0).ended(SHORT, rules(&timings))), (800, WatchState::Watching(watching(false, 1))));
    assert_eq!(waiting(watching(true, 1).ended(SHORT, rules(&timings))), (800, WatchState::Watching(watching(false, 1))));
}

#[test]
fn progress_moves_the_position_and_a_life_ends_the_failures() {
    let timings = WatchTimings::default();
    let cases = [
        (Some("8"), SHORT, 2, ("8", 2, None)),
        (Some("8"), LONG, 2, ("8", 0, Some(Notice::Recovered(2)))),
        (Some("8"), LONG, 0, ("8", 0, None)),
        (None, SHORT, 0, ("7", 0, None)),
        (Some(""), SHORT, 0, ("7", 0, None)),
    ];
    for (version, lived, failures, (next, left, notice)) in cases {
        let (state, told) = watching(false, failures).progress(version.map(Into::into), lived, rules(&timings));
        assert_eq!((state, told), (Watching { version: next.into(), progressed: true, failures: left }, notice));
    }
}

#[test]
fn waits_grow_to_a_limit_and_are_spread() {
    let timings = WatchTimings::default();
    let delay = |failures, jitter, asked: Option<u64>| {
        Rules { timings: &timings, page_limit: 1, jitter }.delay(failures, asked.map(Duration::from_secs)).as_millis()
    };
    let cases = [
        (1, 0.0, None, 400),
        (1, 1.0, None, 800),
        (2, 0.5, None, 1200),
        (6, 1.0, None, 25_600),
        (7, 1.0, None, 30_000),
        (u32::MAX, 0.0, None, 15_000),
        (1, 0.0, Some(2), 2000),
        (7, 1.0, Some(2), 30_000),
    ];
    for (failures, jitter, asked, expected) in cases {
        assert_eq!(delay(failures, jitter, asked), expected, "{failures} failures, jitter {jitter}, asked {asked:?}");
    }
}

#[test]
fn failures_are_told_at_first_and_then_now_and_again() {
    let timings = WatchTimings::default();
    let told: Vec<_> =
        (0..30).filter_map(|failures| watching(false, failures).failed(Failure::Denied, Duration::ZERO, rules(&timings)).notice).collect();
    assert_eq!(told, [1, 10, 20, 30].map(Notice::Failing));
}

#[test]
fn a_server_that_lists_but_never_watches_is_asked_ever_less() {
    let timings = WatchTimings::default();
    let mut state = WatchState::start(250);
    let mut delays = Vec::new();
    while delays.len() < 8 {
        state = match state {
            WatchState::Listing(listing) => listing.page("7".into(), None, rules(&timings)).state,
            WatchState::Watching(watching) => {
                // One event, then "gone".
                let (watching, _) = watching.progress(Some("8".into()), SHORT, rules(&timings));
                watching.failed(Failure::Gone, SHORT, rules(&timings)).state
            }
            WatchState::Waiting(waiting) => {
                delays.push(waiting.delay.as_millis());
                waiting.waited()
            }
        };
    }
    assert_eq!(delays, [800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000]);
}

#[test]
fn a_list_that_is_asked_for_begins_anew_but_skips_no_wait() {
    let fresh = || WatchState::Listing(listing(Some(250), None, 3));
    for (state, expected) in [
        (WatchState::Watching(watching(true, 3)), fresh()),
        (WatchState::Listing(listing(Some(250), Some("t"), 3)), fresh()),
        // It has not begun. What was learned of its size stays true.
        (WatchState::Listing(listing(Some(62), None, 3)), WatchState::Listing(listing(Some(62), None, 3))),
    ] {
        assert_eq!(state.list_again(250), expected);
    }
    let timings = WatchTimings::default();
    let waiting = watching(true, 0).failed(Failure::Interrupted, LONG, rules(&timings)).state.list_again(250);
    let WatchState::Waiting(waiting) = waiting else { panic!("{waiting:?}") };
    assert_eq!((waiting.delay.as_millis(), waiting.waited()), (800, WatchState::Listing(listing(Some(250), None, 1))));
}
