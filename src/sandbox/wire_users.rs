//! `/users`: profiles, invitations, relations.

use std::time::Duration;

use serde_json::{Value, json};

use super::act::Act;
use super::errors::Problem;
use super::ledger::Entry;
use super::options::AccountKind;
use super::page::Page;
use super::people::{Place, is_slug, whatsapp_digits};
use super::text::{iso, number};
use super::wire::{Answer, Call};
use super::world::{Link, World};

/// Longest note of an invitation, in characters.
const NOTE_MAX: usize = 300;
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long nobody can be invited again after the invitation was withdrawn.
const COOL_DOWN: Duration = Duration::from_secs(21 * 24 * 3600);

pub(super) fn me(w: &mut World, call: &Call) -> Answer {
    let account = call.query_account(w, None)?;
    let own = &w.accounts[account];
    let (first, last) = own.name.split_once(' ').unwrap_or((&own.name, ""));
    let object = match own.kind {
        AccountKind::LinkedIn => "AccountOwnerProfile",
        _ => "AccountOwner",
    };
    Ok((
        200,
        json!({
            "object": object, "provider": own.kind.wire(), "provider_id": own.own_id,
            "public_identifier": own.identity, "entity_urn": format!("urn:li:fsd_profile:{}", own.own_id),
            "object_urn": null, "first_name": first, "last_name": last, "email": null, "premium": true,
            "open_profile": false, "recruiter": null, "sales_navigator": null,
        }),
    ))
}

pub(super) fn profile(w: &mut World, call: &Call) -> Answer {
    let account = call.query_account(w, None)?;
    let identifier = call.part(1).to_owned();
    match w.accounts[account].kind {
        AccountKind::Mail => Err(Problem::new(422, "invalid_account", "The account is not designed for this feature.")),
        AccountKind::WhatsApp => {
            let digits = whatsapp_digits(&identifier).or_else(|| {
                w.known
                    .get(&identifier)
                    .map(|&p| &w.people[p])
                    .filter(|p| p.place == Place::Phone)
                    .map(|p| p.identity.as_str())
            });
            let digits = digits.ok_or_else(|| Problem::missing("user"))?.to_owned();
            let person = w.meet(Place::Phone, &digits);
            Ok((200, json!({ "object": "UserProfile", "provider": "WHATSAPP", "id": w.people[person].provider_id })))
        }
        AccountKind::LinkedIn => {
            let slug = identifier.to_lowercase();
            let person = if let Some(&person) = w.known.get(&identifier) {
                person
            } else if is_slug(&slug) && !slug.starts_with("missing-") {
                w.meet(Place::LinkedIn, &slug)
            } else {
                return Err(Problem::missing("user"));
            };
            Ok((200, profile_json(w, account, person)))
        }
    }
}

fn profile_json(w: &World, account: usize, person: usize) -> Value {
    let them = &w.people[person];
    let draw = |what: &str, n: u64| number(w.opts.seed, &[&them.identity, what]) % n;
    let link = w.links.get(&(account, person));
    let connected = matches!(link, Some(Link::Connected { .. }));
    let mut profile = json!({
        "object": "UserProfile", "provider": "LINKEDIN", "provider_id": them.provider_id,
        "public_identifier": them.identity,
        "member_urn": format!("urn:li:member:{}", draw("member", 1_000_000_000)),
        "first_name": them.first_name, "last_name": them.last_name, "headline": them.headline, "summary": "",
        "location": "Somewhere", "websites": [],
        "contact_info": { "emails": [], "phones": [], "adresses": [], "socials": [] },
        "can_send_inmail": true, "is_open_profile": false, "is_premium": false, "is_influencer": false,
        "is_creator": false, "is_hiring": false, "is_open_to_work": false,
        "is_relationship": connected, "is_self": false,
        "network_distance": if connected { "FIRST_DEGREE" } else { "SECOND_DEGREE" },
        "follower_count": draw("followers", 5000), "connections_count": draw("connections", 3000),
        "shared_connections_count": draw("shared", 40), "throttled_sections": [],
        "public_profile_url": format!("https://www.linkedin.com/in/{}/", them.identity),
    });
    let status = match link {
        Some(Link::Pending { .. }) => "PENDING",
        Some(Link::Withdrawn { .. }) => "WITHDRAWN",
        _ => return profile,
    };
    profile["invitation"] = json!({ "type": "SENT", "status": status });
    profile
}

