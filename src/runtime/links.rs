//! The links that mails carry: by which the person who gets one unsubscribes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::domain::id::ExecutionId;
use crate::domain::link::{LinkSecret, unsubscribe_url};
use crate::domain::send::Action;

/// Where links lead, and the key they are made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Links {
    /// Where people reach our server, without a slash at the end.
    pub public_url: String,
    /// The installation's key.
    pub secret: LinkSecret,
}

/// The links of a runtime.
pub(super) struct Unsubscribing {
    links: Option<Links>,
    warned: AtomicBool,
}

impl Unsubscribing {
    pub(super) const fn new(links: Option<Links>) -> Self {
        Self { links, warned: AtomicBool::new(false) }
    }

    /// Whether mails carry a link.
    pub(super) const fn is_set(&self) -> bool {
        self.links.is_some()
    }

    /// The link for a person in a send. `None` for what is no mail, and where nobody has said where the server is reached,
    /// which is told once.
    pub(super) fn url(&self, action: Action, execution: ExecutionId) -> Option<String> {
        if action != Action::SendEmail {
            return None;
        }
        if self.links.is_none() && !self.warned.swap(true, Relaxed) {
            tracing::warn!(
                "mails are sent without a link to unsubscribe: set http.public_url to where people reach this server"
            );
        }
        self.links.as_ref().map(|links| unsubscribe_url(&links.secret, &links.public_url, execution))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_mails_carry_a_link_and_only_where_somebody_can_follow_it() {
        let secret = LinkSecret::new(vec![1; 32]).unwrap();
        let set = Unsubscribing::new(Some(Links { public_url: "https://go.example".to_owned(), secret }));
        let person = ExecutionId(Uuid::from_u128(1));
        assert!(set.url(Action::SendEmail, person).unwrap().starts_with("https://go.example/u/"));
        assert_eq!(set.url(Action::SendLinkedinMessage, person), None);
        assert_eq!(Unsubscribing::new(None).url(Action::SendEmail, person), None);
    }
}
