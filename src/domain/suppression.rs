//! Who is not written to: what an entry of the list names, why, and the form in which two spellings of one value meet.
//!
//! The table's own form is given by `campaignd_suppression_value` in the migrations, through which every value goes on its way
//! in and every look-up; [`Key`] brings a value as near to it as can be told without the database's locale.

use super::account::names;
use super::address;

/// Longest value, in characters, as the table has it.
const VALUE_MAX: usize = 500;

names! {
    /// What an entry names (`suppressions.kind`).
    Kind {
        /// One mail address.
        Address = "address",
        /// Every mail address of this domain and of those below it.
        Domain = "domain",
        /// A LinkedIn profile: the slug of its address, or LinkedIn's id of the person.
        Profile = "profile",
        /// A phone number.
        Phone = "phone",
    }
}

names! {
    /// Why nobody writes there (`suppressions.reason`).
    Reason {
        /// The person asked for it. Holds on every channel.
        Unsubscribed = "unsubscribed",
        /// Mail there bounced for good. Keeps mail from being sent, and nothing else.
        HardBounce = "hard_bounce",
        /// The person complained. Holds on every channel.
        Complaint = "complaint",
        /// Somebody of the workspace decided so. Holds on every channel.
        Manual = "manual",
    }
}

impl Reason {
    /// Whether an entry with this reason holds on every channel, and not for mail alone.
    pub const fn holds_everywhere(self) -> bool {
        match self {
            Self::Unsubscribed | Self::Complaint | Self::Manual => true,
            Self::HardBounce => false,
        }
    }
}

/// What an entry names: a kind, and a value in its usual form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    kind: Kind,
    value: String,
}

impl Key {
    /// Reads what a person wrote. Without a kind it is told from the text, where that can be done without guessing.
    ///
    /// # Errors
    /// What is wrong with it, in words that follow the value.
    pub fn parse(kind: Option<Kind>, text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        let kind = match kind {
            Some(kind) => kind,
            None => kind_of(text).ok_or_else(|| {
                "is no mail address, domain, LinkedIn URL or phone number with its country; name its kind (address, domain, \
                 profile, phone)"
                    .to_owned()
            })?,
        };
        let value = match kind {
            Kind::Address => address::email(text)?.to_ascii_lowercase(),
            Kind::Domain => {
                let domain = text.strip_prefix('@').unwrap_or(text).trim_end_matches('.');
                if !address::is_domain(domain) {
                    return Err("is not a domain: expected one such as example.com".to_owned());
                }
                domain.to_ascii_lowercase()
            }
            Kind::Profile => profile(address::linkedin_slug(text)?),
            Kind::Phone => {
                let phone = address::phone(text)?;
                let digits = phone.trim_start_matches('+');
                // No country's code starts so, and the form of a form must be itself.
                if digits.starts_with("00") {
                    return Err("is not a phone number: no country's code starts with 0".to_owned());
                }
                digits.to_owned()
            }
        };
        Ok(Self { kind, value })
    }

    /// What a row says, which may be anything: for entries that are made of people we know. `None`: there is nothing there, or
    /// more than the table takes.
    pub fn of_row(kind: Kind, text: &str) -> Option<Self> {
        let text = text.trim();
        let value = match kind {
            Kind::Address | Kind::Domain => text.to_ascii_lowercase(),
            Kind::Profile => address::linkedin_slug(text).map_or_else(|_| text.to_owned(), profile),
            Kind::Phone => {
                let digits: String = text.chars().filter(char::is_ascii_digit).collect();
                digits.strip_prefix("00").map_or(digits.clone(), str::to_owned)
            }
        };
        let fits = !value.is_empty() && !value.contains('\0') && value.chars().count() <= VALUE_MAX;
        fits.then_some(Self { kind, value })
    }

    /// The domains whose entry holds for this mail address: its own, and each that this one is below. None for another kind.
    pub fn domains(&self) -> Vec<Self> {
        let Some((_, own)) = self.value.rsplit_once('@').filter(|_| self.kind == Kind::Address) else {
            return Vec::new();
        };
        let above = std::iter::successors(Some(own), |domain| domain.split_once('.').map(|(_, above)| above));
        above
            .filter(|domain| *domain == own || domain.contains('.'))
            .filter_map(|d| Self::of_row(Kind::Domain, d))
            .collect()
    }

