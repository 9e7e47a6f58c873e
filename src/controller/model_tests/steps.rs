//! The steps of the two controllers in the model: as the executors in `errand` and `job`, with calls to the model where those call the API
//! server.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::api::{ObjectKey, Outcome, QuarksJobStatus, Strategy};
use crate::contract::reason::Reason;
use crate::contract::record::{Marker, RunRecord};
use crate::controller::job::record::{last_run, recorded_end};
use crate::controller::job::settle::strategy_after;
use crate::controller::shared::decision::Flow;
use crate::controller::shared::memory::{Hold, Known};
use crate::controller::shared::pace::Pause;
use crate::controller::shared::pace::REFUSAL_BACKOFF;
use crate::controller::shared::ready::{Readiness, ready_message};
use crate::controller::shared::stick::lost_field;
use crate::rules::names::job_name;
use crate::rules::template::ttl_seconds;
use crate::rules::verdict::Verdict;
use crate::views::identity::{OwnJob, StartedRun, run_of};
use crate::views::triggers::Pending;
use crate::views::{JobView, QuarksJobView};

use super::actor::{Failed, Worker};
use super::world::{No, Stored};

const UNSEEN_JOB_RETRY: Duration = Duration::from_secs(5);
const SAME_REPORT: Duration = Duration::from_secs(600);