pub(super) fn invite(w: &mut World, call: &Call) -> Answer {
    let account = call.body_account(w, Some(AccountKind::LinkedIn))?;
    let Some(provider_id) = call.text("provider_id").filter(|p| !p.is_empty()) else {
        return Err(Problem::new(400, "missing_parameters", "provider_id is required."));
    };
    let note = call.text("message").filter(|m| !m.is_empty()).map(str::to_owned);
    if note.as_deref().is_some_and(|n| n.chars().count() > NOTE_MAX) {
        return Err(Problem::new(400, "too_many_characters", format!("message is limited to {NOTE_MAX} characters.")));
    }
    let person = w.known.get(provider_id).copied().filter(|&p| w.people[p].provider_id == provider_id);
    let Some(person) = person.filter(|&p| w.people[p].place == Place::LinkedIn) else {
        return Err(Problem::new(422, "invalid_recipient", "Recipient cannot be reached."));
    };
    match w.links.get(&(account, person)) {
        None => {}
        Some(Link::Withdrawn { at }) if w.now.since(*at) >= COOL_DOWN => {}
        Some(Link::Connected { .. }) => {
            return Err(Problem::new(422, "already_connected", "The recipient is already a relation."));
        }
        Some(Link::Pending { .. } | Link::Withdrawn { .. }) => {
            return Err(Problem::new(
                422,
                "already_invited_recently",
                "An invitation has already been sent recently to this recipient.",
            ));
        }
    }
    let usage = use_quota(w, account)?;
    let number = w.number();
    let id =
        (7_400_000_000_000_000_000 + self::number(w.opts.seed, &[&w.new_id()]) % 90_000_000_000_000_000).to_string();
    let link = Link::Pending { id: id.clone(), number, at: w.now, note: note.clone() };
    w.links.insert((account, person), link);
    w.invitations.insert(id.clone(), (account, person));
    if let Some(after) = w.people[person].accepts {
        w.later(after, Act::Accept { account, person, invitation: id.clone() });
    }
    let entry = Entry {
        kind: "invite",
        account_id: w.accounts[account].id.clone(),
        recipient: w.people[person].provider_id.clone(),
        recipient_public: w.people[person].identity.clone(),
        text: note,
        invitation_id: Some(id.clone()),
        ..Entry::default()
    };
    w.ledger.write(w.now, entry);
    let mut body = json!({ "object": "UserInvitationSent", "invitation_id": id });
    if let Some(usage) = usage {
        body["usage"] = json!(usage);
    }
    Ok((200, body))
}

/// Counts an invitation against the day; gives the landing (50, 75, 90, 95) when it is newly reached.
fn use_quota(w: &mut World, account: usize) -> Result<Option<u32>, Problem> {
    let Some(limit) = w.opts.invites_per_day else { return Ok(None) };
    let now = w.now;
    let own = &mut w.accounts[account];
    while own.invites.front().is_some_and(|&at| now.since(at) >= DAY) {
        own.invites.pop_front();
    }
    let used = u32::try_from(own.invites.len()).unwrap_or(u32::MAX);
    if used >= limit {
        return Err(Problem::new(422, "cannot_resend_yet", "You have reached a temporary provider limit."));
    }
    own.invites.push_back(now);
    let percent = (used + 1).saturating_mul(100) / limit.max(1);
    let landing = [95, 90, 75, 50].into_iter().find(|l| percent >= *l).unwrap_or(0);
    let news = (landing > own.landing).then_some(landing);
    own.landing = landing;
    Ok(news)
}

