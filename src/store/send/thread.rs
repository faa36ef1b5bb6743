//! The mail that a follow-up answers.

use sqlx::Row as _;

use crate::domain::id::{AccountId, ExecutionId};
use crate::store::{Error, Pool, failed};

const THREAD: &str = "SELECT s.receipt ->> 'message_id', s.subject FROM sends s \
    WHERE s.execution_id = $1 AND s.account_id = $2 AND s.action = 'send_email' AND s.status = 'sent' \
    ORDER BY s.created_at DESC, s.step DESC, s.attempt DESC LIMIT 1";

/// Our last mail to a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The provider's id of it, where it told one.
    pub message_id: Option<String>,
    /// Its subject.
    pub subject: Option<String>,
}

impl Thread {
    /// The subject of an answer to it. The provider refuses any other in the same thread.
    pub fn answer_subject(&self) -> Option<String> {
        let subject = self.subject.as_deref()?.trim();
        let answers = subject.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("re:"));
        Some(if answers { subject.to_owned() } else { format!("Re: {subject}") })
    }
}

/// The last mail that an execution has sent through an account.
///
/// # Errors
/// When Postgres cannot be asked.
pub async fn thread(pool: &Pool, execution: ExecutionId, account: AccountId) -> Result<Option<Thread>, Error> {
    let what = failed("looking for the mail to answer");
    let row = sqlx::query(THREAD).bind(execution.0).bind(account.0).fetch_optional(pool).await.map_err(&what)?;
    row.map(|row| Ok(Thread { message_id: row.try_get(0)?, subject: row.try_get(1)? }))
        .transpose()
        .map_err(|e: sqlx::Error| what(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_subject_with_one_re() {
        for (subject, expected) in [
            ("A question", "Re: A question"),
            ("Re: A question", "Re: A question"),
            ("RE: x", "RE: x"),
            ("Ré", "Re: Ré"),
        ] {
            let thread = Thread { message_id: None, subject: Some(subject.to_owned()) };
            assert_eq!(thread.answer_subject().as_deref(), Some(expected));
        }
        assert_eq!(Thread { message_id: None, subject: None }.answer_subject(), None);
    }
}
