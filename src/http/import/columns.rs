//! Column names: what people call the columns in their files, and ours.

/// A column of `campaign_prospects`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Column {
    /// Given name.
    FirstName,
    /// Family name.
    LastName,
    /// Mail address.
    Email,
    /// Phone number.
    Phone,
    /// LinkedIn profile.
    Linkedin,
    /// Employer.
    Company,
    /// Job title.
    Title,
}

impl Column {
    /// Whether a person can be contacted by it.
    pub(crate) const fn is_contact(self) -> bool {
        matches!(self, Self::Email | Self::Phone | Self::Linkedin)
    }

    /// The column a header means: `First Name`, `firstName`, `first_name` and `Vorname` are one. `None`: it goes to `data`.
    pub(crate) fn from_header(header: &str) -> Option<Self> {
        let plain: String = header.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        Some(match plain.as_str() {
            "firstname" | "first" | "givenname" | "vorname" => Self::FirstName,
            "lastname" | "last" | "surname" | "familyname" | "nachname" => Self::LastName,
            "email" | "mail" | "emailaddress" | "workemail" | "businessemail" => Self::Email,
            "phone" | "phonenumber" | "mobile" | "mobilephone" | "cellphone" | "telephone" | "tel" | "whatsapp"
            | "whatsappnumber" => Self::Phone,
            "linkedin" | "linkedinurl" | "linkedinprofile" | "linkedinprofileurl" | "linkedinlink" | "profileurl"
            | "publicprofileurl" | "personlinkedinurl" => Self::Linkedin,
            "company" | "companyname" | "organization" | "organisation" | "employer" | "firma" => Self::Company,
            "title" | "jobtitle" | "position" | "role" => Self::Title,
            _ => return None,
        })
    }
}

/// The key under which an unknown CSV column is stored in `data`: letters, digits and `_`, so that a template can name it.
pub(crate) fn data_key(header: &str) -> String {
    let mut key = String::with_capacity(header.len());
    for c in header.trim().chars() {
        if c.is_alphanumeric() {
            key.extend(c.to_lowercase());
        } else if !key.is_empty() && !key.ends_with('_') {
            key.push('_');
        }
    }
    key.truncate(key.trim_end_matches('_').len());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_every_spelling_mean_their_column() {
        for (header, column) in [
            ("First Name", Column::FirstName),
            ("firstName", Column::FirstName),
            ("LAST_NAME", Column::LastName),
            ("E-Mail", Column::Email),
            ("LinkedIn URL", Column::Linkedin),
            ("linkedin", Column::Linkedin),
            ("Company Name", Column::Company),
            ("Job Title", Column::Title),
            ("WhatsApp", Column::Phone),
        ] {
            assert_eq!(Column::from_header(header), Some(column), "{header}");
        }
        assert_eq!(Column::from_header("Favourite colour"), None);
    }

    #[test]
    fn a_data_key_can_stand_in_a_template() {
        assert_eq!(data_key(" Favourite  colour (UK) "), "favourite_colour_uk");
        assert_eq!(data_key("--"), "");
    }
}