impl Worker<'_> {
    pub fn delete_stray(&mut self, OwnJob { view: job, .. }: &OwnJob) -> Result<Flow, Failed> {
        match self.world.read_job(&job.key)? {
            Some(fresh) if fresh.uid == job.uid && fresh.end.is_none() && !fresh.is_being_deleted => {
                let view = Arc::clone(&self.turn.view);
                self.world.delete_job(&view, &job.key, &fresh.uid, Some(&fresh.resource_version))?;
            }
            _ => {}
        }
        self.memory().ending.strays.push((job.uid.clone(), job.resource_version.clone()));
        Ok(Flow::Continue)
    }

    pub fn start(&mut self, read: &Stored, pending: Pending) -> Result<Flow, Failed> {
        let (key, view) = (self.key, Arc::clone(&self.turn.view));
        let Pending { trigger, strategy, request } = pending;
        let ttl = ttl_seconds(&read.object.spec["template"]);
        let template = Some(view.template_digest.to_string());
        let record = RunRecord { strategy, template, request, ttl, ..RunRecord::of_run(view.marker.runs + 1, trigger) };
        let name = job_name(&key.name, &view.uid, record.run);
        let caller = self.caller(read.version);
        match self.world.create_job(caller, read, &name, &record) {
            Ok(()) => self.remember_start(name, record),
            Err(No::Exists) => self.take_over(&name, record.run),
            Err(no) => Err(Failed::Api(no)),
        }
    }

    pub fn remember_start(&mut self, job_name: String, record: RunRecord) -> Result<Flow, Failed> {
        let caller = self.caller(0);
        self.world.ledger.knows(caller, &self.turn.view.uid, record.run);
        let now = self.world.now;
        let memory = self.memory();
        memory.waiting.hold = None;
        memory.waiting.refusals = 0;
        memory.trouble = 0;
        memory.started = Some(StartedRun { job_name, record, unseen_since: Some(now) });
        Ok(Flow::Continue)
    }

    pub fn take_over(&mut self, name: &str, run: u64) -> Result<Flow, Failed> {
        let job_key = ObjectKey::new(self.key.namespace.clone(), name);
        let Some(job) = self.world.read_job(&job_key)? else { return Err(Failed::Stale) };
        match run_of(&job, &self.turn.view, None).filter(|record| record.run == run) {
            Some(record) => self.remember_start(name.to_owned(), record),
            None => self.refuse(Reason::NameConflict, "is not owned by this QuarksJob"),
        }
    }

    pub fn refuse(&mut self, reason: Reason, message: &str) -> Result<Flow, Failed> {
        let (generation, namespace, now) = (self.turn.view.generation, self.turn.namespace.clone().unwrap_or_default(), self.world.now);
        let waiting = &mut self.memory().waiting;
        waiting.refusals = waiting.refusals.saturating_add(1);
        let wait = REFUSAL_BACKOFF.delay(waiting.refusals, 0.0);
        waiting.hold = Some(Hold { generation, namespace, until: now + wait });
        let status = self.known()?.status;
        let new = self.status(&status).refused(reason, message);
        self.write_status(&status, &new)?;
        Ok(Flow::Wait(wait))
    }

    pub fn record_start(&mut self, OwnJob { view: job, record }: &OwnJob) -> Result<Flow, Failed> {
        let status = self.known()?.status;
        let active = record.active(&self.turn.view.uid, &job.key.name, job.created.clone());
        let new = self.status(&status).running(active, self.ready());
        self.write_status(&status, &new)?;
        Ok(Flow::Continue)
    }

    pub fn settle_vanished(&mut self, job_name: &str, record: &RunRecord) -> Result<Flow, Failed> {
        let since = self.world.version();
        let job_key = ObjectKey::new(self.key.namespace.clone(), job_name);
        if let Some(job) = self.world.read_job(&job_key)?
            && run_of(&job, &Arc::clone(&self.turn.view), self.memory().started.as_ref()).is_some()
        {
            return Ok(Flow::Wait(UNSEEN_JOB_RETRY));
        }
        let verdict = match self.turn.view.last_run {
            Some((run, _)) if run == record.run => self.known()?.status.last_run.map(Verdict::of_last_run).ok_or(Failed::Stale)?,
            Some(_) | None => Verdict::cancelled(job_name),
        };
        self.settle(record, None, verdict, since)
    }

    pub fn settle(&mut self, record: &RunRecord, job: Option<&JobView>, verdict: Verdict, since: u64) -> Result<Flow, Failed> {
        let view = Arc::clone(&self.turn.view);
        let marker = view.marker.after(record, verdict.outcome, &verdict.reason);
        let strategy = strategy_after(&view, record, &marker);
        let is_refused = match self.write_marker(&view, &marker, strategy, since) {
            Ok(stored) => {
                self.memory().learn_view(&view.resource_version, stored.known());
                self.memory().known().is_none_or(|known| known.view.marker.runs < marker.runs)
            }
            Err(No::Refused) => true,
            Err(no) => return Err(no.into()),
        };
        if is_refused {
            return self.settle_later(record, job, verdict);
        }
        let memory = self.memory();
        memory.trouble = 0;
        memory.ending.settle = None;
        memory.ending.verdict = Some((record.run, verdict));
        Ok(Flow::Continue)
    }

    pub fn write_marker(
        &mut self,
        view: &QuarksJobView,
        marker: &Marker,
        strategy: Option<Strategy>,
        since: u64,
    ) -> Result<Rc<Stored>, No> {
        let caller = self.caller(since);
        self.world.settle(caller, self.key, &view.resource_version, &view.uid, marker, strategy)
    }

    pub fn settle_later(&mut self, record: &RunRecord, job: Option<&JobView>, verdict: Verdict) -> Result<Flow, Failed> {
        let Known { status, view } = self.known()?;
        let at = self.world.now;
        let ending = &mut self.memory().ending;
        let pause = Pause::after(ending.settle, REFUSAL_BACKOFF, at);
        (ending.settle, ending.settle_run) = (Some(pause), record.run);
        let last = last_run(&view, record.run, Some(record.trigger), job, verdict, &status);
        let active = record.active(&view.uid, &last.job_name, last.start_time.clone());
        self.turn.view = view;
        let new = self.status(&status).ended_unsettled(last, active, Reason::SettleRefused, "by a policy");
        self.write_status(&status, &new)?;
        Ok(Flow::Wait(pause.until - at))
    }

    pub fn record_end(&mut self, job: Option<&OwnJob>) -> Result<Flow, Failed> {
        let status = self.known()?.status;
        let view = Arc::clone(&self.turn.view);
        let marker = &view.marker;
        let own_verdict = self.memory().ending.verdict.clone().filter(|(run, _)| *run == marker.runs).map(|(_, verdict)| verdict);
        let last = match recorded_end(&status, marker) {
            None if marker.runs > 0 => {
                let verdict = own_verdict.unwrap_or_else(|| Verdict {
                    outcome: marker.outcome.unwrap_or(Outcome::Unknown),
                    reason: marker.reason.clone(),
                    message: String::new(),
                    outputs: Vec::new(),
                });
                Some(last_run(&view, marker.runs, marker.trigger, job.map(|job| &*job.view), verdict, &status))
            }
            recorded => recorded,
        };
        let new = match last {
            Some(last) => self.status(&status).ended(last, self.ready()),
            None => self.status(&status).idle(Readiness::Ready, &ready_message(Readiness::Ready, &view, None)),
        };
        self.write_status(&status, &new)?;
        self.memory().ending.verdict = None;
        Ok(Flow::Continue)
    }

    pub fn take_baseline(&mut self, now: Instant) -> Result<Flow, Failed> {
        let view = Arc::clone(&self.turn.view);
        let is_done = view.strategy == Some(Strategy::Done) && view.marker.once.is_none();
        let has_run = is_done || view.marker.once.is_some();
        let once = has_run.then(|| view.marker.once.clone().unwrap_or_else(|| view.template_digest.to_string()));
        let marker = Marker { once, config: None, ..view.marker.clone() };
        let since = self.world.version();
        let stored = self.write_marker(&view, &marker, None, since)?;
        let memory = self.memory();
        memory.learn_view(&view.resource_version, stored.known());
        let is_kept = memory.known().is_some_and(|known| known.view.marker == marker);
        memory.record = (!is_kept).then(|| Pause::after(memory.record, REFUSAL_BACKOFF, now));
        Ok(Flow::Continue)
    }

    pub fn report(&mut self, readiness: Readiness) -> Result<Flow, Failed> {
        let Known { status, view } = self.known()?;
        let message = ready_message(readiness, &view, None);
        self.turn.view = view;
        let new = self.status(&status).idle(readiness, &message);
        self.write_status(&status, &new)?;
        Ok(if new == status { Flow::Wait(SAME_REPORT) } else { Flow::Continue })
    }

    pub fn write_status(&mut self, old: &QuarksJobStatus, status: &QuarksJobStatus) -> Result<(), Failed> {
        if status == old {
            return Ok(());
        }
        let version = self.turn.view.resource_version.clone();
        let stored = self.world.write_status(self.key, &version, status)?;
        let now = self.world.now;
        let memory = self.memory();
        memory.learn_view(&version, stored.known());
        let is_kept = memory.known().is_some_and(|known| lost_field(status, &known.status).is_none());
        memory.record = (!is_kept).then(|| Pause::after(memory.record, REFUSAL_BACKOFF, now));
        Ok(())
    }
}
