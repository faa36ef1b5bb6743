//! Who people are and what they will do: both follow from the seed and the identity they were asked for by.

use std::time::Duration;

use serde_json::{Value, json};

use super::options::Behaviour;
use super::text::{digest, number, opaque, unit};

/// Where an identity lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    LinkedIn,
    Mail,
    Phone,
}

/// Somebody the sandbox has met.
#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(super) place: Place,
    /// Public slug, address in lower case, or number in digits.
    pub(super) identity: String,
    /// `ACoAA…`, the address, or `<digits>@s.whatsapp.net`.
    pub(super) provider_id: String,
    /// WhatsApp's other name for a phone: `<digits>@lid`. Empty elsewhere.
    pub(super) lid: String,
    pub(super) first_name: String,
    pub(super) last_name: String,
    pub(super) headline: String,
    /// How long after an invitation they accept it; `None`: never.
    pub(super) accepts: Option<Duration>,
    /// How long after the first message or mail they reply; `None`: never.
    pub(super) replies: Option<Duration>,
    /// How long after a mail it bounces; `None`: it arrives.
    pub(super) bounces: Option<Duration>,
    pub(super) opens: bool,
    /// Whether a reply has been set off: people reply once.
    pub(super) reply_set: bool,
    pub(super) replied: bool,
}

impl Person {
    /// Makes somebody out of an identity.
    pub(super) fn meet(seed: u64, how: &Behaviour, place: Place, identity: &str) -> Self {
        let draw = |what: &str| unit(seed, &[identity, what]);
        let forced = |word: &str| identity.contains(word);
        let accepts = !forced("never-accepts") && (forced("always-accepts") || draw("accepts") < how.accept_share);
        let replies = !forced("never-replies")
            && !identity.ends_with("99990002")
            && (forced("replies") || identity.ends_with("99990001") || draw("replies") < how.reply_share);
        let bounces = place == Place::Mail && (forced("bounces") || draw("bounces") < how.bounce_share);
        // A share of 1 - u keeps ln away from zero.
        let late = how.accept_mean.mul_f64(-(1.0 - draw("accept delay")).ln()).min(how.accept_max);
        let span = how.reply_max.saturating_sub(how.reply_min);
        let (first_name, last_name) = names(place, identity);
        Self {
            place,
            provider_id: match place {
                Place::LinkedIn => linkedin_id(seed, identity),
                Place::Mail => identity.to_owned(),
                Place::Phone => format!("{identity}@s.whatsapp.net"),
            },
            lid: match place {
                Place::Phone => format!("140{:012}@lid", number(seed, &[identity, "lid"]) % 1_000_000_000_000),
                _ => String::new(),
            },
            headline: format!("Person of the sandbox, known as {first_name}"),
            first_name,
            last_name,
            accepts: (accepts && place == Place::LinkedIn).then_some(late),
            replies: (replies && !bounces).then(|| how.reply_min + span.mul_f64(draw("reply delay"))),
            bounces: bounces.then(|| how.bounce_max.mul_f64(draw("bounce delay"))),
            opens: place == Place::Mail && !bounces && draw("opens") < how.open_share,
            reply_set: false,
            replied: false,
            identity: identity.to_owned(),
        }
    }

    pub(super) fn full_name(&self) -> String {
        format!("{} {}", self.first_name, self.last_name).trim().to_owned()
    }

    pub(super) fn profile_url(&self) -> Value {
        match self.place {
            Place::LinkedIn => json!(format!("https://www.linkedin.com/in/{}/", self.identity)),
            _ => Value::Null,
        }
    }
}

/// The internal id of a LinkedIn member.
pub(super) fn linkedin_id(seed: u64, slug: &str) -> String {
    format!("ACoAA{}", opaque(&digest(seed, &["linkedin", slug]), 34))
}

/// A slug that can be somebody's: `[a-z0-9-]{3,100}`.
pub(super) fn is_slug(text: &str) -> bool {
    (3..=100).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The digits of `<digits>@s.whatsapp.net`; `None` for what is no such id or has no WhatsApp.
pub(super) fn whatsapp_digits(id: &str) -> Option<&str> {
    let digits = id.strip_suffix("@s.whatsapp.net")?;
    ((6..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.ends_with("99990003"))
        .then_some(digits)
}

/// An address that mail can be sent to.
pub(super) fn is_address(text: &str) -> bool {
    text.split_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && host.len() >= 3 && !text.contains(|c: char| c.is_whitespace() || c == ',' || c == '<')
    })
}

fn names(place: Place, identity: &str) -> (String, String) {
    let base = match place {
        Place::LinkedIn => identity,
        Place::Mail => identity.split(['@', '+']).next().unwrap_or(identity),
        Place::Phone => return ("Phone".to_owned(), identity.to_owned()),
    };
    let mut words = base.split(['-', '.', '_']).filter(|w| !w.is_empty()).map(|w| {
        let mut chars = w.chars();
        chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
    });
    let first = words.next().unwrap_or_else(|| "Somebody".to_owned());
    (first, words.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_behave_in_the_shares_asked_for_and_the_same_every_time() {
        let how = Behaviour::default();
        let all: Vec<Person> =
            (0..4000).map(|n| Person::meet(7, &how, Place::LinkedIn, &format!("person-{n}"))).collect();
        let accepting: Vec<Duration> = all.iter().filter_map(|p| p.accepts).collect();
        assert!((1700..1900).contains(&accepting.len()), "{}", accepting.len());
        let mean = accepting.iter().sum::<Duration>().as_secs() / accepting.len() as u64 / 360;
        assert!((90..110).contains(&mean), "{mean} tenths of an hour");
        assert!(accepting.iter().all(|d| *d <= how.accept_max));
        let replying = all.iter().filter(|p| p.replies.is_some()).count();
        assert!((530..670).contains(&replying), "{replying}");
        assert_eq!(Person::meet(7, &how, Place::LinkedIn, "person-1").accepts, all[1].accepts);
        assert_ne!(Person::meet(8, &how, Place::LinkedIn, "person-1").provider_id, all[1].provider_id);
    }

    #[test]
    fn words_in_an_identity_force_what_somebody_does() {
        let how = Behaviour::default();
        let meet = |place, identity: &str| Person::meet(7, &how, place, identity);
        for n in 0..50 {
            assert!(meet(Place::LinkedIn, &format!("p{n}-always-accepts")).accepts.is_some());
            assert!(meet(Place::LinkedIn, &format!("p{n}-never-accepts")).accepts.is_none());
            assert!(meet(Place::LinkedIn, &format!("p{n}-replies")).replies.is_some());
            assert!(meet(Place::Mail, &format!("p{n}@never-replies.example")).replies.is_none());
            assert!(meet(Place::Mail, &format!("p{n}+bounces@x.example")).bounces.is_some());
            assert!(meet(Place::Phone, &format!("33{n}99990001")).replies.is_some());
        }
    }
}
