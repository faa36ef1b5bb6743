//! The reads that sending and reading back share.

use serde::de::DeserializeOwned;

use super::client::{ANSWER_BYTES_MAX, MAIL_LIST_BYTES_MAX, Unipile};
use super::errors::Error;
use super::wire::{Account, Chat, Mail, Message, Page, PendingInvitation, Profile};

/// Most pages of one list that are read. A list that goes on longer is an error, not an end.
const PAGES_MAX: usize = 20;

impl Unipile {
    /// Reads the pages of a list, newest first as the API has it, until `look` finds what it looks for.
    pub(super) async fn search<T: DeserializeOwned, R>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        bytes_max: usize,
        mut look: impl FnMut(T) -> Option<R>,
    ) -> Result<Option<R>, Error> {
        let mut cursor: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page: Page<T> = self.page(path, query, cursor.as_deref(), bytes_max).await?;
            if let Some(found) = page.items.into_iter().find_map(&mut look) {
                return Ok(Some(found));
            }
            match page.cursor {
                Some(next) if cursor.as_ref() != Some(&next) => cursor = Some(next),
                _ => return Ok(None),
            }
        }
        Err(Error::Unreadable(format!("a list has more than {PAGES_MAX} pages")))
    }

    /// A LinkedIn profile as the account sees it. Costs the account one of its about 100 profile reads a day.
    pub(super) async fn profile(&self, account: &str, identifier: &str) -> Result<Profile, Error> {
        self.get(&["users", identifier], &[("account_id", account)], ANSWER_BYTES_MAX).await
    }

    /// The same, and its owner is told of the visit.
    pub(super) async fn visit_profile(&self, account: &str, identifier: &str) -> Result<Profile, Error> {
        self.get(&["users", identifier], &[("account_id", account), ("notify", "true")], ANSWER_BYTES_MAX).await
    }

    /// One page of a list.
    pub(super) async fn page<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        cursor: Option<&str>,
        bytes_max: usize,
    ) -> Result<Page<T>, Error> {
        let mut query = query.to_vec();
        if let Some(cursor) = cursor {
            query.push(("cursor", cursor));
        }
        self.get(path, &query, bytes_max).await
    }

    /// The account with this id.
    pub(super) async fn account(&self, id: &str) -> Result<Account, Error> {
        self.get(&["accounts", id], &[], ANSWER_BYTES_MAX).await
    }

    /// The pending invitation to a person, by provider id.
    pub(super) async fn pending_invitation(
        &self,
        account: &str,
        recipient: &str,
    ) -> Result<Option<PendingInvitation>, Error> {
        let query = [("account_id", account), ("limit", "250")];
        self.search(&["users", "invite", "sent"], &query, ANSWER_BYTES_MAX, |item: PendingInvitation| {
            let is = |id: &Option<String>| id.as_deref() == Some(recipient);
            (is(&item.invited_user_id) || is(&item.invited_user_public_id)).then_some(item)
        })
        .await
    }

    /// The chats with one person, groups left out.
    pub(super) async fn chats_with(&self, account: &str, person: &str) -> Result<Vec<String>, Error> {
        let path = ["chat_attendees", person, "chats"];
        let query = [("account_id", account), ("limit", "250")];
        let mut chats = Vec::new();
        let none: Option<()> = self
            .search(&path, &query, ANSWER_BYTES_MAX, |chat: Chat| {
                if !matches!(chat.kind.as_deref(), Some("1" | "2")) {
                    chats.extend(chat.id);
                }
                None
            })
            .await?;
        debug_assert!(none.is_none(), "every chat is looked at");
        Ok(chats)
    }

    /// One chat.
    pub(super) async fn chat(&self, account: &str, id: &str) -> Result<Chat, Error> {
        self.get(&["chats", id], &[("account_id", account)], ANSWER_BYTES_MAX).await
    }

    /// Looks at every message of the account after `after`, whatever chat it is in.
    pub(super) async fn each_message(
        &self,
        account: &str,
        after: &str,
        mut look: impl FnMut(Message),
    ) -> Result<(), Error> {
        let query = [("account_id", account), ("after", after), ("limit", "250")];
        let _: Option<()> = self
            .search(&["messages"], &query, ANSWER_BYTES_MAX, |message| {
                look(message);
                None
            })
            .await?;
        Ok(())
    }

    /// The first message of a chat after `after` that `look` takes.
    pub(super) async fn find_message<R>(
        &self,
        chat: &str,
        after: &str,
        look: impl FnMut(Message) -> Option<R>,
    ) -> Result<Option<R>, Error> {
        let query = [("after", after), ("limit", "100")];
        self.search(&["chats", chat, "messages"], &query, ANSWER_BYTES_MAX, look).await
    }

    /// One mail, by its provider id.
    pub(super) async fn mail(&self, account: &str, id: &str) -> Result<Mail, Error> {
        self.get(&["emails", id], &[("account_id", account)], MAIL_LIST_BYTES_MAX).await
    }

    /// The first mail to an address after `after` that `look` takes. Pages are short because headers come only with the
    /// whole bodies.
    pub(super) async fn find_mail<R>(
        &self,
        account: &str,
        to: &str,
        after: &str,
        look: impl FnMut(Mail) -> Option<R>,
    ) -> Result<Option<R>, Error> {
        let query = [
            ("account_id", account),
            ("to", to),
            ("after", after),
            ("include_headers", "true"),
            ("meta_only", "false"),
            ("limit", "10"),
        ];
        self.search(&["emails"], &query, MAIL_LIST_BYTES_MAX, look).await
    }
}
