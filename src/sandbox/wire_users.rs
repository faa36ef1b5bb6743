//! `/users`: the account's own profile, other people's, and relations.

use serde_json::{Value, json};

use super::call::Call;
use super::errors::Problem;
use super::ledger::Entry;
use super::options::AccountKind;
use super::page::Page;
use super::people::{Place, is_slug, whatsapp_digits};
use super::settings::merge;
use super::text::number;
use super::wire::Answer;
use super::world::{Link, World};

pub(super) fn me(w: &mut World, call: &Call) -> Answer {
    let account = call.query_account(w, None)?;
    let own = &w.accounts[account];
    let (first, last) = own.name.split_once(' ').unwrap_or((&own.name, ""));
    let profile = match own.kind {
        AccountKind::LinkedIn => json!({
            "provider": "LINKEDIN", "provider_id": own.own_id, "public_identifier": own.identity,
            "entity_urn": format!("urn:li:fsd_profile:{}", own.own_id), "object_urn": w.member_urn(&own.own_id),
            "first_name": first, "last_name": last, "profile_picture_url": null,
            "public_profile_url": format!("https://www.linkedin.com/in/{}/", own.identity),
            "email": format!("{}@sender.example", own.identity), "premium": own.premium, "open_profile": false,
            "recruiter": null, "sales_navigator": null,
        }),
        AccountKind::Mail => {
            let other = own.aliases.iter().map(|a| json!({ "email": a, "is_primary": false }));
            let first = json!({ "email": own.identity, "display_name": own.name, "is_primary": true });
            let aliases: Vec<Value> = std::iter::once(first).chain(other).collect();
            json!({ "provider": "GMAIL", "email": own.identity, "aliases": aliases })
        }
        AccountKind::WhatsApp => json!({ "provider": "WHATSAPP", "id": own.own_id }),
    };
    let mut body = json!({ "object": "AccountOwnerProfile" });
    merge(&mut body, &profile);
    Ok((200, body))
}

pub(super) fn profile(w: &mut World, call: &Call) -> Answer {
    let account = call.query_account(w, None)?;
    let identifier = call.part(1).to_owned();
    match w.accounts[account].kind {
        AccountKind::Mail => Err(Problem::new(422, "invalid_account", "The account is not designed for this feature.")),
        AccountKind::WhatsApp => {
            let known = w.known.get(&identifier).copied().filter(|&p| w.people[p].place == Place::Phone);
            let person = match (known, whatsapp_digits(&identifier)) {
                (Some(person), _) => person,
                (None, Some(digits)) => w.meet(Place::Phone, digits),
                (None, None) => return Err(Problem::missing("user")),
            };
            if !w.people[person].conduct.reachable {
                return Err(Problem::missing("user"));
            }
            let them = &w.people[person];
            let id = if them.conduct.lid_only { &them.lid } else { &them.provider_id };
            Ok((200, json!({ "object": "UserProfile", "provider": "WHATSAPP", "id": id })))
        }
        AccountKind::LinkedIn => linkedin_profile(w, call, account, &identifier),
    }
}

fn linkedin_profile(w: &mut World, call: &Call, account: usize, identifier: &str) -> Answer {
    match call.query("linkedin_api") {
        None | Some("" | "classic") => {}
        Some("recruiter" | "sales_navigator") => {
            return Err(Problem::new(403, "feature_not_subscribed", "The account has no such subscription."));
        }
        Some(_) => return Err(Problem::invalid("linkedin_api must be recruiter or sales_navigator.")),
    }
    let visit = match call.query("notify") {
        None | Some("" | "false" | "0") => false,
        Some("true" | "1") => true,
        Some(_) => return Err(Problem::invalid("notify must be true or false.")),
    };
    let slug = identifier.to_lowercase();
    if [w.accounts[account].identity.as_str(), w.accounts[account].own_id.as_str()].contains(&identifier) {
        return Ok((200, own_profile(w, account)));
    }
    w.charge(account, &["profile"])?;
    let person = if let Some(&person) = w.known.get(identifier).filter(|p| w.people[**p].place == Place::LinkedIn) {
        person
    } else if is_slug(&slug) && !identifier.starts_with("ACoAA") {
        w.meet(Place::LinkedIn, &slug)
    } else {
        return Err(Problem::missing("user"));
    };
    if visit {
        let them = &w.people[person];
        let entry = Entry {
            kind: "visit",
            account_id: w.accounts[account].id.clone(),
            recipient: them.provider_id.clone(),
            recipient_public: them.identity.clone(),
            ..Entry::default()
        };
        w.ledger.write(w.now, entry);
    }
    let mut profile = profile_json(w, account, person);
    sections(&mut profile, call);
    Ok((200, profile))
}

