//! The floor under the actors: what the actor framework itself costs, without anything of ours in it.
//!
//! Called by the bench, in the same process and with the same allocator as what it is compared with.

use std::time::{Duration, Instant};

use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinSet;

use crate::domain::id::SHARDS;

/// What an idle actor of ours carries, roughly.
const STATE: usize = 400;

/// A supervisor that does nothing. The default would stop it with its first child.
struct Supervisor;

impl Actor for Supervisor {
    type Msg = ();
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<()>,
        _: SupervisionEvent,
        (): &mut (),
    ) -> Result<(), ActorProcessingErr> {
        Ok(())
    }
}

/// A leaf with a state as large as a prospect's.
struct Leaf;

impl Actor for Leaf {
    type Msg = ();
    type State = [u8; STATE];
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<()>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok([1; STATE])
    }
}

/// Leaf actors that are alive. Stop them with [`Bare::stop`].
pub struct Bare {
    supervisors: Vec<ActorRef<()>>,
    leaves: Vec<ActorRef<()>>,
    took: Duration,
}

impl Bare {
    /// Spawns `count` leaf actors, one after the other, linked under as many supervisors as there are shards. `spawned` is
    /// told how many there are, every thousand. `None`: an actor did not start.
    pub async fn spawn(count: usize, spawned: impl Fn(usize)) -> Option<Self> {
        let mut supervisors = Vec::with_capacity(usize::from(SHARDS));
        for _ in 0..SHARDS {
            supervisors.push(Actor::spawn(None, Supervisor, ()).await.ok()?.0);
        }
        let mut leaves = Vec::with_capacity(count);
        let begun = Instant::now();
        for (i, supervisor) in supervisors.iter().cycle().take(count).enumerate() {
            leaves.push(Actor::spawn_linked(None, Leaf, (), supervisor.get_cell()).await.ok()?.0);
            if i % 1000 == 999 {
                spawned(i + 1);
            }
        }
        Some(Self { supervisors, leaves, took: begun.elapsed() })
    }

    /// How long spawning the leaves took.
    pub const fn took(&self) -> Duration {
        self.took
    }

    /// Stops them all, and waits.
    pub async fn stop(self) {
        drop(self.leaves);
        let mut stopping = JoinSet::new();
        for supervisor in self.supervisors {
            stopping.spawn(async move {
                supervisor.stop_children_and_wait(None, None).await;
                let _ = supervisor.stop_and_wait(None, None).await;
            });
        }
        while stopping.join_next().await.is_some() {}
    }
}
