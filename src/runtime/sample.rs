//! Gauges of what is only known by looking: each second from memory and by a probe of the database, each quarter of a minute
//! from the tables. On connections of its own and on nobody's way, so that it goes on when all else is stuck. `memory` holds what
//! the process knows by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use memory::Memory;

use super::shared::Shared;
use crate::clock::Clock;
use crate::domain::account::{Account, AccountStatus, Channel};
use crate::domain::budget::History;
use crate::domain::id::{AccountId, SHARDS};
use crate::domain::time::Timestamp;
use crate::store::sample::{Eye, Gate, Timers};
use crate::store::{self, migrate::Standing};
use crate::telemetry as names;

mod memory;

/// How often the database is probed.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// What it has to answer in: a frozen server is seen within two of these.
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// How long it is believed what a probe has found.
const SEEN_FOR: Duration = Duration::from_secs(2);
/// How often the tables are looked at.
const TABLES_EVERY: Duration = Duration::from_secs(15);
/// A look that takes longer is given up.
const TABLES_WAIT: Duration = Duration::from_secs(20);
/// Every so many looks the gates of all accounts are read.
const GATES_EVERY: u32 = 4;

fn set(name: &'static str, value: f64) {
    metrics::gauge!(name).set(value);
}

fn set_at(name: &'static str, label: &'static str, value: &'static str, to: f64) {
    metrics::gauge!(name, label => value).set(to);
}

#[expect(clippy::cast_precision_loss, reason = "gauges of counts")]
const fn count(n: usize) -> f64 {
    n as f64
}

/// What a look at the database found.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    at: Instant,
    /// How the schema stands, or why that is not known.
    answer: Result<Standing, String>,
}

/// What the last look found, if it is not older than [`SEEN_FOR`]; else what the next one does, if it comes within that.
pub(super) async fn seen(shared: &Shared) -> Result<Standing, String> {
    let mut looks = shared.seen.subscribe();
    let is_fresh = |seen: &Option<Seen>| seen.as_ref().is_some_and(|seen| seen.at.elapsed() < SEEN_FOR);
    let found = timeout(SEEN_FOR, looks.wait_for(is_fresh)).await.ok().and_then(Result::ok);
    found
        .and_then(|seen| seen.as_ref().map(|seen| seen.answer.clone()))
        .unwrap_or_else(|| Err(format!("nobody has asked it for {} s", SEEN_FOR.as_secs())))
}

/// Probes the database and samples the memory until the runtime ends.
pub(super) async fn probe(shared: Arc<Shared>) {
    let mut eye = Eye::new(&shared.pool);
    let round_trip = metrics::histogram!(names::DB_PROBE_SECONDS);
    let mut ticks = interval(PROBE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_up = true;
    let mut memory = Memory::new(&shared);
    loop {
        ticks.tick().await;
        let answer = match timeout(PROBE_WAIT, ask(&mut eye, &round_trip)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PROBE_WAIT.as_secs())),
        };
        match &answer {
            Err(why) if was_up => tracing::error!(why, "the database does not answer"),
            Ok(_) if !was_up => tracing::info!("the database answers again"),
            _ => {}
        }
        was_up = answer.is_ok();
        set(names::DB_UP, f64::from(was_up));
        let is_known = answer.as_ref().is_ok_and(Standing::is_usable);
        set(names::READY, f64::from(is_known && shared.ready.load(Relaxed) && !shared.is_draining()));
        shared.seen.send_replace(Some(Seen { at: Instant::now(), answer }));
        memory.sample(&shared);
    }
}

async fn ask(eye: &mut Eye, round_trip: &metrics::Histogram) -> Result<Standing, store::Error> {
    let found = eye.probe(|| Clock::System.now()).await?;
    round_trip.record(found.round_trip.as_secs_f64());
    set(names::CLOCK_OFFSET, found.offset);
    eye.schema().await
}

/// Tells each second how long the lease is trusted.
pub(super) async fn lease(shared: Arc<Shared>, trusted: watch::Receiver<Instant>, window: Duration) {
    set(names::LEASE_WINDOW, window.as_secs_f64());
    loop {
        let left = trusted.borrow().saturating_duration_since(Instant::now());
        set(names::LEASE_REMAINING, left.as_secs_f64());
        let owned = if left.is_zero() { 0 } else { shared.shards.get().map_or(0, Vec::len) };
        set_at(names::SHARDS, "state", "owned", count(owned));
        set_at(names::SHARDS, "state", "unowned", count(usize::from(SHARDS).saturating_sub(owned)));
        sleep(PROBE_EVERY).await;
    }
}

/// Looks at the tables until the runtime ends.
pub(super) async fn tables(shared: Arc<Shared>) {
    let mut eye = Eye::new(&shared.pool);
    let (mut pass, mut looks) = (Pass::default(), 0_u32);
    loop {
        let looked = timeout(TABLES_WAIT, look(&shared, &mut eye, &mut pass, looks.is_multiple_of(GATES_EVERY))).await;
        let outcome = match looked {
            Ok(Ok(())) => "done",
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot look at the tables for the gauges");
                "failed"
            }
            Err(_) => "failed",
        };
        metrics::counter!(names::SAMPLES, "outcome" => outcome).increment(1);
        looks = looks.wrapping_add(1);
        sleep(TABLES_EVERY).await;
    }
}