    /// What it names.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The value in its usual form.
    pub fn value(&self) -> &str {
        &self.value
    }
}

/// ASCII only: what a locale makes of other letters is the database's to say.
fn profile(slug: &str) -> String {
    if address::is_member_id(slug) { slug.to_owned() } else { slug.to_ascii_lowercase() }
}

/// The kind of a text that can be of one kind only. A bare word may be a slug or half of something else, and digits without a
/// country a phone number or an id: those have to be named.
fn kind_of(text: &str) -> Option<Kind> {
    if text.starts_with('@') {
        Some(Kind::Domain)
    } else if text.contains('@') {
        Some(Kind::Address)
    } else if address::is_linkedin_url(text) || address::is_member_id(text) {
        Some(Kind::Profile)
    } else if text.starts_with('+') || text.starts_with("00") {
        Some(Kind::Phone)
    } else if address::is_domain(text.trim_end_matches('.')) {
        Some(Kind::Domain)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_spelling_of_a_value_has_one_form_and_its_kind_is_told_from_it() {
        for (text, kind, value) in [
            (" Ada@Example.ORG ", Kind::Address, "ada@example.org"),
            ("@Example.org", Kind::Domain, "example.org"),
            ("mail.example.org.", Kind::Domain, "mail.example.org"),
            ("https://de.linkedin.com/in/Ada-L/?x=1", Kind::Profile, "ada-l"),
            ("linkedin.com/in/Ada-L", Kind::Profile, "ada-l"),
            ("ACoAAAbCdEfGhIjKl", Kind::Profile, "ACoAAAbCdEfGhIjKl"),
            ("+49 (30) 123-456", Kind::Phone, "4930123456"),
            ("0049 30 123456", Kind::Phone, "4930123456"),
        ] {
            let key = Key::parse(None, text).unwrap();
            assert_eq!((key.kind(), key.value()), (kind, value), "{text}");
            assert_eq!(Key::of_row(kind, text.trim_start_matches('@').trim_end_matches('.')), Some(key), "{text}");
        }
        assert_eq!(Key::parse(Some(Kind::Profile), "Ada-L").unwrap().value(), "ada-l");
        assert_eq!(Key::parse(Some(Kind::Phone), "030 123456").unwrap().value(), "030123456");
    }

    #[test]
    fn what_could_be_several_things_has_to_be_named_and_what_is_none_is_refused() {
        for text in ["ada-l", "030123456", "", " ", "?"] {
            assert!(Key::parse(None, text).is_err(), "{text}");
        }
        for (kind, text) in [
            (Kind::Address, "ada"),
            (Kind::Address, "ada@example.org\nx@y.z"),
            (Kind::Domain, "localhost"),
            (Kind::Domain, "ada@example.org"),
            (Kind::Profile, "https://example.org/in/ada"),
            (Kind::Phone, "12"),
        ] {
            assert!(Key::parse(Some(kind), text).is_err(), "{kind} {text}");
        }
    }

    #[test]
    fn an_address_is_covered_by_its_domain_and_by_those_above_it() {
        let domains = |address| {
            let key = Key::of_row(Kind::Address, address).unwrap();
            key.domains().into_iter().map(|d| d.value).collect::<Vec<_>>()
        };
        assert_eq!(domains("ada@mail.eu.Example.com"), ["mail.eu.example.com", "eu.example.com", "example.com"]);
        assert_eq!(domains("ada@localhost"), ["localhost"]);
        assert!(Key::of_row(Kind::Phone, "4930").unwrap().domains().is_empty());
    }

    proptest! {
        #[test]
        fn the_form_of_a_form_is_itself(text in "\\PC{0,40}") {
            for kind in Kind::ALL {
                if let Ok(key) = Key::parse(Some(*kind), &text) {
                    let again = Key::parse(Some(*kind), key.value());
                    prop_assert_eq!(again.as_ref(), Ok(&key));
                    prop_assert_eq!(Key::of_row(*kind, text.trim().trim_start_matches('@').trim_end_matches('.')), Some(key));
                }
            }
        }
    }
}
