//! The state against a small model of the API server and of time: sequences of starts, ends, deletions by hand, silent watches, failures,
//! lost replies, restarts and sleep, from a seed that a failure names.

use std::time::Duration;

use crate::api::{ObjectKey, ResourceVersion, Uid};
use crate::moment::Moment;
use crate::planted::{Defect, plant};
use crate::watch::Jitter;

use super::state::*;

const SEQUENCES: u64 = 500;
/// Ticks of a sequence, of two seconds each.
const TICKS: u64 = 1_500;
const TICK: u64 = 2;
/// A list that took so long allows no deletion.
const CLEAR_AT_MOST: u64 = 20;
/// A token that was stored is not stored again before this, if somebody has overwritten it: the first time, and at most.
const REWRITE_PAUSES: [u64; 2] = [60, 600];
/// Failures make pauses: so long after the last one they are over.
const RECOVERED: u64 = 80;

struct Random(Jitter);

impl Random {
    fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }

    fn below(&mut self, number: u64) -> u64 {
        (self.0.next_factor() * number as f64) as u64
    }
}

struct Secret {
    uid: u64,
    is_ours: bool,
    /// When its token ends, if it has one.
    ends: Option<u64>,
    /// Writes to it.
    version: u64,
    /// When a token was last stored.
    stored: u64,
    /// Somebody else has written to it since.
    is_written: bool,
}

