//! What comes of a mail of ours: bounces, automatic answers, opens, clicks, and the unsubscribe link.

use serde_json::{Value, json};

use super::act::{Act, MailAct, re};
use super::conduct::Bounce;
use super::mailbox::{Answering, Mail, Mailbox};
use super::text::{iso, links, number};
use super::webhooks::Errand;
use super::world::{Event, World};

impl World {
    /// What a mail makes its receiver, and the servers on its way, do.
    pub(super) fn mail_sets_off(&mut self, account: usize, person: usize, mail: u64) {
        let Some(tracking) = self.mails.get(mail).map(|m| m.tracking.clone().unwrap_or_default()) else { return };
        let c = &self.people[person].conduct;
        if let Some(after) = c.bounce_after {
            self.later(after, Act::Mail { what: MailAct::Bounce(c.bounce), mail, person });
            return;
        }
        let acts = [
            (c.out_of_office_after, MailAct::OutOfOffice),
            (c.open_after.filter(|_| tracking.opens), MailAct::Open),
            (c.click_after.filter(|_| tracking.links), MailAct::Click),
            (c.unsubscribe_after, MailAct::Unsubscribe),
            (c.scan_after, MailAct::Scan),
        ];
        for (after, what) in acts {
            if let Some(after) = after {
                self.later(after, Act::Mail { what, mail, person });
            }
        }
        self.contact_sets_off(account, person);
    }

    /// Something comes of a mail to a person. `false`: it cannot, because there is no such mail, or nothing in it to follow.
    pub(super) fn mail_act(&mut self, what: MailAct, mail: u64, person: usize, url: Option<String>) -> bool {
        let Some(mail) = self.mails.get(mail).filter(|m| m.by_api).cloned() else { return false };
        let address = self.people[person].identity.clone();
        match what {
            MailAct::Bounce(kind) => self.bounce(&mail, person, &address, kind),
            MailAct::OutOfOffice => self.out_of_office(&mail, person),
            MailAct::Open => self.track(&mail, person, "open", None),
            MailAct::Click => {
                let choice = links(&mail.body);
                let url = url.or_else(|| {
                    let n = number(self.opts.seed, &[&address, "link"]) % choice.len().max(1) as u64;
                    choice.into_iter().nth(usize::try_from(n).unwrap_or(0))
                });
                let Some(url) = url else { return false };
                self.track(&mail, person, "click", Some(url))
            }
            MailAct::Unsubscribe => self.unsubscribe(&mail, person, "unsubscribe"),
            MailAct::Scan => self.unsubscribe(&mail, person, "scan"),
        }
    }

    fn bounce(&mut self, mail: &Mail, person: usize, failed: &str, kind: Bounce) -> bool {
        let (name, subject, code, why) = match kind {
            Bounce::Hard => (
                "bounce",
                "Delivery Status Notification (Failure)",
                "550 5.1.1",
                "The email account that you tried to reach does not exist.",
            ),
            Bounce::Soft => (
                "soft_bounce",
                "Delivery Status Notification (Delay)",
                "452 4.2.2",
                "The email account that you tried to reach is over quota.",
            ),
        };
        let title = if kind == Bounce::Hard { "Address not found" } else { "Delivery incomplete" };
        let body = format!(
            "<p>{title}</p><p>Your message wasn't delivered to {failed} because the address couldn't be found, or is \
             unable to receive mail.</p><p>The response from the remote server was:</p><p>{code} {why} Final-Recipient: \
             rfc822; {failed}</p>"
        );
        let headers = [
            ("Auto-Submitted", "auto-replied"),
            ("X-Failed-Recipients", failed),
            ("Content-Type", "multipart/report; report-type=delivery-status"),
            ("Return-Path", "<>"),
        ];
        let from = Mailbox::new("Mail Delivery Subsystem", "mailer-daemon@googlemail.com");
        let deed = self.deed(name, mail.account, person, None);
        let answer = Answering {
            from,
            to: mail.from.clone(),
            subject: subject.to_owned(),
            body,
            threaded: self.people[person].conduct.threaded,
            headers: owned(&headers),
            deed,
        };
        self.mail_in(mail, answer);
        true
    }

