//! Random sequences over the real decisions and a small model of the API server: whatever users, others, the watches and the network do,
//! each trigger leads to one run, and when all of it stops everything comes to its end.
//!
//! A failure prints its seed and the shortest sequence found. `QUARKS_MODEL_SEED` sets the first seed, `QUARKS_MODEL_SEQUENCES` how many;
//! with one sequence its actions are printed. What is checked is in `ledger`.

#[cfg(test)]
mod actor;
#[cfg(test)]
mod acts;
#[cfg(test)]
mod ledger;
#[cfg(test)]
mod patches;
#[cfg(test)]
mod steps;
#[cfg(test)]
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::planted::{Defect, plant};

use self::actor::Operator;
use self::acts::{Act, key, sequence};
use self::ledger::Seen;
use self::world::{Faults, World};
use super::claims::Controller;

/// Sequences of the test.
const SEQUENCES: u64 = 100_000;
/// The first seed.
const SEED: u64 = 20_261_125;
/// In one of so many the bodies of requests are checked too.
const THOROUGH_EVERY: u64 = 64;
/// Rounds until all is quiet, at most. Pauses are over in each.
const ROUNDS_MAX: u32 = 40;

fn perform(world: &mut World, operators: &mut [Operator], act: &Act) {
    let at = |operator: &u8| usize::from(*operator);
    match act {
        Act::Deliver { operator, is_job, events } => operators[at(operator)].deliver(world, *is_job, usize::from(*events)),
        Act::Relist { operator, is_job } => operators[at(operator)].relist(world, *is_job),
        Act::Work { operator, is_job, key: of, steps } => {
            let controller = if *is_job { Controller::Job } else { Controller::Errand };
            operators[at(operator)].work(world, controller, &key(*of), u32::from(*steps));
        }
        Act::Run(operator) => operators[at(operator)].run(world),
        Act::Restart(operator) => operators[at(operator)].restart(world),
        others => others.clone().act(world),
    }
}

/// All faults stop, what runs ends, and time goes on until nobody writes any more.
fn quieten(world: &mut World, operators: &mut [Operator]) {
    world.faults = Faults::default();
    for at in 0..2 {
        world.change(&key(at), |object| object.spec["suspend"] = false.into());
        if world.quarks_jobs.get(&key(at)).is_some_and(|stored| stored.object.metadata.deletion_timestamp.is_some()) {
            world.remove(&key(at));
        }
    }
    world.remove_foreign_jobs();
    world.let_arrive();
    let mut quiet = 0;
    for round in 0..ROUNDS_MAX {
        let writes = world.writes;
        for operator in &mut *operators {
            operator.run(world);
        }
        world.collect_garbage();
        world.end_all_jobs(round % 2 == 0);
        world.pass(700);
        quiet = if world.writes == writes { quiet + 1 } else { 0 };
        if world.ledger.violation.is_some() || quiet == 2 {
            break;
        }
    }
    if quiet < 2 {
        world.ledger.fail("E5", || format!("still writing after {ROUNDS_MAX} rounds"));
    }
    world.check_the_end();
}

/// Returns what was broken first.
fn run(acts: &[Act], base: Instant, is_thorough: bool) -> Result<Seen, String> {
    let mut world = World::new(base);
    world.is_thorough = is_thorough;
    let uses_second = acts.iter().any(|act| {
        matches!(
            act,
            Act::Deliver { operator: 1, .. }
                | Act::Relist { operator: 1, .. }
                | Act::Work { operator: 1, .. }
                | Act::Run(1)
                | Act::Restart(1)
        )
    });
    let mut operators: Vec<Operator> = (0..if uses_second { 2 } else { 1 }).map(|number| Operator::new(number, &world)).collect();
    world.ledger.only_life = (!uses_second).then_some(0);
    for act in acts {
        perform(&mut world, &mut operators, act);
        if world.ledger.violation.is_some() {
            break;
        }
    }
    if world.ledger.violation.is_none() {
        quieten(&mut world, &mut operators);
    }
    let seen = world.ledger.seen();
    world.ledger.violation.map_or(Ok(seen), Err)
}