pub(super) fn sent(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 250)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::LinkedIn))?;
    let own = &w.accounts[account];
    let mut pending: Vec<_> = w
        .links
        .iter()
        .filter_map(|(&(a, person), link)| match link {
            Link::Pending { id, number, at, note } if a == account => Some((*number, person, id, *at, note)),
            _ => None,
        })
        .collect();
    pending.sort_unstable_by_key(|p| std::cmp::Reverse(p.0));
    let items = pending.into_iter().map(|(number, person, id, at, note)| {
        let them = &w.people[person];
        let days = w.now.since(at).as_secs() / 86_400;
        let date = if days == 0 { "Sent today".to_owned() } else { format!("Sent {days} days ago") };
        let item = json!({
            "object": "InvitationSent", "id": id, "invited_user": them.full_name(),
            "invited_user_id": them.provider_id, "invited_user_public_id": them.identity,
            "invited_user_description": them.headline, "invited_user_profile_picture_url": null,
            "date": date, "parsed_datetime": iso(at), "invitation_text": note,
            "inviter": { "inviter_name": own.name, "inviter_id": own.own_id,
                "inviter_public_identifier": own.identity, "inviter_description": null },
            "specifics": { "provider": "LINKEDIN", "shared_secret": "sandbox" },
        });
        (number, item)
    });
    Ok((200, page.list("InvitationList", items)))
}

/// Nobody invites the accounts of a sandbox.
pub(super) fn received(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 10, 100)?;
    w.account(page.get("account_id"), Some(AccountKind::LinkedIn))?;
    Ok((200, page.list("InvitationList", std::iter::empty())))
}

pub(super) fn withdraw(w: &mut World, call: &Call) -> Answer {
    let account = call.query_account(w, Some(AccountKind::LinkedIn))?;
    let id = call.part(3);
    let Some(&(owner, person)) = w.invitations.get(id).filter(|(owner, _)| *owner == account) else {
        return Err(Problem::missing("invitation"));
    };
    w.invitations.remove(id);
    w.links.insert((owner, person), Link::Withdrawn { at: w.now });
    let entry = Entry {
        kind: "withdraw",
        account_id: w.accounts[account].id.clone(),
        recipient: w.people[person].provider_id.clone(),
        recipient_public: w.people[person].identity.clone(),
        invitation_id: Some(id.to_owned()),
        ..Entry::default()
    };
    w.ledger.write(w.now, entry);
    Ok((200, json!({ "object": "InvitationCanceled" })))
}

pub(super) fn relations(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 1000)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::LinkedIn))?;
    let filter = page.get("filter").unwrap_or_default().to_lowercase();
    let mut related: Vec<_> = w
        .links
        .iter()
        .filter_map(|(&(a, person), link)| match link {
            Link::Connected { at, number } if a == account => Some((*number, person, *at)),
            _ => None,
        })
        .filter(|(_, person, _)| w.people[*person].full_name().to_lowercase().contains(&filter))
        .collect();
    related.sort_unstable_by_key(|r| std::cmp::Reverse(r.0));
    let items = related.into_iter().map(|(number, person, at)| {
        let them = &w.people[person];
        let item = json!({
            "object": "UserRelation", "member_id": them.provider_id,
            "member_urn": format!("urn:li:fsd_profile:{}", them.provider_id),
            "connection_urn": format!("urn:li:fsd_connection:{}", them.provider_id),
            "created_at": at.as_micros().div_euclid(1000), "first_name": them.first_name,
            "last_name": them.last_name, "headline": them.headline, "public_identifier": them.identity,
            "public_profile_url": them.profile_url(), "profile_picture_url": null,
        });
        (number, item)
    });
    Ok((200, page.list("UserRelationsList", items)))
}
