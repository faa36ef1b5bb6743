//! Identifiers. Every one is a UUID in its own type, so that a campaign's id cannot be handed in for a prospect's.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// How many virtual shards there are. Fixed for ever: the shard of an id is stored on rows.
pub const SHARDS: u16 = 1024;

macro_rules! id {
    ($(#[$doc:meta] $name:ident;)*) => {$(
        #[$doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The virtual shard of this id, `0..SHARDS`: the low ten bits of the UUID's random tail.
            pub const fn shard(self) -> u16 {
                shard_of(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map(Self)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
    )*};
}

id! {
    /// The tenant. Every row belongs to one.
    WorkspaceId;
    /// A campaign with its numbered, immutable flow versions.
    CampaignId;
    /// One person in one campaign.
    ProspectId;
    /// The state of one prospect: its row in `campaign_prospect_execution_state`.
    ExecutionId;
    /// The intent to contact somebody once.
    SendId;
    /// A sending identity: a LinkedIn seat, a mailbox, a WhatsApp number.
    AccountId;
    /// A stored incoming fact (webhook or API trigger).
    InboxId;
}

/// The low ten bits of a UUID. The same expression stands in the migrations as `campaignd_shard(uuid)`.
pub const fn shard_of(id: &Uuid) -> u16 {
    let bytes = id.as_bytes();
    (((bytes[14] & 0b11) as u16) << 8) | bytes[15] as u16
}

/// Namespace under which send ids are derived.
const SEND_NAMESPACE: Uuid = Uuid::from_u128(0x6d1f_2f6e_95c3_4c0b_9c55_0c6e_1d2a_7b41);

impl SendId {
    /// The id of the `sequence`-th send of an execution, on a step and attempt of that step. The same arguments always
    /// give the same id, so that a decision taken again after a crash names the same send.
    pub fn derive(execution: ExecutionId, step: u32, attempt: u32, sequence: u32) -> Self {
        let mut name = [0_u8; 28];
        name[..16].copy_from_slice(execution.0.as_bytes());
        name[16..20].copy_from_slice(&step.to_be_bytes());
        name[20..24].copy_from_slice(&attempt.to_be_bytes());
        name[24..].copy_from_slice(&sequence.to_be_bytes());
        Self(Uuid::new_v5(&SEND_NAMESPACE, &name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_is_the_low_ten_bits() {
        let id = ExecutionId(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_07ff));
        assert_eq!(id.shard(), 0x3ff);
        assert_eq!(ExecutionId(Uuid::from_u128(0x0400)).shard(), 0);
    }

    #[test]
    fn a_send_id_is_stable_and_differs_by_each_argument() {
        let execution = ExecutionId(Uuid::from_u128(7));
        let base = SendId::derive(execution, 1, 1, 1);
        assert_eq!(base, SendId::derive(execution, 1, 1, 1));
        for other in [
            SendId::derive(execution, 2, 1, 1),
            SendId::derive(execution, 1, 2, 1),
            SendId::derive(execution, 1, 1, 2),
            SendId::derive(ExecutionId(Uuid::from_u128(8)), 1, 1, 1),
        ] {
            assert_ne!(base, other);
        }
    }
}