/// Leaves out what is not needed for a failure.
fn shrink(mut acts: Vec<Act>, base: Instant) -> Vec<Act> {
    loop {
        let shorter = (0..acts.len()).rev().find_map(|at| {
            let mut fewer = acts.clone();
            fewer.remove(at);
            run(&fewer, base, true).is_err().then_some(fewer)
        });
        match shorter {
            Some(fewer) => acts = fewer,
            None => return acts,
        }
    }
}

fn describe(seed: u64, base: Instant) -> String {
    let acts = shrink(sequence(seed), base);
    let broken = run(&acts, base, true).err().unwrap_or_default();
    let lines: Vec<String> = acts.iter().map(|act| format!("  {act:?}")).collect();
    format!("seed {seed}: {broken}\n{}", lines.join("\n"))
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn each_trigger_leads_to_one_run_and_everything_comes_to_its_end() {
    let (first, count) = (setting("QUARKS_MODEL_SEED", SEED), setting("QUARKS_MODEL_SEQUENCES", SEQUENCES));
    println!("seeds {first} to {}", first + count);
    let (base, next) = (Instant::now(), AtomicU64::new(0));
    let all = Mutex::new(Seen::default());
    let work = || {
        let mut failures = Vec::new();
        while failures.is_empty() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= count {
                break;
            }
            if count == 1 {
                sequence(first).iter().for_each(|act| println!("  {act:?}"));
            }
            match run(&sequence(first + at), base, at % THOROUGH_EVERY == 0) {
                Ok(seen) => all.lock().expect("no thread has panicked").add(seen),
                Err(_) => failures.push(describe(first + at, base)),
            }
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a sequence has panicked")).collect()
    });
    let seen = all.into_inner().expect("no thread has panicked");
    println!("{count} sequences in {:?}: {seen:?}", base.elapsed());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let Seen { runs, cancelled, strays, doubtful } = seen;
    let is_telling = runs > count && cancelled > count / 20 && strays > count / 1_000 && doubtful < count / 6;
    assert!(count < 1_000 || is_telling, "the sequences do not do what they are for: {seen:?}");
}

/// Sequences until a planted defect is found, at most.
const FOUND_WITHIN: u64 = 40_000;

fn finds(defect: Defect) {
    let (first, base) = (setting("QUARKS_MODEL_SEED", SEED), Instant::now());
    plant(Some(defect));
    let found = (0..FOUND_WITHIN).find(|at| run(&sequence(first + at), base, false).is_err());
    let what = found.map(|at| describe(first + at, base));
    plant(None);
    match what {
        Some(what) => println!("{defect:?} found after {} sequences, {what}", found.unwrap_or_default() + 1),
        None => panic!("{defect:?} is not found within {FOUND_WITHIN} sequences from seed {first}"),
    }
}

macro_rules! planted_defects_are_found {
    ($($test:ident: $defect:ident,)*) => {$(
        #[test]
        fn $test() {
            finds(Defect::$defect);
        }
    )*};
}

planted_defects_are_found! {
    memory_of_another_uid_is_found: MemoryOfAnotherUid,
    a_namespace_that_is_not_asked_is_found: NamespaceNotAsked,
    a_status_of_another_uid_is_found: StatusOfAnotherUid,
    a_restored_request_is_found: RestoredRequest,
    a_lost_annotation_is_found: RunAnnotationLost,
    a_record_of_another_run_is_found: RecordOfAnotherRun,
    an_ignored_copy_of_the_marker_is_found: MarkerCopyIgnored,
    a_marker_that_is_not_copied_is_found: MarkerNotCopied,
    a_stray_that_does_not_come_first_is_found: StrayNotFirst,
    a_started_run_that_is_not_asked_is_found: StartedNotAsked,
    an_active_run_that_is_not_asked_is_found: ActiveNotAsked,
    a_key_in_both_hands_at_once_is_found: TwoHands,
    a_hand_over_that_is_lost_is_found: HandOverLost,
}
