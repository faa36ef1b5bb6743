//! What one person does: drawn from the seed and the identity, forced by words in the identity, or set over
//! `PATCH /sandbox/people/{identity}`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::behaviour::Behaviour;
use super::people::Place;
use super::span;
use super::text::unit;

/// Whether a bounce is for good.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bounce {
    /// 5.1.1: there is no such address.
    #[default]
    Hard,
    /// 4.2.2: the mailbox is full.
    Soft,
}

/// What somebody will do, and how long after what sets it off; `null` is never.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Conduct {
    /// Accepts an invitation so long after it.
    #[serde(with = "span::maybe")]
    pub(super) accept_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) decline_after: Option<Duration>,
    /// Replies so long after a message or mail, `replies_max` times.
    #[serde(with = "span::maybe")]
    pub(super) reply_after: Option<Duration>,
    pub(super) reply_text: Option<String>,
    pub(super) replies_max: u32,
    #[serde(with = "span::maybe")]
    pub(super) bounce_after: Option<Duration>,
    pub(super) bounce: Bounce,
    /// Whether bounces and mailed replies belong to the thread of our mail.
    pub(super) threaded: bool,
    #[serde(with = "span::maybe")]
    pub(super) out_of_office_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) open_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) click_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) unsubscribe_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) scan_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) deliver_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) read_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) react_after: Option<Duration>,
    /// Edits their reply so long after it.
    #[serde(with = "span::maybe")]
    pub(super) edit_after: Option<Duration>,
    #[serde(with = "span::maybe")]
    pub(super) delete_after: Option<Duration>,
    /// The account's owner writes to them by hand so long after our first message or mail.
    #[serde(with = "span::maybe")]
    pub(super) by_hand_after: Option<Duration>,
    /// WhatsApp shows them as `…@lid` only.
    pub(super) lid_only: bool,
    /// WhatsApp: has it. Mail: the server takes the address.
    pub(super) reachable: bool,
    pub(super) open_profile: bool,
    pub(super) takes_inmail: bool,
    /// LinkedIn asks for their address before it lets them be invited.
    pub(super) needs_email: bool,
    /// Has blocked us.
    pub(super) blocks: bool,
}

impl Conduct {
    /// What follows from the seed, the crowd's behaviour and the identity.
    pub(super) fn of(seed: u64, how: &Behaviour, place: Place, identity: &str) -> Self {
        let draw = |what: &str| unit(seed, &[identity, what]);
        // `jane+never-replies@x.example` is `-jane-never-replies-x-example-`, so that words are whole words.
        let words: String = identity.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        let words = format!("-{words}-");
        let has = |word: &str| words.contains(&format!("-{word}-"));
        let does = |word: &str, share: f64| !has(&format!("never-{word}")) && (has(word) || draw(word) < share);
        let ends = |end: &str| place == Place::Phone && identity.ends_with(end);
        let wait = |word: &str, min: Duration, max: Duration| {
            let span = max.saturating_sub(min);
            if has("at-once") { Duration::ZERO } else { min + span.mul_f64(draw(&format!("{word} delay"))) }
        };
        let when = |yes: bool, word: &str, max: Duration| yes.then(|| wait(word, Duration::ZERO, max));
        let (linkedin, mail, phone) = (place == Place::LinkedIn, place == Place::Mail, place == Place::Phone);

        let accepts = linkedin && does("accepts", how.accept_share);
        // A share of 1 - u keeps ln away from zero.
        let late = how.accept_mean.mul_f64(-(1.0 - draw("accept delay")).ln()).min(how.accept_max);
        let soft = mail && does("soft-bounces", how.soft_bounce_share);
        let bounces = mail && (soft || does("bounces", how.bounce_share));
        let replies =
            !bounces && !ends("99990002") && (ends("99990001") || ends("99990004") || does("replies", how.reply_share));
        let reads = !mail && (ends("99990006") || does("reads", how.read_share));
        Self {
            accept_after: accepts.then_some(if has("at-once") { Duration::ZERO } else { late }),
            decline_after: when(
                linkedin && !accepts && does("declines", how.decline_share),
                "declines",
                how.decline_max,
            ),
            reply_after: replies.then(|| wait("reply", how.reply_min, how.reply_max)),
            reply_text: None,
            replies_max: 1,
            bounce_after: when(bounces, "bounce", how.bounce_max),
            bounce: if soft { Bounce::Soft } else { Bounce::Hard },
            threaded: !(mail && does("unthreaded", how.unthreaded_share)),
            out_of_office_after: when(
                mail && !bounces && does("out-of-office", how.out_of_office_share),
                "out-of-office",
                how.out_of_office_max,
            ),
            open_after: when(mail && !bounces && does("opens", how.open_share), "opens", how.open_max),
            click_after: when(mail && !bounces && does("clicks", how.click_share), "clicks", how.click_max),
            unsubscribe_after: when(
                mail && !bounces && does("unsubscribes", how.unsubscribe_share),
                "unsubscribes",
                how.unsubscribe_max,
            ),
            scan_after: when(mail && !bounces && does("scanned", how.scanner_share), "scanned", how.scanner_max),
            deliver_after: when(phone && does("delivers", how.deliver_share), "delivers", how.deliver_max),
            read_after: when(reads, "reads", how.read_max),
            react_after: when(!mail && does("reacts", how.react_share), "reacts", how.react_max),
            edit_after: when(!mail && does("edits", how.edit_share), "edits", how.react_max),
            delete_after: when(!mail && does("deletes", how.delete_share), "deletes", how.react_max),
            by_hand_after: when(ends("99990005") || does("by-hand", how.by_hand_share), "by-hand", how.by_hand_max),
            lid_only: phone && (ends("99990004") || does("lid-only", how.lid_only_share)),
            reachable: match place {
                Place::LinkedIn => true,
                Place::Mail => !has("rejected"),
                Place::Phone => {
                    !ends("99990003") && (ends_forced(identity) || !does("unreachable", how.unreachable_share))
                }
            },
            open_profile: linkedin && does("open-profile", how.open_profile_share),
            takes_inmail: !(linkedin && does("no-inmail", how.no_inmail_share)),
            needs_email: linkedin && has("needs-email"),
            blocks: has("blocked"),
        }
    }
}

