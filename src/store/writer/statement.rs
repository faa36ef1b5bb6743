//! The statements of a batch, by what it holds. A lone transition is as fast as its statement is small: starting up parts
//! that have nothing to do, over all partitions of `sends`, costs more than the rest of it.
//!
//! Each is one autocommit statement, so that a batch costs one round trip and one commit: `lease` (the fence) -> `moved`
//! (the executions, guarded by version) -> everything that hangs on a moved execution. Every part joins `moved`: what did
//! not move leaves nothing behind.

// Arrays of arrays do not exist in Postgres, and jsonb arrays cost as much as text: both travel as text and are cast.
// Parameters $1 to $42 are the transitions', $43 to $53 the new sends', $54 to $71 the outcomes'.

/// The fence, the executions and their history.
macro_rules! moves {
    () => {
        "WITH lease AS MATERIALIZED ( \
        SELECT l.shard, l.epoch FROM shard_lease l \
        JOIN unnest($3::smallint[], $4::bigint[]) AS w(shard, epoch) ON w.shard = l.shard \
        WHERE l.owner = $1 AND l.incarnation = $2 AND l.epoch = w.epoch ORDER BY l.shard FOR SHARE OF l), \
    moved AS ( \
        UPDATE campaign_prospect_execution_state s SET version = c.version, lease_epoch = f.epoch, updated_at = c.at, \
            workspace_id = c.workspace_id, flow_version = c.flow_version, status = c.status, \
            paused_status = c.paused_status, current_step = c.current_step, step_id = c.step_id, \
            completed_steps = c.completed::integer[], failed_steps = c.failed::integer[], \
            skipped_steps = c.skipped::integer[], linkedin_state = c.linkedin::jsonb, email_state = c.email::jsonb, \
            whatsapp_state = c.whatsapp::jsonb, waiting_for_trigger = c.waiting, trigger_check_count = c.checks, \
            trigger_max_checks = c.checks_max, next_check_at = c.next_check_at, \
            last_executed_at = c.last_executed_at, next_execution_at = c.next_execution_at, \
            last_error = c.last_error, error_count = c.error_count, exit_reason = c.exit_reason, \
            attempt = c.attempt, send_sequence = c.send_sequence, open_send = c.open_send, \
            channel_accounts = c.accounts::jsonb \
        FROM unnest($5::uuid[], $6::bigint[], $7::smallint[], $8::uuid[], $9::integer[], $10::text[], \
            $11::text[], $12::integer[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], \
            $19::text[], $20::integer[], $21::integer[], $22::timestamptz[], $23::timestamptz[], $24::timestamptz[], \
            $25::text[], $26::integer[], $27::text[], $28::integer[], $29::integer[], $30::uuid[], $31::text[], \
            $32::text[], $33::timestamptz[], $34::integer[]) \
        AS c(id, version, shard, workspace_id, flow_version, status, paused_status, current_step, completed, failed, \
            skipped, linkedin, email, whatsapp, waiting, checks, checks_max, next_check_at, last_executed_at, \
            next_execution_at, last_error, error_count, exit_reason, attempt, send_sequence, open_send, accounts, \
            step_id, at, moves) \
        JOIN lease f ON f.shard = c.shard \
        WHERE s.id = c.id AND s.version = c.version - c.moves \
        RETURNING s.id, s.workspace_id, s.campaign_id, s.prospect_id, s.flow_version, c.shard, f.epoch, c.at), \
    history AS ( \
        INSERT INTO transitions (workspace_id, execution_id, version, at, flow_version, trigger, detail, from_status, \
            to_status, from_step, to_step, shard, lease_epoch) \
        SELECT m.workspace_id, m.id, h.version, m.at, m.flow_version, h.trigger, h.detail::jsonb, h.from_status, \
            h.to_status, h.from_step, h.to_step, m.shard, m.epoch \
        FROM unnest($35::uuid[], $36::bigint[], $37::text[], $38::text[], $39::text[], $40::text[], $41::integer[], \
            $42::integer[]) AS h(execution, version, trigger, detail, from_status, to_status, from_step, to_step) \
        JOIN moved m ON m.id = h.execution)"
    };
}

