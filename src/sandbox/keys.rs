//! What ids stand for: names that are the same in every run, because the seed and what they are about are. Whatever is drawn
//! is drawn from these; ids change with the word of a run.

use super::mailbox::Mail;
use super::talk::Message;
use super::world::World;

impl World {
    /// A message by our id.
    pub(super) fn message(&self, id: &str) -> Option<&Message> {
        self.message_ids.get(id).and_then(|n| self.messages.get(*n))
    }

    /// A mail by our id, the provider's or the RFC id.
    pub(super) fn mail(&self, id: &str) -> Option<&Mail> {
        self.mail_ids.get(id).and_then(|n| self.mails.get(*n))
    }

    /// An account and a person.
    pub(super) fn pair(&self, account: usize, person: usize) -> String {
        format!("{} {}", self.accounts[account].key, self.people[person].provider_id)
    }

    /// What an id in a path stands for; what is none of ours stands for itself.
    pub(super) fn key_of(&self, id: &str) -> String {
        if let Some(chat) = self.chat_ids.get(id).map(|c| &self.chats[*c]) {
            return self.pair(chat.account, chat.person);
        }
        if let Some(&(account, person)) = self.attendees.get(id) {
            return person.map_or_else(|| self.accounts[account].key.clone(), |p| self.pair(account, p));
        }
        let hook = || self.hooks.iter().find(|h| h.id == id).map(|h| &h.key);
        let account = || self.account_index(id).map(|a| &self.accounts[a].key);
        let known = self.message(id).map(|m| &m.key).or_else(|| self.mail(id).map(|m| &m.key));
        known.or_else(hook).or_else(account).cloned().unwrap_or_else(|| id.to_owned())
    }
}