/// The sections asked for; a `*` of everything is throttled in part, as it is in earnest.
fn sections(profile: &mut Value, call: &Call) {
    const ALL: [&str; 5] = ["experience", "education", "languages", "skills", "certifications"];
    let asked: Vec<&str> = call
        .query
        .iter()
        .filter(|(n, _)| n.trim_end_matches("[]") == "linkedin_sections")
        .flat_map(|(_, v)| v.split(','))
        .map(str::trim)
        .collect();
    let everything = asked.contains(&"*");
    for section in ALL {
        let preview = asked.contains(&"*_preview") || asked.contains(&format!("{section}_preview").as_str());
        if everything || preview || asked.contains(&section) {
            let name = if section == "experience" { "work_experience" } else { section };
            profile[name] = json!([]);
        }
    }
    if everything {
        profile["throttled_sections"] = json!(["experience"]);
    }
}

fn own_profile(w: &World, account: usize) -> Value {
    let own = &w.accounts[account];
    let (first, last) = own.name.split_once(' ').unwrap_or((&own.name, ""));
    json!({
        "object": "UserProfile", "provider": "LINKEDIN", "provider_id": own.own_id,
        "public_identifier": own.identity, "first_name": first, "last_name": last, "headline": "", "is_self": true,
        "is_premium": own.premium, "is_relationship": false, "websites": [], "throttled_sections": [],
        "public_profile_url": format!("https://www.linkedin.com/in/{}/", own.identity),
    })
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
        "can_send_inmail": them.conduct.takes_inmail, "is_open_profile": them.conduct.open_profile,
        "is_premium": them.conduct.open_profile, "is_influencer": false, "is_creator": false, "is_hiring": false,
        "is_open_to_work": false, "is_relationship": connected, "is_self": false,
        "network_distance": if connected { "FIRST_DEGREE" } else { "SECOND_DEGREE" },
        "follower_count": draw("followers", 5000), "connections_count": draw("connections", 3000),
        "shared_connections_count": draw("shared", 40), "throttled_sections": [],
        "public_profile_url": format!("https://www.linkedin.com/in/{}/", them.identity),
    });
    let invitation = match link {
        Some(Link::Pending { .. }) => json!({ "type": "SENT", "status": "PENDING" }),
        Some(Link::Withdrawn { .. }) => json!({ "type": "SENT", "status": "WITHDRAWN" }),
        Some(Link::Declined { .. }) => json!({ "type": "SENT", "status": "IGNORED" }),
        Some(Link::Received { .. }) => json!({ "type": "RECEIVED", "status": "PENDING" }),
        Some(Link::Connected { .. }) | None => return profile,
    };
    profile["invitation"] = invitation;
    profile
}

pub(super) fn relations(w: &mut World, call: &Call) -> Answer {
    let page = Page::read(call, 100, 1000)?;
    let account = w.account(page.get("account_id"), Some(AccountKind::LinkedIn))?;
    w.charge(account, &["relations"])?;
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
            "public_profile_url": them.profile_url(),
        });
        (number, item)
    });
    Ok((200, page.list("UserRelationsList", items)))
}
