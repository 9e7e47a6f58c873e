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
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use self::actor::Operator;
use self::acts::{Act, key, sequence};
use self::ledger::Seen;
use self::world::{Faults, World};
use super::planted::{Defect, plant};

/// Sequences of the test.
const SEQUENCES: u64 = 100_000;
/// The first seed.
const SEED: u64 = 20_261_125;
/// Rounds until all is quiet, at most. Pauses are over in each.
const ROUNDS_MAX: u32 = 40;

fn perform(world: &mut World, operators: &mut [Operator; 2], act: &Act) {
    let at = |operator: &u8| usize::from(*operator);
    match act {
        Act::Deliver { operator, is_job, events } => operators[at(operator)].deliver(world, *is_job, usize::from(*events)),
        Act::Relist { operator, is_job } => operators[at(operator)].relist(world, *is_job),
        Act::Work { operator, key: of, steps } => _ = operators[at(operator)].work(world, &key(*of), u32::from(*steps)),
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

/// Gives what was broken first.
fn run(acts: &[Act], base: Instant) -> Result<Seen, String> {
    let mut world = World::new(base);
    let mut operators = [Operator::new(0, &world), Operator::new(1, &world)];
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
    world.ledger.only_life = (!uses_second).then_some(0);
    for act in acts {
        perform(&mut world, &mut operators, act);
        if world.ledger.violation.is_some() {
            break;
        }
    }
    if world.ledger.violation.is_none() {
        quieten(&mut world, &mut operators[..if uses_second { 2 } else { 1 }]);
    }
    world.ledger.violation.map_or(Ok(world.ledger.seen), Err)
}

/// Leaves out what is not needed for a failure.
fn shrink(mut acts: Vec<Act>, base: Instant) -> Vec<Act> {
    loop {
        let shorter = (0..acts.len()).rev().find_map(|at| {
            let mut fewer = acts.clone();
            fewer.remove(at);
            run(&fewer, base).is_err().then_some(fewer)
        });
        match shorter {
            Some(fewer) => acts = fewer,
            None => return acts,
        }
    }
}

fn describe(seed: u64, base: Instant) -> String {
    let acts = shrink(sequence(seed), base);
    let broken = run(&acts, base).err().unwrap_or_default();
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
    let [runs, cancelled, strays] = [(); 3].map(|()| AtomicU64::new(0));
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
            match run(&sequence(first + at), base) {
                Ok(seen) => {
                    runs.fetch_add(seen.runs, Ordering::Relaxed);
                    cancelled.fetch_add(seen.cancelled, Ordering::Relaxed);
                    strays.fetch_add(seen.strays, Ordering::Relaxed);
                }
                Err(_) => failures.push(describe(first + at, base)),
            }
        }
        failures
    };
    let failures: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a sequence has panicked")).collect()
    });
    println!("{count} sequences in {:?}: {runs:?} runs, {cancelled:?} cancelled, {strays:?} strays", base.elapsed());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Sequences until a planted defect is found, at most.
const FOUND_WITHIN: u64 = 5_000;

fn finds(defect: Defect) {
    let (first, base) = (setting("QUARKS_MODEL_SEED", SEED), Instant::now());
    plant(Some(defect));
    let found = (0..FOUND_WITHIN).find(|at| run(&sequence(first + at), base).is_err());
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
}

#[test]
fn zz_bench() {
    let base = Instant::now();
    let mut world = World::new(base);
    acts::Act::Create { key: 0, strategy: crate::api::Strategy::Once, template: 1, request: Some(1), restored: None }.act(&mut world);
    let mut op = Operator::new(0, &world);
    op.run(&mut world);
    world.end_all_jobs(true);
    op.run(&mut world);
    let stored = world.quarks_jobs[&key(0)].clone();
    let time = |what: &str, f: &dyn Fn()| {
        let t = Instant::now();
        for _ in 0..2000 {
            f();
        }
        println!("{what} {:?}", t.elapsed() / 2000);
    };
    println!("{:?}", stored.object);
    time("view", &|| {
        std::hint::black_box(crate::index::QuarksJobView::from(&stored.object));
    });
    time("spec", &|| {
        std::hint::black_box(crate::api::Spec::parse(&stored.object.spec).is_ok());
    });
    time("digest", &|| {
        std::hint::black_box(crate::digest::Digest::of_template(&stored.object.spec["template"]));
    });
    time("marker", &|| {
        std::hint::black_box(super::record::Marker::in_force(&stored.object.metadata, &stored.object.status, None));
    });
    time("own", &|| {
        std::hint::black_box(super::identity::own_status(&stored.object.metadata, &stored.object.status));
    });
    time("name", &|| {
        std::hint::black_box(super::names::job_name("q", &stored.object.metadata.uid, 1));
    });
    time("clone", &|| {
        std::hint::black_box(stored.object.clone());
    });
    time("operators", &|| {
        std::hint::black_box(Operator::new(0, &world));
    });
    time("sequence", &|| {
        std::hint::black_box(sequence(7));
    });
    time("status", &|| {
        std::hint::black_box(super::status::StatusBuilder::new(&stored.view(), &stored.object.status, "t").refused("R", "m"));
    });
}