    fn out_of_office(&mut self, mail: &Mail, person: usize) -> bool {
        let them = self.people[person].clone();
        let text = format!("I am out of the office with limited access to my mail. {}", them.first_name);
        let headers = [
            ("Auto-Submitted", "auto-replied"),
            ("X-Autoreply", "yes"),
            ("X-Auto-Response-Suppress", "All"),
            ("Precedence", "auto_reply"),
        ];
        let deed = self.deed("out_of_office", mail.account, person, Some(text.clone()));
        let from = Mailbox::new(them.full_name(), &them.identity);
        // Outlook's form of the subject, or Gmail's.
        let outlook = number(self.opts.seed, &[&them.identity, "out of office subject"]).is_multiple_of(2);
        let subject = if outlook {
            format!("Automatic reply: {}", mail.subject)
        } else {
            format!("Out of office {}", re(&mail.subject))
        };
        // A machine answers whom the mail came from, not whom people are to write to.
        let (to, body, headers) = (mail.from.clone(), format!("<p>{text}</p>"), owned(&headers));
        self.mail_in(mail, Answering { from, to, subject, body, threaded: true, headers, deed });
        true
    }

    /// An open or a click, if the mail is tracked for it or the sandbox is told to.
    fn track(&mut self, mail: &Mail, person: usize, kind: &'static str, url: Option<String>) -> bool {
        let Some(tracking) = mail.tracking.as_ref() else { return false };
        let deed = self.deed(kind, mail.account, person, None);
        self.about(deed, &mail.message_id);
        if let Some(deed) = self.deeds.get_mut(deed) {
            deed.url.clone_from(&url);
        }
        let name = if kind == "open" { "mail_opened" } else { "mail_link_clicked" };
        let event_id = self.new_id(&[name, &mail.id]);
        let mut body = json!({
            "event": name, "event_id": event_id, "webhook_name": "", "tracking_id": tracking.id,
            "date": iso(self.now), "email_id": mail.id, "account_id": self.accounts[mail.account].id,
            "ip": "192.0.2.7", "user_agent": "Mozilla/5.0", "label": tracking.label,
            "custom_domain": tracking.custom_domain,
        });
        if let (Some(url), Value::Object(fields)) = (url, &mut body) {
            fields.insert("url".to_owned(), json!(url));
        }
        let (account, key) = (mail.account, self.unique_key(&["of mail", name, &mail.key]));
        self.emit(Event { source: "email_tracking", name, account, body, key, deed: Some(deed) });
        true
    }

    /// Follows the unsubscribe link of a mail: by its one-click header if it has one; a scanner only asks for it.
    fn unsubscribe(&mut self, mail: &Mail, person: usize, kind: &'static str) -> bool {
        let Some(url) = unsubscribe_url(mail) else { return false };
        let one_click = kind == "unsubscribe"
            && mail.header("List-Unsubscribe-Post").is_some_and(|v| v.contains("List-Unsubscribe=One-Click"));
        let deed = self.deed(kind, mail.account, person, one_click.then(|| "one-click".to_owned()));
        self.about(deed, &mail.message_id);
        if let Some(deed) = self.deeds.get_mut(deed) {
            deed.url = Some(url.clone());
        }
        self.errands.push(Errand { deed, url, one_click });
        true
    }
}

/// The web address of the header, under its name or the provider's; else of a link in the body that speaks of it.
fn unsubscribe_url(mail: &Mail) -> Option<String> {
    let header = mail.header("List-Unsubscribe").or_else(|| mail.header("Unscribe-List"));
    let listed = header.into_iter().flat_map(|h| h.split(','));
    let mut urls = listed.map(|u| u.trim().trim_start_matches('<').trim_end_matches('>').to_owned());
    urls.find(|u| u.starts_with("http://") || u.starts_with("https://"))
        .or_else(|| links(&mail.body).into_iter().find(|u| u.to_ascii_lowercase().contains("unsubscribe")))
}

fn owned(headers: &[(&str, &str)]) -> Vec<(String, String)> {
    headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
}