/// New sends. No foreign key keeps them to accounts that exist, because its check would lock each account's row: instead
/// an account that does not exist is NULL here, which the column refuses.
macro_rules! decisions {
    () => {
        ", \
    decided AS ( \
        INSERT INTO sends (workspace_id, id, created_at, execution_id, shard, prospect_id, campaign_id, flow_version, \
            step, step_id, action, channel, attempt, account_id, account_shard, status) \
        SELECT m.workspace_id, n.id, n.created_at, m.id, m.shard, m.prospect_id, m.campaign_id, m.flow_version, \
            n.step, n.step_id, n.action, n.channel, n.attempt, \
            (SELECT a.id FROM accounts a WHERE a.workspace_id = m.workspace_id AND a.id = n.account_id), \
            n.account_shard, n.status \
        FROM unnest($43::uuid[], $44::uuid[], $45::timestamptz[], $46::integer[], $47::text[], $48::text[], $49::text[], \
            $50::integer[], $51::uuid[], $52::smallint[], $53::text[]) \
            AS n(execution, id, created_at, step, step_id, action, channel, attempt, account_id, account_shard, status) \
        JOIN moved m ON m.id = n.execution)"
    };
}

/// Sends that are taken back, and what came of sends: the row, the account's gate, and what the provider calls people.
macro_rules! outcomes {
    () => {
        ", \
    cancelled AS ( \
        UPDATE sends s SET status = 'cancelled', finished_at = m.at \
        FROM unnest($54::uuid[], $55::uuid[]) AS x(execution, id) JOIN moved m ON m.id = x.execution \
        WHERE s.workspace_id = m.workspace_id AND s.id = x.id AND s.execution_id = m.id AND s.status = 'pending'), \
    ended AS MATERIALIZED ( \
        SELECT f.*, m.workspace_id, m.at FROM unnest($56::uuid[], $57::uuid[], $58::text[], $59::boolean[], $60::text[], \
            $61::text[], $62::text[], $63::uuid[], $64::timestamptz[], $65::boolean[], $70::text[], $71::bigint[]) \
            AS f(execution, id, status, parked, class, error, receipt, account_id, rest_until, open_gate, \
                brake, brake_until) \
        JOIN moved m ON m.id = f.execution), \
    finished AS ( \
        UPDATE sends s SET status = f.status, \
            finished_at = CASE WHEN f.status IN ('sent', 'failed') THEN f.at END, \
            parked_at = CASE WHEN f.parked THEN f.at WHEN f.status = 'unknown' THEN s.parked_at END, \
            settle_count = CASE WHEN f.status = 'pending' THEN 0 ELSE s.settle_count END, \
            failure_class = f.class, error = f.error, receipt = coalesce(f.receipt::jsonb, s.receipt) \
        FROM ended f \
        WHERE s.workspace_id = f.workspace_id AND s.id = f.id AND s.execution_id = f.execution \
        AND s.status IN ('pending', 'dispatching', 'unknown')), \
    gates AS MATERIALIZED ( \
        SELECT f.workspace_id, f.account_id, array_agg(f.id) FILTER (WHERE f.open_gate) AS opened, \
            max(f.rest_until) AS rest_until, \
            jsonb_object_agg(f.brake, f.brake_until ORDER BY f.brake_until) FILTER (WHERE f.brake IS NOT NULL) AS rests \
        FROM ended f WHERE f.account_id IS NOT NULL \
        AND (f.open_gate OR f.rest_until IS NOT NULL OR f.brake IS NOT NULL) GROUP BY 1, 2), \
    opened AS ( \
        UPDATE account_gate g SET \
            in_flight = CASE WHEN g.in_flight = ANY(x.opened) THEN NULL ELSE g.in_flight END, \
            in_flight_since = CASE WHEN g.in_flight = ANY(x.opened) THEN NULL ELSE g.in_flight_since END, \
            next_send_at = greatest(g.next_send_at, x.rest_until), \
            rests = CASE WHEN x.rests IS NULL THEN g.rests ELSE coalesce(g.rests, '{}') || x.rests END \
        FROM gates x WHERE g.workspace_id = x.workspace_id AND g.account_id = x.account_id), \
    learnt AS ( \
        INSERT INTO identities (workspace_id, kind, value, account_id, execution_id, created_at) \
        SELECT m.workspace_id, i.kind, i.value, i.account_id, m.id, m.at \
        FROM unnest($66::uuid[], $67::text[], $68::text[], $69::uuid[]) AS i(execution, kind, value, account_id) \
        JOIN moved m ON m.id = i.execution ON CONFLICT DO NOTHING)"
    };
}

macro_rules! answer {
    () => {
        " SELECT (SELECT array_agg(id) FROM moved), (SELECT array_agg(shard) FROM lease)"
    };
}

/// Transitions that touch no send.
pub(super) const MOVE: &str = concat!(moves!(), answer!());
/// Transitions, some of which decide sends.
pub(super) const DECIDE: &str = concat!(moves!(), decisions!(), answer!());
/// Transitions, some of which give sends an outcome.
pub(super) const FINISH: &str = concat!(moves!(), outcomes!(), answer!());
/// Everything.
pub(super) const ALL: &str = concat!(moves!(), decisions!(), outcomes!(), answer!());