async fn look(shared: &Shared, eye: &mut Eye, pass: &mut Pass, gates: bool) -> Result<(), store::Error> {
    let age = |at: Timestamp| shared.clock.real(shared.clock.now().since(at)).as_secs_f64();
    let open = eye.inbox().await?;
    set(names::INBOX_OPEN, count(usize::try_from(open.count).unwrap_or_default()));
    set(names::INBOX_OLDEST, open.oldest.map_or(0.0, age));
    let parked: HashMap<String, i64> = eye.parked().await?.into_iter().collect();
    for channel in Channel::ALL {
        let n = parked.get(channel.as_str()).copied().unwrap_or_default();
        let n = count(usize::try_from(n).unwrap_or_default());
        metrics::gauge!(names::SENDS_UNKNOWN, "channel" => channel.as_str(), "state" => "parked").set(n);
    }
    let now = shared.clock.now();
    pass.add(&eye.timers(now).await?, age);
    if gates {
        sample_quotas(shared, eye.gates().await?, now);
    }
    Ok(())
}

/// A pass over the table of executions, look by look.
#[derive(Default)]
struct Pass {
    horizons: [i64; 5],
    /// Seconds that the oldest wake-ups are overdue, as in [`Timers::oldest`]: in this pass, and in the last whole one.
    overdue: [f64; 2],
    before: [f64; 2],
}

impl Pass {
    fn add(&mut self, found: &Timers, age: impl Fn(Timestamp) -> f64) {
        for (oldest, at) in self.overdue.iter_mut().zip(found.oldest) {
            *oldest = oldest.max(at.map_or(0.0, &age));
        }
        self.horizons.iter_mut().zip(found.horizons).for_each(|(sum, n)| *sum += n);
        // What the last pass saw holds until this one is through.
        let before = if found.is_last { [0.0; 2] } else { self.before };
        for (status, (now, before)) in
            ["pending", "waiting_trigger"].into_iter().zip(self.overdue.into_iter().zip(before))
        {
            set_at(names::TIMER_OVERDUE, "status", status, now.max(before));
        }
        if found.is_last {
            for (horizon, n) in ["overdue", "1m", "1h", "1d", "later"].into_iter().zip(self.horizons) {
                set_at(names::TIMERS, "horizon", horizon, count(usize::try_from(n).unwrap_or_default()));
            }
            *self = Self { before: self.overdue, ..Self::default() };
        }
    }
}

/// Counts the active accounts by what is left of their daily limits.
fn sample_quotas(shared: &Shared, gates: Vec<Gate>, now: Timestamp) {
    let gates: HashMap<AccountId, Gate> = gates.into_iter().map(|gate| (gate.account, gate)).collect();
    let mut found = HashMap::<_, usize>::new();
    for account in shared.roster.accounts().iter().filter(|a| a.status == AccountStatus::Active) {
        *found.entry((account.channel, headroom(account, gates.get(&account.id), now))).or_default() += 1;
    }
    for channel in Channel::ALL {
        for headroom in ["none", "lt10", "lt50", "ge50", "unlimited"] {
            let n = count(found.get(&(*channel, headroom)).copied().unwrap_or_default());
            metrics::gauge!(names::ACCOUNTS_QUOTA, "channel" => channel.as_str(), "headroom" => headroom).set(n);
        }
    }
}

/// The class of what is left to an account. A history that cannot be read leaves nothing: nothing is sent on it.
fn headroom(account: &Account, gate: Option<&Gate>, now: Timestamp) -> &'static str {
    let Some(budget) = &account.budget else { return "unlimited" };
    let history =
        gate.map_or_else(|| Ok(History::default()), |g| History::of_gate(g.history.as_ref(), g.rests.as_ref()));
    match history.map_or(0.0, |history| budget.left(&history, account.since, now)) {
        left if left <= 0.0 => "none",
        left if left < 0.1 => "lt10",
        left if left < 0.5 => "lt50",
        _ => "ge50",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(overdue: i64, oldest: Option<i64>, is_last: bool) -> Timers {
        Timers { oldest: [None, oldest.map(Timestamp::from_micros)], horizons: [overdue, 0, 0, 0, 1], is_last }
    }

    #[test]
    fn a_pass_adds_up_its_parts_and_remembers_the_oldest_until_the_next_one_is_through() {
        let mut pass = Pass::default();
        let age = |at: Timestamp| f64::from(u8::try_from(at.as_micros()).unwrap());
        pass.add(&found(2, Some(7), false), age);
        assert_eq!((pass.horizons, pass.overdue), ([2, 0, 0, 0, 1], [0.0, 7.0]));
        pass.add(&found(1, Some(3), true), age);
        assert_eq!((pass.horizons, pass.overdue, pass.before), ([0; 5], [0.0; 2], [0.0, 7.0]));
        pass.add(&found(0, None, false), age);
        assert_eq!(pass.before, [0.0, 7.0]);
        pass.add(&found(0, None, true), age);
        assert_eq!(pass.before, [0.0; 2]);
    }
}
