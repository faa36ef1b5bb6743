//! What a part needs at a size, roughly and rather too much: a bench that fills the disk, or is killed for its memory, has
//! measured nothing.

use super::memory;
use super::parts::Kind;

/// What a part needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Bytes where Postgres has its data.
    pub disk: u64,
    /// Bytes of memory, Postgres's own included.
    pub memory: u64,
}

/// What there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes free where Postgres has its data; `None`: it is another machine's, or the system does not tell.
    pub disk: Option<u64>,
    /// Bytes of memory to be had; `None`: the system does not tell.
    pub memory: Option<u64>,
}

const GB: u64 = 1 << 30;
/// A prospect with its execution, their keys and indexes.
const ROW: u64 = 1_600;
/// What going through the seed's flow leaves behind: seven transitions, three sends, identities, dead rows.
const THROUGH: u64 = 7_000;
/// A resident prospect, with room for the figure to be missed.
const RESIDENT: u64 = 11_000;
/// What is parked for each that is resident.
const PARKED: u64 = 10;

impl Needs {
    /// Of a part at a size.
    pub fn of(kind: Kind, size: u64) -> Self {
        let (disk, memory) = match kind {
            Kind::Floor => (ROW + 1_000, RESIDENT),
            Kind::Spawn | Kind::Rehydrate | Kind::Timers | Kind::React => (ROW + THROUGH / 4, RESIDENT),
            Kind::Flow => (ROW + THROUGH, RESIDENT),
            Kind::Park => (PARKED * ROW, RESIDENT / 2 + PARKED * 200),
            Kind::Upload => (ROW + 1_000, 2_000),
            Kind::Wal | Kind::Counting => (ROW + THROUGH, RESIDENT),
        };
        // The log of Postgres grows before a checkpoint takes it back; its buffers are its memory.
        Self { disk: 4 * GB + size.saturating_mul(disk), memory: GB + size.saturating_mul(memory) }
    }

    /// Why it cannot be measured here, if it cannot.
    pub fn refusal(self, room: Room) -> Option<String> {
        let short = |what: &str, needs: u64, has: Option<u64>| {
            let has = has.filter(|has| *has < needs)?;
            Some(format!("needs about {} of {what}, and {} are free", gigabytes(needs), gigabytes(has)))
        };
        short("disk", self.disk, room.disk).or_else(|| short("memory", self.memory, room.memory))
    }
}

impl Room {
    /// What there is now. `disk`: where Postgres has its data, if that is here.
    pub fn now(disk: Option<u64>) -> Self {
        Self { disk, memory: memory::available() }
    }
}

fn gigabytes(bytes: u64) -> String {
    let tenths = bytes / (GB / 10);
    format!("{}.{} GB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_fit_is_refused_by_name() {
        let needs = Needs::of(Kind::Flow, 1_000_000);
        assert_eq!(needs.refusal(Room { disk: None, memory: None }), None);
        assert_eq!(needs.refusal(Room { disk: Some(100 * GB), memory: Some(100 * GB) }), None);
        let refused = needs.refusal(Room { disk: Some(GB), memory: Some(100 * GB) }).unwrap();
        assert!(refused.contains("of disk, and 1.0 GB are free"), "{refused}");
        let refused = needs.refusal(Room { disk: Some(100 * GB), memory: Some(4 * GB) }).unwrap();
        assert!(refused.contains("of memory, and 4.0 GB are free"), "{refused}");
    }

    #[test]
    fn the_help_says_what_is_asked_for() {
        let most = |size: u64, of: fn(Needs) -> u64| {
            gigabytes(Kind::ALL.into_iter().map(|kind| of(Needs::of(kind, size))).max().unwrap_or(0))
        };
        let rows = [10_000, 100_000, 1_000_000].map(|size| (most(size, |n| n.memory), most(size, |n| n.disk)));
        let help = [("1.1 GB", "4.1 GB"), ("2.0 GB", "5.4 GB"), ("11.2 GB", "18.9 GB")];
        assert_eq!(rows, help.map(|(memory, disk)| (memory.to_owned(), disk.to_owned())));
    }
}
