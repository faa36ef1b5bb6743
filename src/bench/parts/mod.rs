//! The measurements, one file a part.

use std::sync::Arc;

use super::{Bench, Error, Floor, Part};

mod counting;
mod desk;
mod flow;
mod http;
mod park;
mod people;
mod react;
mod rehydrate;
mod rig;
mod spawn;
mod timers;
mod upload;
mod wal;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// What the rest is measured against.
    Floor,
    /// Actors made of rows.
    Spawn,
    /// A restart after a crash.
    Rehydrate,
    /// From a trigger to the next send.
    React,
    /// Everybody through the whole flow.
    Flow,
    /// Wake-ups in time.
    Timers,
    /// Many more enrolled than resident.
    Park,
    /// A CSV through the API.
    Upload,
    /// Bytes written a transition.
    Wal,
    /// What the metrics cost.
    Counting,
}

impl Kind {
    /// In the order in which `all` runs them.
    pub const ALL: [Self; 10] = [
        Self::Floor,
        Self::Spawn,
        Self::Rehydrate,
        Self::React,
        Self::Flow,
        Self::Timers,
        Self::Park,
        Self::Upload,
        Self::Wal,
        Self::Counting,
    ];

    /// The name on the command line and in the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Spawn => "spawn",
            Self::Rehydrate => "rehydrate",
            Self::React => "react",
            Self::Flow => "flow",
            Self::Timers => "timers",
            Self::Park => "park",
            Self::Upload => "upload",
            Self::Wal => "wal",
            Self::Counting => "counting",
        }
    }
}

/// Measures one part at one size.
///
/// # Errors
/// When it cannot be measured. Figures that miss their targets are no error.
pub async fn run(kind: Kind, bench: &Bench, size: u64) -> Result<Part, Error> {
    match kind {
        Kind::Floor => Ok(bench.floor(size).await?.part()),
        Kind::Spawn => spawn::run(bench, size).await,
        Kind::Rehydrate => rehydrate::run(bench, size).await,
        Kind::React => react::run(bench, size).await,
        Kind::Flow => flow::run(bench, size).await,
        Kind::Timers => timers::run(bench, size).await,
        Kind::Park => park::run(bench, size).await,
        Kind::Upload => upload::run(bench, size).await,
        Kind::Wal => wal::run(bench, size).await,
        Kind::Counting => counting::run(bench, size).await,
    }
}

/// The floors that a part is held against. A part is worth measuring without them too: then it has no targets that follow
/// from them, and says why.
async fn floor(bench: &Bench, size: u64, part: &mut Part) -> Result<Option<Arc<Floor>>, Error> {
    match bench.floor(size).await {
        Ok(floor) => Ok(Some(floor)),
        Err(Error::Cancelled) => Err(Error::Cancelled),
        Err(error) => {
            part.notes.push(format!("there is no floor to hold this against: {error}"));
            Ok(None)
        }
    }
}
