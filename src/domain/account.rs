//! Sending accounts and the channels they serve.

use std::sync::Arc;

use super::budget::Budget;
use super::id::{AccountId, WorkspaceId};
use super::time::Timestamp;

macro_rules! names {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant,)* }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name used in tables, routes, flows and metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// Reads the name back; `None` for any other text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use names;

names! {
    /// What carries a contact.
    Channel {
        /// LinkedIn invitations and messages.
        Linkedin = "linkedin",
        /// Mail.
        Email = "email",
        /// WhatsApp messages.
        Whatsapp = "whatsapp",
    }
}

names! {
    /// Whether an account may send.
    AccountStatus {
        /// It sends.
        Active = "active",
        /// The provider says the account is broken (credentials, checkpoint, restriction): nothing is sent through it
        /// until somebody reconnects it.
        Halted = "halted",
        /// An operator switched it off.
        Disabled = "disabled",
    }
}

/// A sending identity as the runtime sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id with us.
    pub id: AccountId,
    /// The tenant that owns it.
    pub workspace: WorkspaceId,
    /// What it sends.
    pub channel: Channel,
    /// What carries it, for example `unipile`.
    pub provider: String,
    /// Its id with the provider.
    pub provider_account_id: String,
    /// A name for people.
    pub name: String,
    /// Whether it may send.
    pub status: AccountStatus,
    /// Least time between two sends, in milliseconds.
    pub min_gap_ms: u32,
    /// How much it may do; `None`: only `min_gap_ms` holds, because somebody said so or because it was made before there were
    /// budgets.
    pub budget: Option<Arc<Budget>>,
    /// When it began, for the ramp of its budget.
    pub since: Timestamp,
}

/// Which account contacts a person on each channel. Chosen at the first send of the channel and kept from then on, because
/// a connection, a chat and a thread belong to an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChannelAccounts {
    /// For LinkedIn.
    pub linkedin: Option<AccountId>,
    /// For mail.
    pub email: Option<AccountId>,
    /// For WhatsApp.
    pub whatsapp: Option<AccountId>,
}

impl ChannelAccounts {
    /// The account of a channel.
    pub const fn get(&self, channel: Channel) -> Option<AccountId> {
        match channel {
            Channel::Linkedin => self.linkedin,
            Channel::Email => self.email,
            Channel::Whatsapp => self.whatsapp,
        }
    }

    /// Sets the account of a channel.
    pub const fn set(&mut self, channel: Channel, account: AccountId) {
        let slot = match channel {
            Channel::Linkedin => &mut self.linkedin,
            Channel::Email => &mut self.email,
            Channel::Whatsapp => &mut self.whatsapp,
        };
        *slot = Some(account);
    }
}