impl Secret {
    fn version(&self) -> ResourceVersion {
        ResourceVersion(self.version.to_string())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Life {
    /// Its start is to come, or was refused.
    NotThere,
    /// A worker waits for the token.
    Waiting,
    /// A worker has the token, and its create is on the way, until then.
    Creating(u64),
    Running,
    Ended,
    /// And settled.
    Judged,
    /// Deleted by somebody, or with its QuarksJob.
    Gone,
}

struct Job {
    run: Run,
    life: Life,
    /// Who made it knows of it in memory.
    is_own: bool,
    /// It made it, a watch showed it or a list had it.
    is_seen: bool,
    has_owner: bool,
}

/// All that is true, and what the watches have shown of it.
struct World {
    now: u64,
    secret: Option<Secret>,
    jobs: Vec<Job>,
    next_uid: u64,
    /// What the index shows: for each Job its life, and whether it has an owner.
    shown: Vec<(Life, bool)>,
    is_silent: bool,
    is_failing: bool,
    /// A create is told that the Secret is there, a look that it is not: a cache that is behind, or somebody who makes and deletes it.
    is_confused: bool,
    /// No more runs come.
    is_ending: bool,
    /// A new run comes in one of so many ticks.
    calm: u64,
    life: u64,
    /// What is counted.
    last_failure: u64,
    missing_since: Option<u64>,
    started: u64,
    requests: u64,
    reasons: u64,
    /// Tokens that something else has written to since one was left alone.
    rewrites: u32,
}

impl World {
    fn at(&self) -> Moment {
        Moment::after_boot(Duration::from_secs(self.now))
    }

    fn is_in_use(&self) -> bool {
        self.jobs.iter().any(|job| matches!(job.life, Life::Creating(_) | Life::Running))
    }

    /// By a Job that the operator can know of.
    fn is_known_in_use(&self) -> bool {
        self.jobs.iter().any(|job| job.is_seen && matches!(job.life, Life::Creating(_) | Life::Running))
    }

    /// A worker comes to start one of the runs.
    fn need(&mut self, state: &mut State, random: &mut Random) {
        let at = self.at();
        if let Some(job) = self.jobs.iter_mut().find(|job| job.is_own && job.life == Life::NotThere && random.one_in(2)) {
            state.need(job.run.clone(), "a", at);
            job.life = Life::Waiting;
        }
    }

    /// Workers that wait see whether the token is there, and create their Jobs.
    fn create(&mut self, state: &mut State, random: &mut Random) {
        let at = self.at();
        for job in self.jobs.iter_mut().filter(|job| job.life == Life::Waiting) {
            if state.readiness("a", at) == Readiness::Ready {
                state.need(job.run.clone(), "a", at);
                job.life = Life::Creating(self.now + random.below(90));
            }
        }
    }

    fn new_job(&mut self, life: Life, is_own: bool) {
        let number = self.jobs.len() as u64;
        let run = Run { quarks_job: ObjectKey::new("ns", "q"), owner: Uid(number.to_string()), number: 1, job: format!("q-{number}-1") };
        self.jobs.push(Job { run, life, is_own, is_seen: is_own, has_owner: true });
    }

    /// A process before this one, or another operator, sent its create long ago.
    fn others_job(&mut self) {
        self.new_job(Life::Running, false);
    }

    fn new_secret(&mut self, is_ours: bool) -> u64 {
        self.next_uid += 1;
        self.secret = Some(Secret { uid: self.next_uid, is_ours, ends: None, version: 1, stored: 0, is_written: false });
        self.next_uid
    }

    fn watch(&mut self) {
        if !self.is_silent {
            self.jobs.iter_mut().for_each(|job| job.is_seen = true);
            self.shown = self.jobs.iter().map(|job| (job.life, job.has_owner)).collect();
        }
    }

    fn shown_of(&self, run: &Run) -> (Life, bool) {
        let at = self.jobs.iter().position(|job| job.run == *run);
        at.and_then(|at| self.shown.get(at).copied()).unwrap_or((Life::NotThere, true))
    }

    fn observe(&mut self, state: &mut State) {
        self.watch();
        let is_running = self.shown.iter().any(|(life, _)| matches!(life, Life::Running | Life::Ended));
        let shown = Shown { is_in: true, is_running, account: Some("a".to_owned()) };
        let fate = |run: &Run| match self.shown_of(run) {
            (_, false) => Fate::Ownerless,
            (Life::Judged, _) => Fate::Judged,
            _ => Fate::Waiting,
        };
        state.observe(shown, &fate, self.at());
    }

    /// Does the step, or does not, and answers, or does not.
    fn serve(&mut self, step: &Step, random: &mut Random) -> Answer {
        let is_lost = self.is_failing && random.one_in(3);
        if self.is_failing && !is_lost && random.one_in(2) {
            self.last_failure = self.now;
            return Answer::Failed;
        }
        let answer = self.apply(step);
        if is_lost {
            self.last_failure = self.now;
            return Answer::Failed;
        }
        if matches!(answer, Answer::Changed) {
            self.last_failure = self.now;
        }
        answer
    }

    fn apply(&mut self, step: &Step) -> Answer {
        let uid_of = |uid: u64| Uid(uid.to_string());
        match step {
            Step::Look => match &self.secret {
                None => Answer::Absent,
                Some(secret) => {
                    Answer::Found { secret: uid_of(secret.uid), version: secret.version(), account: secret.is_ours.then(|| "a".to_owned()) }
                }
            },
            Step::Create(_) if self.secret.is_some() || self.is_confused => Answer::Changed,
            Step::Create(account) => Answer::Created { secret: uid_of(self.new_secret(true)), account: account.clone() },
            Step::Request { .. } => {
                self.requests += 1;
                Answer::Issued {
                    token: Token(String::new()),
                    seconds: i64::try_from(self.life).ok(),
                    expires: (self.now + self.life).to_string(),
                }
            }
            Step::Store { secret: uid, expires, .. } => match &mut self.secret {
                Some(secret) if uid_of(secret.uid) == *uid => {
                    assert!(secret.is_ours, "another's Secret is not written");
                    let is_left_alone = secret.stored > self.last_failure && !secret.is_written;
                    if is_left_alone && self.now - secret.stored >= self.life.min(3_600) / 2 {
                        self.rewrites = 0;
                    }
                    secret.is_written = false;
                    secret.ends = expires.parse().ok();
                    (secret.version, secret.stored) = (secret.version + 1, self.now);
                    Answer::Stored(secret.version())
                }
                _ => Answer::Changed,
            },
            Step::ListJobs => {
                self.jobs.iter_mut().for_each(|job| job.is_seen = true);
                let there = self.jobs.iter().filter(|job| matches!(job.life, Life::Running | Life::Ended | Life::Judged));
                let listed = |job: &Job| ListedJob {
                    name: job.run.job.clone(),
                    owner: job.run.owner.clone(),
                    is_without_output: false,
                    has_ended: job.life != Life::Running,
                };
                Answer::Jobs(there.map(listed).collect())
            }
            Step::Delete(uid) => {
                assert!(!self.is_in_use(), "deleted at {} s while it is in use", self.now);
                match &self.secret {
                    Some(secret) if uid_of(secret.uid) == *uid => {
                        assert!(secret.is_ours, "another's Secret is not deleted");
                        self.secret = None;
                        Answer::Deleted
                    }
                    Some(_) => Answer::Changed,
                    None => Answer::Deleted,
                }
            }
            Step::Wait(_) | Step::Busy | Step::Over => panic!("{step:?} is no call"),
        }
    }

    /// Carries out what is due; calls take time now and then.
    fn drive(&mut self, state: &mut State, random: &mut Random) -> bool {
        let mut is_slow = false;
        for _ in 0..20 {
            let step = state.step(self.at());
            match step {
                Step::Wait(until) => {
                    assert!(until > self.at(), "a wait that is over");
                    return true;
                }
                Step::Over => return false,
                Step::Busy => panic!("nothing is on its way"),
                _ => {}
            }
            let sent = self.at();
            let answer = self.serve(&step, random);
            if !is_slow && random.one_in(if step == Step::ListJobs { 2 } else { 10 }) {
                is_slow = true;
                self.now += 1;
                self.need(state, random);
                self.create(state, random);
                if step == Step::ListJobs && !self.is_ending && random.one_in(2) {
                    self.now += CLEAR_AT_MOST;
                    self.started = self.now;
                    self.others_job();
                }
                if matches!(step, Step::Delete(_)) {
                    assert_ne!(state.readiness("a", self.at()), Readiness::Ready, "it is about to be deleted");
                }
            }
            state.take_in(answer, sent, self.at());
        }
        panic!("it never waits: {state:?}");
    }

    /// Of others and of workers. Most do not happen.
    fn happen(&mut self, state: &mut State, random: &mut Random) {
        if random.one_in(self.calm) {
            self.new_job(Life::NotThere, true);
        }
        self.create(state, random);
        for at in 0..self.jobs.len() {
            let job = &mut self.jobs[at];
            match job.life {
                Life::Waiting if random.one_in(5) => job.life = Life::NotThere,
                Life::Creating(until) if self.now >= until => job.life = if random.one_in(3) { Life::NotThere } else { Life::Running },
                Life::Running if random.one_in(60) => job.life = Life::Ended,
                Life::Running if random.one_in(500) => job.life = Life::Gone,
                Life::NotThere | Life::Ended if random.one_in(300) => {
                    job.has_owner = false;
                    job.life = if job.life == Life::Ended { Life::Gone } else { job.life };
                }
                // Who judges sees what the index shows.
                Life::Ended if self.shown.get(at).is_some_and(|(life, _)| *life == Life::Ended) && random.one_in(3) => {
                    job.life = Life::Judged;
                }
                _ => {}
            }
        }
        if random.one_in(15) {
            self.need(state, random);
        }
        if random.one_in(150) && self.secret.as_ref().is_some_and(|secret| secret.is_ours) {
            self.secret = None;
            self.reasons += 1;
            // Right after the last look, at worst.
            self.missing_since = self.is_known_in_use().then_some(self.now - TICK);
        }
        if let Some(secret) = self.secret.as_mut().filter(|secret| secret.is_ours && random.one_in(200)) {
            // Somebody writes into it, over the token or beside it.
            secret.version += 1;
            secret.ends = secret.ends.filter(|_| random.one_in(2));
            self.rewrites += u32::from(!std::mem::replace(&mut secret.is_written, true));
            self.reasons += 1;
        }
        if random.one_in(400) {
            self.is_silent = !self.is_silent;
        }
        if random.one_in(if self.is_failing { 20 } else { 300 }) {
            self.is_failing = !self.is_failing;
        }
        if random.one_in(if self.is_confused { 10 } else { 300 }) {
            self.is_confused = !self.is_confused;
        }
        if random.one_in(700) {
            // The machine sleeps; nobody does anything in the meantime.
            self.now += random.below(10_000);
            self.started = self.now;
            // No connection lives that long.
            self.jobs.iter_mut().filter(|job| matches!(job.life, Life::Creating(_))).for_each(|job| job.life = Life::NotThere);
        }
    }

    fn check(&mut self) {
        let is_recovered = !self.is_failing && self.now - self.last_failure > RECOVERED && self.now - self.started > 10;
        let is_good = self.secret.as_ref().is_some_and(|secret| secret.ends.is_some_and(|ends| ends > self.now));
        self.missing_since = if !self.is_known_in_use() || is_good { None } else { self.missing_since.or(Some(self.now)) };
        if let Some(since) = self.missing_since.filter(|_| is_recovered) {
            // A token that is overwritten right after it was stored waits for a minute, and longer if that happens again and again.
            let overwritten = self.secret.as_ref().filter(|secret| secret.stored > 0 && secret.ends.is_none());
            let [first, most] = REWRITE_PAUSES;
            let pause = (first << self.rewrites.saturating_sub(1).min(31)).min(most);
            let since = overwritten.map_or(since, |secret| since.max(secret.stored + pause));
            // What happens within a tick happens at its end here.
            assert!(self.now <= since + 10 - TICK, "no good token since {since} s, now {} s", self.now);
        }
    }
}

impl World {
    fn new(random: &mut Random) -> Self {
        let mut world = Self {
            now: 100_000,
            secret: None,
            jobs: Vec::new(),
            next_uid: 0,
            shown: Vec::new(),
            is_silent: false,
            is_failing: false,
            is_confused: false,
            is_ending: false,
            calm: [40, 400][random.below(2) as usize],
            life: [60, 600, 3_600, 86_400][random.below(4) as usize],
            last_failure: 0,
            missing_since: None,
            started: 0,
            requests: 0,
            reasons: 1,
            rewrites: 0,
        };
        if random.one_in(3) {
            // An earlier process left it.
            world.new_secret(true);
        }
        world
    }

    /// The operator starts again: nothing is remembered, and the lists are fresh.
    fn restart(&mut self) {
        (self.is_silent, self.started) = (false, self.now);
        for job in &mut self.jobs {
            job.is_own &= matches!(job.life, Life::NotThere | Life::Running | Life::Ended);
            job.life = if matches!(job.life, Life::Waiting | Life::Creating(_)) { Life::Gone } else { job.life };
        }
    }
}

fn play(seed: u64) {
    let mut random = Random(Jitter::new(seed));
    let mut world = World::new(&mut random);
    let begin = world.now;
    let mut state = Some(State::new(0.5, Duration::from_secs(30), world.at()));
    let mut failures = 0;
    for _ in 0..TICKS {
        world.now += TICK;
        if random.one_in(400) {
            state = None;
            world.restart();
        }
        // As the threads do: made for a start, for what the index shows, and now and then for what may be left.
        world.watch();
        let is_shown = world.shown.iter().any(|(life, _)| *life == Life::Running);
        let mut current = match state.take() {
            Some(current) => current,
            None if is_shown || world.jobs.iter().any(|job| job.life == Life::NotThere) || random.one_in(10) => {
                world.reasons += 1;
                State::new(0.5, Duration::from_secs(30), world.at())
            }
            None => continue,
        };
        world.happen(&mut current, &mut random);
        world.observe(&mut current);
        state = world.drive(&mut current, &mut random).then_some(current);
        failures += u64::from(world.is_failing || world.is_confused);
        world.check();
    }
    let lived = (world.now - begin) / (world.life.min(3_600) / 2);
    let most = lived + world.reasons + failures + 2;
    assert!(world.requests <= most, "{} tokens where {most} have a reason", world.requests);
    // All ends, and nothing is left.
    (world.is_failing, world.is_silent, world.is_confused, world.is_ending) = (false, false, false, true);
    world.jobs.iter_mut().for_each(|job| (job.life, job.has_owner, job.is_own) = (Life::Judged, false, false));
    let mut state = state.unwrap_or_else(|| State::new(0.5, Duration::from_secs(30), world.at()));
    for _ in 0..1_000 {
        world.now += TICK;
        world.observe(&mut state);
        world.drive(&mut state, &mut random);
    }
    assert!(world.secret.is_none() && state.step(world.at()) == Step::Over, "{state:?}");
}

#[test]
fn whatever_happens_a_token_is_there_while_it_is_needed_and_gone_in_the_end() {
    let first = std::env::var("TOKEN_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in first.unwrap_or(1)..first.map_or(SEQUENCES, |seed: u64| seed + 1) {
        if std::panic::catch_unwind(|| play(seed)).is_err() {
            panic!("seed {seed}; again: TOKEN_SEED={seed}");
        }
    }
}

#[test]
fn two_operators_do_not_renew_against_each_other() {
    let at = |seconds| Moment::after_boot(Duration::from_secs(seconds));
    let mut states = [(); 2].map(|()| State::new(0.5, Duration::from_secs(30), at(0)));
    let (mut version, mut requests) = (1, 0);
    let name = |version: u64| ResourceVersion(version.to_string());
    for now in 0..7_200 {
        for state in &mut states {
            state.observe(Shown { is_in: true, is_running: true, account: Some("a".to_owned()) }, &|_| Fate::Waiting, at(now));
            loop {
                let answer = match state.step(at(now)) {
                    Step::Look => Answer::Found { secret: Uid::from("s"), version: name(version), account: Some("a".to_owned()) },
                    Step::Request { .. } => Answer::Issued { token: Token(String::new()), seconds: Some(3_600), expires: String::new() },
                    Step::Store { .. } => {
                        (version, requests) = (version + 1, requests + 1);
                        Answer::Stored(name(version))
                    }
                    Step::Wait(_) => break,
                    step => panic!("{step:?}"),
                };
                state.take_in(answer, at(now), at(now));
            }
        }
    }
    assert!(requests <= 40, "{requests} tokens in two hours");
}

/// Each says what goes wrong with it.
#[test]
fn the_model_finds_each_planted_defect() {
    for (defect, says) in [
        (Defect::UsesIgnored, "no good token since"),
        (Defect::AbandonedAtOnce, "while it is in use"),
        (Defect::ChangedNeverBacksOff, "it never waits"),
        (Defect::ListsAreGoodForLong, "while it is in use"),
        (Defect::RareLooks, "no good token since"),
    ] {
        plant(Some(defect));
        let found = (1..SEQUENCES).find_map(|seed| std::panic::catch_unwind(|| play(seed)).err());
        plant(None);
        let found = found.unwrap_or_else(|| panic!("{defect:?} is not found"));
        let message = found.downcast_ref::<String>().map_or("", |message| message);
        assert!(message.contains(says), "{defect:?}: {message}");
    }
}
