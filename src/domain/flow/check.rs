//! What must hold between the steps of a flow: ids are unique, targets exist and lie ahead, every step can be reached, and a
//! LinkedIn message is only sent to a connection.

use super::super::execution::WaitTrigger;
use super::super::send::Action;
use super::names::{nearest, quote};
use super::parse::{Form, Reader};
use super::problem::Place;
use super::steps::{Does, Draft};
use super::wait::Target;

/// Checks the steps together. In the old forms a LinkedIn message that may come before a connection is given its condition.
pub(super) fn between_steps(reader: &mut Reader, steps: &Place, drafts: &mut [Draft]) {
    unique_ids(reader, steps, drafts);
    let jumps = targets(reader, drafts);
    waits_have_an_invitation(reader, drafts);
    threads_have_a_beginning(reader, drafts);
    let (reached, connected) = walk(drafts, &jumps);
    for (draft, reached) in drafts.iter().zip(&reached) {
        if !reached {
            reader.add(&draft.place, "can never be reached: remove the step, or let an on_timeout go to it");
        }
    }
    for ((draft, reached), connected) in drafts.iter_mut().zip(reached).zip(connected) {
        let message = draft.does == Does::Built(Action::SendLinkedinMessage);
        if !message || !reached || connected || draft.requires.connected {
            continue;
        }
        if reader.form == Form::Legacy {
            draft.requires.connected = true;
        } else {
            reader.add(
                &draft.place,
                "a LinkedIn message can be reached without a connection: add \"requires\": [\"connected\"], or let an earlier \
                 send_linkedin_cr wait for connection_accepted with on_timeout complete or fail",
            );
        }
    }
}

fn unique_ids(reader: &mut Reader, steps: &Place, drafts: &[Draft]) {
    for (i, draft) in drafts.iter().enumerate() {
        let Some(id) = &draft.id else { continue };
        if let Some(first) = drafts.iter().take(i).position(|d| d.id.as_ref() == Some(id)) {
            reader.add(
                &steps.index(i).key("id"),
                format!("`{id}` is already the id of step {} (counted from 1): give this one its own", first + 1),
            );
        }
    }
}

/// For each step, the index that its wait jumps to when it runs out; `None` without a jump or after a problem.
fn targets(reader: &mut Reader, drafts: &[Draft]) -> Vec<Option<usize>> {
    let mut jumps = Vec::with_capacity(drafts.len());
    for (i, draft) in drafts.iter().enumerate() {
        let mut jump = None;
        if let Some(wait) = &draft.wait
            && let Some(Target::Goto(id)) = &wait.on_timeout
        {
            let place = wait.place.key("on_timeout");
            match drafts.iter().position(|d| d.id.as_ref() == Some(id)) {
                Some(target) if target > i => jump = Some(target),
                Some(_) => reader.add(
                    &place,
                    format!("goes back to step `{id}`, a cycle without bound: go to a step that comes later"),
                ),
                None => {
                    let hint = match nearest(id, drafts.iter().filter_map(|d| d.id.as_deref())) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "use the id of a later step".to_owned(),
                    };
                    reader.add(&place, format!("there is no step `{}`: {hint}", quote(id)));
                }
            }
        }
        jumps.push(jump);
    }
    jumps
}

fn waits_have_an_invitation(reader: &mut Reader, drafts: &[Draft]) {
    for (i, draft) in drafts.iter().enumerate() {
        let Some(wait) = draft.wait.as_ref().filter(|w| w.trigger == Some(WaitTrigger::ConnectionAccepted)) else {
            continue;
        };
        let invited = drafts.iter().take(i + 1).any(|d| d.does == Does::Built(Action::SendLinkedinCr));
        // What a step of unknown action does is not known, and has been reported.
        if !invited && matches!(draft.does, Does::Built(_)) {
            reader.add(
                &wait.place,
                "waits for connection_accepted, but no send_linkedin_cr comes before: invite first, or wait for reply",
            );
        }
    }
}

fn threads_have_a_beginning(reader: &mut Reader, drafts: &[Draft]) {
    for (i, draft) in drafts.iter().enumerate().filter(|(_, d)| d.in_thread) {
        if !drafts.iter().take(i).any(|d| d.does == Does::Built(Action::SendEmail)) {
            reader.add(
                &draft.place.key("in_thread"),
                "goes on in the thread of an earlier mail, but no send_email comes before: remove it, or mail first",
            );
        }
    }
}

/// For each step whether it can be reached, and whether everybody who reaches it is a connection. All ways lead ahead, so one
/// pass is enough.
fn walk(drafts: &[Draft], jumps: &[Option<usize>]) -> (Vec<bool>, Vec<bool>) {
    let mut reached = vec![false; drafts.len()];
    let mut connected = vec![true; drafts.len()];
    if let (Some(r), Some(c)) = (reached.first_mut(), connected.first_mut()) {
        (*r, *c) = (true, false);
    }
    for (i, draft) in drafts.iter().enumerate() {
        let (Some(true), Some(here)) = (reached.get(i).copied(), connected.get(i).copied()) else { continue };
        let mut go = |to: usize, connection: bool| {
            if let (Some(r), Some(c)) = (reached.get_mut(to), connected.get_mut(to)) {
                *r = true;
                *c &= connection;
            }
        };
        if draft.does == Does::End {
            continue;
        }
        // Without a wait, or passed over because its condition does not hold.
        if draft.wait.is_none() || draft.requires.connected {
            go(i + 1, here);
        }
        let Some(wait) = &draft.wait else { continue };
        // The trigger came.
        go(i + 1, here || wait.trigger == Some(WaitTrigger::ConnectionAccepted));
        // It did not.
        match (&wait.on_timeout, jumps.get(i).copied().flatten()) {
            (Some(Target::Continue), _) => go(i + 1, here),
            (Some(Target::Goto(_)), Some(to)) => go(to, here),
            // It ends, or where it goes is unknown and reported.
            _ => {}
        }
    }
    (reached, connected)
}
