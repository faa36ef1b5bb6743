//! What an account may do of which nobody has said anything else. From Unipile's guidance (provider limits and restrictions, page
//! updated 2026-08-28), at the careful end of each range: an account that is restricted costs a week, a slower campaign a day.

use std::time::Duration;

use super::{AccountKind, Budget, Growth, Kind, Limit, Spacing, WarmUp};

const fn limit(kind: Kind, day: u32, week: u32) -> (Kind, Limit) {
    (kind, Limit { day, week })
}

const fn seconds(min: u64, max: u64) -> Spacing {
    Spacing { min: Duration::from_secs(min), max: Duration::from_secs(max) }
}

impl Budget {
    /// The defaults of a kind of account.
    pub fn defaults(kind: AccountKind) -> Self {
        let limits: &[(Kind, Limit)] = match kind {
            // About 5 a month with a note, 150 a week without; 100 messages and 100 profiles a day. There are no InMails.
            AccountKind::LinkedinFree => &[
                limit(Kind::InviteWithNote, 1, 1),
                limit(Kind::Invite, 20, 100),
                limit(Kind::Message, 50, 250),
                limit(Kind::Inmail, 0, 0),
                limit(Kind::ProfileVisit, 50, 250),
            ],
            // 80 to 100 a day and 200 a week; 30 to 50 InMails a day; the guide for outreach says 30 to 50 invitations a day.
            AccountKind::LinkedinPremium => &[
                limit(Kind::InviteWithNote, 30, 150),
                limit(Kind::Invite, 30, 150),
                limit(Kind::Message, 80, 400),
                limit(Kind::Inmail, 10, 50),
                limit(Kind::ProfileVisit, 80, 400),
            ],
            AccountKind::LinkedinSalesNavigator => &[
                limit(Kind::InviteWithNote, 40, 180),
                limit(Kind::Invite, 40, 180),
                limit(Kind::Message, 80, 400),
                limit(Kind::Inmail, 30, 150),
                limit(Kind::ProfileVisit, 100, 500),
            ],
            // 50 to 100 a day, with Workspace 150 to 300.
            AccountKind::MailGoogle | AccountKind::MailImap => &[limit(Kind::Mail, 50, 300)],
            AccountKind::MailWorkspace => &[limit(Kind::Mail, 150, 900)],
            // New chats few; 10 to 20 s between messages.
            AccountKind::Whatsapp => &[limit(Kind::WhatsappNewChat, 15, 60), limit(Kind::WhatsappMessage, 100, 500)],
        };
        let (spacing, start, days) = match kind {
            AccountKind::LinkedinFree | AccountKind::LinkedinPremium | AccountKind::LinkedinSalesNavigator => {
                (seconds(45, 120), 5, 14)
            }
            AccountKind::MailGoogle | AccountKind::MailWorkspace | AccountKind::MailImap => (seconds(30, 120), 10, 21),
            AccountKind::Whatsapp => (seconds(15, 45), 3, 14),
        };
        Self {
            kind,
            limits: limits.to_vec(),
            spacing,
            warm_up: Some(WarmUp { start, growth: Growth::Days(days) }),
            // A working time without the zone of the person behind the account would be a guess.
            hours: None,
        }
    }
}