/// Numbers that say what they do are not also unreachable by chance.
fn ends_forced(number: &str) -> bool {
    number.get(..number.len().saturating_sub(1)).is_some_and(|n| n.ends_with("9999000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_behave_in_the_shares_asked_for_and_the_same_every_time() {
        let how = Behaviour::default();
        let all: Vec<Conduct> =
            (0..4000).map(|n| Conduct::of(7, &how, Place::LinkedIn, &format!("person-{n}"))).collect();
        let accepting: Vec<Duration> = all.iter().filter_map(|p| p.accept_after).collect();
        assert!((1700..1900).contains(&accepting.len()), "{}", accepting.len());
        let mean = accepting.iter().sum::<Duration>().as_secs() / accepting.len() as u64 / 360;
        assert!((90..110).contains(&mean), "{mean} tenths of an hour");
        assert!(accepting.iter().all(|d| *d <= how.accept_max));
        let replying = all.iter().filter(|p| p.reply_after.is_some()).count();
        assert!((530..670).contains(&replying), "{replying}");
        assert_eq!(Conduct::of(7, &how, Place::LinkedIn, "person-1"), all[1]);
    }

    #[test]
    fn words_in_an_identity_force_what_somebody_does() {
        let how = Behaviour::lifelike();
        let of = |place, identity: &str| Conduct::of(7, &how, place, identity);
        for n in 0..50 {
            assert!(of(Place::LinkedIn, &format!("p{n}-always-accepts")).accept_after.is_some());
            assert!(of(Place::LinkedIn, &format!("p{n}-never-accepts")).accept_after.is_none());
            assert!(of(Place::LinkedIn, &format!("p{n}-replies")).reply_after.is_some());
            assert!(of(Place::Mail, &format!("p{n}@never-replies.example")).reply_after.is_none());
            let hard = of(Place::Mail, &format!("p{n}+bounces+never-soft-bounces@x.example"));
            assert!(hard.bounce_after.is_some() && hard.bounce == Bounce::Hard && hard.reply_after.is_none());
            let soft = of(Place::Mail, &format!("p{n}+soft-bounces@x.example"));
            assert!(soft.bounce_after.is_some() && soft.bounce == Bounce::Soft);
            assert!(of(Place::Phone, &format!("33{n}99990001")).reply_after.is_some());
            assert!(of(Place::Phone, &format!("33{n}99990002")).reply_after.is_none());
            assert!(!of(Place::Phone, &format!("33{n}99990003")).reachable);
            let lid = of(Place::Phone, &format!("33{n}99990004"));
            assert!(lid.lid_only && lid.reachable && lid.reply_after.is_some());
            assert_eq!(of(Place::LinkedIn, &format!("p{n}-accepts-at-once")).accept_after, Some(Duration::ZERO));
            // Half a word is no word.
            assert!(of(Place::Mail, &format!("p{n}-unrejected@x.example")).reachable);
        }
    }
}
