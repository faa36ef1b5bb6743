//! Who people are: names, ids and conduct follow from the seed and the identity they were asked for by.

use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::conduct::Conduct;
use super::text::{digest, number, opaque};

/// Where an identity lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    LinkedIn,
    Mail,
    Phone,
}

impl Place {
    /// The word of the inspection API.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::LinkedIn => "linkedin",
            Self::Mail => "email",
            Self::Phone => "whatsapp",
        }
    }

    /// The place an identity must be of: an address, a number (or its JID), or else a slug.
    pub(super) fn of(identity: &str) -> Self {
        let number = identity.strip_suffix("@s.whatsapp.net").unwrap_or(identity).trim_start_matches('+');
        if number.len() >= 6 && number.bytes().all(|b| b.is_ascii_digit()) {
            Self::Phone
        } else if identity.contains('@') {
            Self::Mail
        } else {
            Self::LinkedIn
        }
    }
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
    pub(super) conduct: Conduct,
    /// Rises when the conduct is set anew: what was set off under an older one does not happen any more.
    pub(super) plan: u32,
    /// How many replies have been set off.
    pub(super) replies_set: u32,
    pub(super) replied: bool,
    /// Whether the owner's writing by hand has been set off.
    pub(super) hand_set: bool,
    /// Whether the owner has written.
    pub(super) hand_wrote: bool,
}

impl Person {
    /// Makes somebody out of an identity.
    pub(super) fn meet(seed: u64, how: &Behaviour, place: Place, identity: &str) -> Self {
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
            conduct: Conduct::of(seed, how, place, identity),
            plan: 0,
            replies_set: 0,
            replied: false,
            hand_set: false,
            hand_wrote: false,
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

/// A slug that can be somebody's: 3 to 100 small letters (of any script), digits and hyphens, and not `missing-` in front.
pub(super) fn is_slug(text: &str) -> bool {
    (3..=100).contains(&text.chars().count())
        && text.chars().all(|c| c == '-' || (c.is_alphanumeric() && !c.is_uppercase()))
        && !text.starts_with("missing-")
}

/// The digits of `<digits>@s.whatsapp.net`; `None` for what is no such id.
pub(super) fn whatsapp_digits(id: &str) -> Option<&str> {
    let digits = id.strip_suffix("@s.whatsapp.net")?;
    is_number(digits).then_some(digits)
}

/// Digits of a telephone number.
pub(super) fn is_number(digits: &str) -> bool {
    (6..=15).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
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
    fn a_slug_is_made_of_small_letters_of_any_script() {
        for (text, fits) in [
            ("jane-doe-42", true),
            ("josé-müller", true),
            ("ab", false),
            ("missing-jane", false),
            ("a_b", false),
            ("Jane", false),
        ] {
            assert_eq!(is_slug(text), fits, "{text}");
        }
    }

    #[test]
    fn an_identity_says_where_it_lives() {
        for (identity, place) in [
            ("jane-doe", Place::LinkedIn),
            ("1984", Place::LinkedIn),
            ("jane@example.com", Place::Mail),
            ("+33612345678", Place::Phone),
            ("33612345678@s.whatsapp.net", Place::Phone),
        ] {
            assert_eq!(Place::of(identity), place, "{identity}");
        }
        let how = Behaviour::default();
        assert_ne!(
            Person::meet(8, &how, Place::LinkedIn, "jane").provider_id,
            Person::meet(7, &how, Place::LinkedIn, "jane").provider_id
        );
    }
}
