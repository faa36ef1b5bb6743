#!/usr/bin/env python3
"""Writes dashboards/*.json. Run by hand after a change here, and commit both: `python3 grafana/generate.py`.

Needs nothing but Python. `SEL` in a query stands for the selection of the variables `job` and `instance`.
`tests/it/grafana.rs` compares what is written with the catalogue of metrics.
"""

import json
from pathlib import Path

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
SELECTION = 'job=~"$job",instance=~"$instance"'
WINDOW = "[$__rate_interval]"
# What happens outside and is reacted to: the service level counts these, not what timers and sends cause.
OUTSIDE = (
    "connection_accepted|reply|bounce|message_delivered|message_read|mail_opened|mail_clicked|human_took_over|unsubscribe"
)
WATCHED = "/healthz|/readyz|/metrics"
HOOKS = "/v1/hooks/.+"


def rate(metric, labels="", by=""):
    """Per second, summed up."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{{SEL{',' + labels if labels else ''}}}{WINDOW}))"


def quantile(q, metric, labels="", by=""):
    """A quantile over all selected processes, from a histogram's buckets."""
    labels = "," + labels if labels else ""
    by = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{SEL{labels}}}{WINDOW})))"


def quantiles(metric, labels=""):
    return [(quantile(q, metric, labels), name) for q, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


def target(number, expr, legend, **more):
    return {
        "refId": chr(ord("A") + number),
        "datasource": DATASOURCE,
        "expr": expr.replace("SEL", SELECTION),
        "legendFormat": legend,
        **more,
    }


def panel(kind, title, description, unit, targets, w=8, h=7, limits=None, options=None, custom=None, decimals=None, base="green"):
    steps = [{"color": base, "value": None}]
    steps += [{"color": color, "value": value} for value, color in limits or []]
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}, "mappings": []}
    if custom:
        defaults["custom"] = custom
    if decimals is not None:
        defaults["decimals"] = decimals
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"w": w, "h": h},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options or {},
        "targets": targets,
    }


def lines(title, description, unit, queries, stack=False, limits=None, **more):
    custom = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stack else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if limits else "off"},
        "axisSoftMin": 0,
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    targets = [target(i, expr, legend) for i, (expr, legend) in enumerate(queries)]
    return panel("timeseries", title, description, unit, targets, limits=limits, options=options, custom=custom, **more)


def stat(title, description, unit, expr, limits=None, legend="", w=4, h=4, text="value", decimals=None, base="green"):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "value",
        "graphMode": "area" if text == "value" else "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "textMode": text,
    }
    return panel(
        "stat", title, description, unit, [target(0, expr, legend)], w, h, limits, options, decimals=decimals, base=base
    )


def heatmap(title, description, unit, metric, labels="", w=12, h=8):
    labels = "," + labels if labels else ""
    expr = f"sum by (le) (increase({metric}_bucket{{SEL{labels}}}{WINDOW}))"
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64, "exponent": 0.5, "fill": "dark-orange"},
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "tooltip": {"mode": "single", "yHistogram": False, "showColorScale": False},
        "yAxis": {"axisPlacement": "left", "unit": unit, "reverse": False},
    }
    return panel("heatmap", title, description, unit, [target(0, expr, "{{le}}", format="heatmap")], w, h, None, options)


def variable(name, label, expr, multi=True):
    query = {"query": expr, "refId": "PrometheusVariableQueryEditor-VariableQuery"}
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 2,
        "sort": 1,
        "multi": multi,
        "includeAll": multi,
        "allValue": ".+",
        "hide": 0,
        "regex": "",
        "skipUrlSync": False,
        "options": [],
        "current": {"text": "All", "value": "$__all"} if multi else {"text": "campaignd", "value": "campaignd"},
    }


def dashboard(name, title, description, panels, channel=False):
    x = y = deepest = 0
    for number, item in enumerate(panels):
        position = item["gridPos"]
        if x + position["w"] > 24:
            x, y, deepest = 0, y + deepest, 0
        position.update(x=x, y=y)
        x, deepest = x + position["w"], max(deepest, position["h"])
        item["id"] = number + 1
    variables = [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {"text": "Prometheus", "value": "prometheus"},
            "hide": 0,
            "includeAll": False,
            "multi": False,
            "options": [],
            "refresh": 1,
            "regex": "",
            "skipUrlSync": False,
        },
        variable("job", "Job", "label_values(campaignd_build_info, job)"),
        variable("instance", "Instance", 'label_values(campaignd_build_info{job=~"$job"}, instance)'),
    ]
    if channel:
        variables.append(variable("channel", "Channel", 'label_values(campaignd_channel_queue{job=~"$job"}, channel)'))
    start = (
        'resets(campaignd_http_requests_total{SEL,route="/metrics",method="GET",code="200"}[2m]) '
        "* on (job, instance) group_left (version, revision) campaignd_build_info{SEL} > 0"
    ).replace("SEL", SELECTION)
    annotations = [
        {
            "builtIn": 1,
            "datasource": {"type": "grafana", "uid": "-- Grafana --"},
            "enable": True,
            "hide": True,
            "iconColor": "rgba(0, 211, 255, 1)",
            "name": "Annotations & Alerts",
            "type": "dashboard",
        },
        {
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "iconColor": "blue",
            "name": "Starts",
            "expr": start,
            "titleFormat": "start of {{instance}}",
            "textFormat": "version {{version}}, commit {{revision}}",
            "step": "30s",
        },
    ]
    links = [
        {
            "title": "campaignd",
            "type": "dashboards",
            "tags": ["campaignd"],
            "asDropdown": False,
            "icon": "external link",
            "includeVars": True,
            "keepTime": True,
            "targetBlank": False,
            "tooltip": "",
            "url": "",
        }
    ]
    return name, {
        "uid": f"campaignd-{name}",
        "title": f"campaignd / {title}",
        "description": description,
        "tags": ["campaignd"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timepicker": {},
        "timezone": "utc",
        "fiscalYearStartMonth": 0,
        "weekStart": "",
        "annotations": {"list": annotations},
        "links": links,
        "templating": {"list": variables},
        "panels": panels,
    }


CHANNEL = 'channel=~"$channel"'
LATE_SHARE = (
    'sum(rate(campaignd_timer_lateness_seconds_bucket{SEL,le=~"1(\\\\.0)?"}[$__rate_interval])) '
    "/ sum(rate(campaignd_timer_lateness_seconds_count{SEL}[$__rate_interval]))"
)

overview = dashboard("overview", "Overview", "Is it well, and what is it doing. Start here.", [
    stat("Processes that answer", "Processes that Prometheus reaches. One serves; one that stands by is not reachable before it takes over.",
         "none", "sum(up{SEL})", [(1, "green")], w=4),
    stat("Ready", "1 while the database answers and everything has been read back: what /readyz says.", "none",
         "min(campaignd_ready{SEL})", [(1, "green")], base="red"),
    stat("Version", "The version that runs, and the commit it was built from.", "none",
         "max by (version, revision) (campaignd_build_info{SEL})", legend="{{version}} {{revision}}", text="name"),
    stat("Live actors", "Prospects that have an actor in memory.", "short", 'sum(campaignd_actors{SEL,kind="prospect"})'),
    stat("Timers late, p99", "How long after its due time a timer was handled; the service level is 1 s.", "s",
         quantile(0.99, "campaignd_timer_lateness_seconds"), [(0.5, "orange"), (1, "red")]),
    stat("Waits for a person", "Sends of the last day whose outcome could not be found out: `campaignd sends list --parked`.",
         "none", 'sum(increase(campaignd_sends_total{SEL,outcome="unresolved"}[1d]))', [(1, "orange")], decimals=0),
    stat("Database", "1 if the database answered the last probe, which comes each second and waits a second.", "none",
         "min(campaignd_db_up{SEL})", [(1, "green")], base="red"),
    stat("Lease is good for", "How long the shards stay ours without a renewal; at 0 the process stops.", "s",
         "min(campaignd_lease_remaining_seconds{SEL})", [(4, "green")], base="red", decimals=0),
    stat("Oldest change not written", "How long the oldest change waits for the writer.", "s",
         "max(campaignd_persist_oldest_seconds{SEL})", [(1, "orange"), (10, "red")]),
    stat("Oldest fact not applied", "Age of the oldest stored fact that was not applied: somebody may have replied.", "s",
         "max(campaignd_inbox_oldest_seconds{SEL})", [(10, "orange"), (60, "red")]),
    stat("Halted accounts", "Accounts that the provider says are broken: nothing is sent through them.", "none",
         'sum(campaignd_accounts{SEL,state="halted"})', [(1, "orange")], decimals=0),
    stat("Outcome unknown", "Sends of which nobody knows whether they happened, looked up or parked.", "none",
         "sum(campaignd_sends_unknown{SEL})", [(10, "orange")], decimals=0),
    lines("Sends by outcome", "Finished sends a second. `unknown` is looked up at the provider before anything is sent again.", "ops",
          [(rate("campaignd_sends_total", by="outcome"), "{{outcome}}")], stack=True),
    lines("Durable transitions", "Changes written to Postgres a second, by what caused them.", "ops",
          [(rate("campaignd_transitions_total", by="trigger"), "{{trigger}}")], stack=True),
    lines("Reactions to what happens outside", "From the arrival of an acceptance, a reply or another fact to its durable transition; the service level is 5 s.",
          "s", quantiles("campaignd_reaction_seconds", f'trigger=~"{OUTSIDE}"'), limits=[(5, "red")]),
    lines("Due and waiting for their account", "Executions in line before the accounts. It grows while accounts rest, are halted or are too few.", "short",
          [("sum by (channel) (campaignd_channel_line{SEL})", "{{channel}}")]),
    lines("Commits", "From handing a change to the writer to its commit.", "s", quantiles("campaignd_persist_commit_seconds")),
    lines("Webhooks", "Webhooks a second, by what became of them.", "ops", [(rate("campaignd_webhooks_total", by="outcome"), "{{outcome}}")], stack=True),
])

runtime = dashboard("runtime", "Runtime", "Actors, timers, restarts and the HTTP API.", [
    lines("Actors", "Live actors by kind (a channel is an account's), and executions without one that have a wake-up.", "short",
          [("sum by (kind) (campaignd_actors{SEL})", "{{kind}}"), ("sum(campaignd_parked{SEL})", "parked")]),
    lines("Mailboxes", "Triggers and timer firings in mailboxes or in hand, of as many as there may be. At 1 triggers are refused.", "percentunit",
          [("sum by (kind) (campaignd_mailbox_messages{SEL}) / sum by (kind) (campaignd_mailbox_limit{SEL})", "{{kind}}")], limits=[(0.9, "red")]),
    lines("What waits for actors", "Works of prospects that are not done, and messages that shards have not taken, all together and at the shard with the most.", "short",
          [("sum by (kind) (campaignd_actor_mailbox_messages{SEL})", "{{kind}}"), ("max by (kind) (campaignd_actor_mailbox_deepest{SEL})", "{{kind}}, one shard")]),
    lines("Wait in a mailbox, p99", "How long a message waits until its actor takes it, by some probes a second. Milliseconds are normal under load; seconds mean that an actor, or the machine, is stuck.", "s",
          [(quantile(0.99, "campaignd_actor_mailbox_wait_seconds", by="kind"), "{{kind}}")]),
    lines("Refused or waiting to be read", "Triggers refused for want of room a second, and executions whose row is still to be read.", "short",
          [(rate("campaignd_mailbox_rejected_total"), "refused a second"), ("sum(campaignd_executions_loading{SEL})", "to be read")]),
    lines("Read back after a start", "Executions read from the table a second, after a start.", "ops",
          [(rate("campaignd_rehydrated_total"), "read back")]),
    lines("Progress of a start", "The share of the executions that is read back, as far as Postgres can estimate how many there are.", "percentunit",
          [("sum(campaignd_rehydrated_total{SEL}) / (sum(campaignd_rehydration_expected{SEL}) > 0)", "read back")]),
    stat("Phase", "Where the engine is: reading executions back, done with that, or stopping.", "none",
         "max by (phase) (campaignd_rehydration_phase{SEL}) == 1", legend="{{phase}}", text="name", w=4, h=7),
    stat("The last start took", "From the first row to everything read back; 0 until it has been.", "s",
         "max(campaignd_rehydration_seconds{SEL})", w=4, h=7),
    lines("Lease", "How long the shards stay ours without a renewal. Between two renewals it falls by a third of the lease.", "s",
          [("min by (instance) (campaignd_lease_remaining_seconds{SEL})", "{{instance}} left"), ("max(campaignd_lease_window_seconds{SEL})", "after a renewal")]),
    lines("Shards and renewals", "Shards that are owned and not owned, and renewals of the lease a minute.", "short",
          [("sum by (state) (campaignd_shards{SEL})", "{{state}}"), ("sum by (outcome) (rate(campaignd_lease_renewals_total{SEL}[$__rate_interval])) * 60", "{{outcome}} a minute")], w=8),
    lines("Gave way", "Actors a second that gave way because `runtime.resident_max` is reached. Steady numbers mean that it is too small.", "ops",
          [(rate("campaignd_passivated_total"), "parked for room")]),
    lines("Restarts and quarantine", "Actors restarted after a panic, and executions put aside because they crash again and again. Both are zero.", "short",
          [("sum(increase(campaignd_actor_restarts_total{SEL}[5m]))", "restarts"), ("sum(increase(campaignd_quarantined_total{SEL}[5m]))", "quarantined")]),
    lines("Timers late", "How long after its due time a timer was handled, in real time.", "s",
          quantiles("campaignd_timer_lateness_seconds"), limits=[(1, "red")]),
    lines("Timers handled", "Timers a second.", "ops", [(rate("campaignd_timer_lateness_seconds_count"), "timers")]),
    lines("Wake-ups by due time", "Wake-ups of executions whose campaign runs, as the last pass over the table found them.", "short",
          [("sum by (horizon) (campaignd_timers_pending{SEL})", "{{horizon}}")], stack=True),
    lines("Oldest overdue wake-up", "What the table holds overdue, whatever the memory knows of it. `pending` may wait for its account; nothing holds up `waiting_trigger`.", "s",
          [("max by (status) (campaignd_timer_oldest_overdue_seconds{SEL})", "{{status}}")]),
    lines("Jumps of the clock", "Jumps of the wall clock of more than 2 s, in 5 minutes. All timers are armed anew.", "short",
          [("sum by (direction) (increase(campaignd_clock_jumps_total{SEL}[5m]))", "{{direction}}")]),
    heatmap("Lateness of timers", "Where the lateness of timers lies, not only its quantiles.", "s", "campaignd_timer_lateness_seconds"),
    heatmap("Reactions", "From the arrival of any trigger to its durable transition.", "s", "campaignd_reaction_seconds"),
    lines("Reactions by trigger, p99", "The slowest hundredth of the reactions, by what was reacted to.", "s",
          [(quantile(0.99, "campaignd_reaction_seconds", by="trigger"), "{{trigger}}")], w=12),
    lines("HTTP requests by code", "Answers a second by status, without health checks and scrapes.", "reqps",
          [(rate("campaignd_http_requests_total", f'route!~"{WATCHED}"', by="code"), "{{code}}")], stack=True, w=12),
    lines("HTTP requests by route", "Requests a second by route.", "reqps",
          [(rate("campaignd_http_requests_total", f'route!~"{WATCHED}"', by="method, route"), "{{method}} {{route}}")], stack=True, w=12),
    lines("HTTP duration by route, p99", "The slowest hundredth of the requests by route.", "s",
          [(quantile(0.99, "campaignd_http_request_seconds", f'route!~"{WATCHED}"', by="route"), "{{route}}")], w=12),
    lines("HTTP requests under way", "Requests under way, by the limit that they count against.", "short",
          [("sum by (kind) (campaignd_http_in_flight{SEL})", "{{kind}}")], stack=True),
    lines("HTTP refused for want of room", "Requests and connections a second that were answered with 503 because a limit was reached.", "reqps",
          [(rate("campaignd_http_shed_total", by="kind"), "{{kind}}")], stack=True),
    lines("Without a valid key or secret", "Requests a second without a valid API key, and webhooks without their secret.", "reqps",
          [(rate("campaignd_auth_failures_total", by="surface, reason"), "{{surface}} {{reason}}")], stack=True),
    lines("Worker threads", "Share of the time that the worker threads of the async runtime are busy. At 1 everything waits.", "percentunit",
          [("max by (instance) (campaignd_runtime_busy_ratio{SEL})", "{{instance}}")], limits=[(0.95, "red")]),
    lines("Lag of the async runtime", "How late a task is woken that sleeps for 50 ms. A millisecond is normal; more means that something blocks, or no core is free.", "s",
          quantiles("campaignd_runtime_lag_seconds")),
    lines("Tasks", "Live tasks, and those in the queue that all threads share.", "short",
          [("sum(campaignd_runtime_tasks{SEL})", "live"), ("sum(campaignd_runtime_queued_tasks{SEL})", "queued")]),
    lines("CPU", "Cores that the process uses.", "none",
          [("sum by (instance) (rate(process_cpu_seconds_total{SEL}[$__rate_interval]))", "{{instance}}")]),
    lines("Memory", "Resident and virtual memory of the process.", "bytes",
          [("sum(process_resident_memory_bytes{SEL})", "resident"), ("sum(process_virtual_memory_bytes{SEL})", "virtual")]),
    lines("Open files", "Open files against as many as there may be, and threads.", "short",
          [("sum(process_open_fds{SEL})", "files"), ("sum(process_max_fds{SEL})", "limit"), ("sum(process_threads{SEL})", "threads")]),
    stat("Runs for", "Since when the process runs.", "s", "time() - min(process_start_time_seconds{SEL})", w=12),
    lines("Spans that are lost", "Spans in 5 minutes that the collector of traces has not got. Only where `trace.otlp` is set.", "short",
          [("sum by (reason) (increase(campaignd_trace_spans_lost_total{SEL}[5m]))", "{{reason}}")], w=12, h=4),
])

delivery = dashboard("delivery", "Delivery", "What is sent, how the provider answers, and what comes back.", [
    lines("Sent", "Sends that the provider took, a second.", "ops",
          [(rate("campaignd_sends_total", f'{CHANNEL},outcome="sent"', by="channel"), "{{channel}}")], stack=True),
    lines("Not sent", "Sends that failed, are not known, or wait for a person.", "ops",
          [(rate("campaignd_sends_total", f'{CHANNEL},outcome!="sent"', by="channel, outcome"), "{{channel}} {{outcome}}")], stack=True),
    lines("By action", "Sends that the provider took, a second, by what was done.", "ops",
          [(rate("campaignd_sends_total", f'{CHANNEL},outcome="sent"', by="action"), "{{action}}")], stack=True),
    lines("Outcome unknown now", "Sends of which nobody knows whether they happened: being looked up at the provider, or parked for a person.", "short",
          [("sum by (channel, state) (campaignd_sends_unknown{SEL," + CHANNEL + "})", "{{channel}} {{state}}")]),
    lines("In flight", "Accounts that are carrying out a send now.", "short",
          [("sum by (channel) (campaignd_sends_in_flight{SEL," + CHANNEL + "})", "{{channel}}")], stack=True),
    lines("Put off", "Times a second that a send was put off, by why: the flow's window, the account's hours, limits, rests and spacing, the provider's quota.", "ops",
          [(rate("campaignd_send_deferred_total", CHANNEL, by="reason"), "{{reason}}")], stack=True),
    lines("How executions end", "Executions that have ended, in an hour, by why: the end of the funnel.", "short",
          [("sum by (reason) (increase(campaignd_executions_ended_total{SEL}[1h]))", "{{reason}}")], stack=True),
    lines("Share that failed", "Failed sends of all that ended. Bounced addresses and refused invitations are in it.", "percentunit",
          [('sum by (channel) (rate(campaignd_sends_total{SEL,channel=~"$channel",outcome="failed"}[$__rate_interval])) '
            '/ (sum by (channel) (rate(campaignd_sends_total{SEL,channel=~"$channel"}[$__rate_interval])) > 0)', "{{channel}}")], limits=[(0.2, "red")]),
    lines("Provider calls, p50 and p99", "How long a call of the provider takes.", "s",
          [(quantile(q, "campaignd_provider_call_seconds", CHANNEL, "channel"), "{{channel}} " + n) for q, n in ((0.5, "p50"), (0.99, "p99"))]),
    heatmap("Provider calls", "Where the durations of the calls lie.", "s", "campaignd_provider_call_seconds", CHANNEL, w=16, h=7),
    lines("Provider's API by answer", "Calls a second by what was answered. `lost`: the request was written and no answer came.", "reqps",
          [(rate("campaignd_provider_requests_total", by="code"), "{{code}}")], stack=True),
    lines("Provider's API by endpoint", "Calls a second by the first part of the path.", "reqps",
          [(rate("campaignd_provider_requests_total", by="endpoint"), "{{endpoint}}")], stack=True),
    lines("Facts", "What the provider told, a second, by what it says. `unreadable` means that its format has changed.", "ops",
          [(rate("campaignd_facts_total", by="event"), "{{event}}")], stack=True, w=12),
    lines("Parts of a reaction, p99", "What each part of a reaction to a fact took: until it is stored, until it is known whom it is about, until their actor has it, until it is durable, and until the provider is called for what follows, which may wait for hours and limits.", "s",
          [(quantile(0.99, "campaignd_reaction_stage_seconds", by="stage"), "{{stage}}")], w=12),
    lines("Parts of a reaction, p50", "The same for the median.", "s",
          [(quantile(0.5, "campaignd_reaction_stage_seconds", by="stage"), "{{stage}}")], w=12),
    lines("Reactions by fact, p99", "From the arrival of a fact to its durable transition.", "s",
          [(quantile(0.99, "campaignd_reaction_seconds", f'trigger=~"{OUTSIDE}"', "trigger"), "{{trigger}}")], w=12),
    lines("Webhooks", "Webhooks a second, by what became of them. `refused` has a wrong secret, or no room or database to store it.", "ops",
          [(rate("campaignd_webhooks_total", by="outcome"), "{{outcome}}")], stack=True),
    lines("Inbox", "Stored facts that were processed, a second.", "ops",
          [(rate("campaignd_inbox_processed_total", by="outcome"), "{{outcome}}")], stack=True),
    lines("Facts not applied", "Stored facts that are not applied yet.", "short",
          [("sum(campaignd_inbox_unprocessed{SEL})", "not applied")]),
    lines("Age of the oldest", "How long the oldest of them lies there.", "s",
          [("max(campaignd_inbox_oldest_seconds{SEL})", "oldest")], limits=[(60, "red")]),
    lines("From receipt to applied", "From the receipt of a fact to its being dealt with.", "s", quantiles("campaignd_inbox_seconds", 'outcome="applied"')),
    lines("Found without a webhook", "Facts that only a read of an account's lists has told: lost webhooks.", "ops",
          [(rate("campaignd_catch_up_facts_total", by="list"), "{{list}}")], stack=True),
], channel=True)

persistence = dashboard("persistence", "Persistence", "The writer: how fast, how full its batches, and what it writes.", [
    lines("Commits, quantiles", "From handing a change to the writer to its commit. Other work waits for it.", "s",
          quantiles("campaignd_persist_commit_seconds"), limits=[(0.5, "red")], w=12),
    heatmap("Commits", "Where the durations lie, from handing a change over to its commit.", "s", "campaignd_persist_commit_seconds", h=7),
    lines("Changes and batches", "Changes committed, and batches written, a second.", "ops",
          [(rate("campaignd_persist_commit_seconds_count"), "changes"), (rate("campaignd_persist_batch_rows_count"), "batches")]),
    lines("Waiting for the writer", "Changes that were handed over and are not durable yet.", "short",
          [("sum(campaignd_persist_queue_rows{SEL})", "changes")]),
    lines("Oldest change not written", "How long the oldest of them waits. It grows while Postgres is away.", "s",
          [("max(campaignd_persist_oldest_seconds{SEL})", "oldest")], limits=[(10, "red")]),
    lines("Failed tries", "Tries of the writer that failed, a second, by the class of Postgres' error. They are repeated.", "ops",
          [(rate("campaignd_persist_failures_total", by="class"), "{{class}}")], stack=True),
    lines("Refused writes", "Writes refused in 5 minutes: the shard is somebody else's (fenced), or the row has another version (conflict).", "short",
          [("sum by (writer) (increase(campaignd_persist_fenced_total{SEL}[5m]))", "fenced {{writer}}"), ("sum(increase(campaignd_persist_conflicts_total{SEL}[5m]))", "conflict")]),
    lines("Probe of the database", "Whether the database answers, asked each second on a connection of its own.", "none",
          [("min by (instance) (campaignd_db_up{SEL})", "{{instance}}")]),
    lines("Round trip of the probe", "How long the database takes to answer nothing.", "s", quantiles("campaignd_db_probe_seconds")),
    lines("Database's clock less ours", "Leases run on the database's clock, everything else on ours.", "s",
          [("max by (instance) (campaignd_clock_offset_seconds{SEL})", "{{instance}}")]),
    lines("Connections in use", "Connections that are taken, of as many as there may be.", "percentunit",
          [('sum by (pool) (campaignd_db_pool_connections{SEL,state="used"}) / sum by (pool) (campaignd_db_pool_connections{SEL,state="max"})', "{{pool}}")], limits=[(0.9, "red")]),
    lines("Waited in vain for a connection", "Callers in 5 minutes that got none in time.", "short",
          [("sum by (pool) (increase(campaignd_db_pool_timeouts_total{SEL}[5m]))", "{{pool}}")]),
    lines("Looks at the tables", "The looks that the gauges of timers, inbox, quotas and parked sends are made from, in 5 minutes.", "short",
          [("sum by (outcome) (increase(campaignd_table_samples_total{SEL}[5m]))", "{{outcome}}")]),
    lines("Rows in a batch", "How many executions one commit writes. It grows with the load: that is how the writer keeps up.", "short",
          [('sum(rate(campaignd_persist_batch_rows_sum{SEL}[$__rate_interval])) / sum(rate(campaignd_persist_batch_rows_count{SEL}[$__rate_interval]))', "mean"),
           (quantile(0.95, "campaignd_persist_batch_rows"), "p95")]),
    lines("Timers handled against changes written", "Timers without changes mean that the writer is stuck.", "ops",
          [(rate("campaignd_timer_lateness_seconds_count"), "timers handled"), (rate("campaignd_persist_commit_seconds_count"), "changes written")]),
    lines("Transitions by trigger", "Durable transitions a second, by what caused them.", "ops",
          [(rate("campaignd_transitions_total", by="trigger"), "{{trigger}}")], stack=True, w=12),
    lines("Answers that a broken database causes", "503 and 500 a second, by route; /readyz is among them.", "reqps",
          [(rate("campaignd_http_requests_total", 'code=~"5.."', by="route, code"), "{{route}} {{code}}")], w=12),
])

accounts = dashboard("accounts", "Accounts", "What waits for accounts, by channel. Single accounts are in `campaignd account list`: they are no labels.", [
    lines("In line", "Executions that are due and wait for room in their account's backlog.", "short",
          [("sum by (channel) (campaignd_channel_line{SEL," + CHANNEL + "})", "{{channel}}")], w=12),
    lines("In the channels", "Sends that are queued, in flight or held back by an account's gap, budget or rest.", "short",
          [("sum by (channel) (campaignd_channel_queue{SEL," + CHANNEL + "})", "{{channel}}")], w=12),
    lines("Accounts by state", "Accounts that send, that the provider says are broken, and that somebody has switched off.", "short",
          [("sum by (channel, state) (campaignd_accounts{SEL," + CHANNEL + "})", "{{channel}} {{state}}")], stack=True, w=12),
    lines("Quota left", "Active accounts by how much is left of the daily limit that is used up most.", "short",
          [("sum by (headroom) (campaignd_accounts_quota{SEL," + CHANNEL + "})", "{{headroom}}")], stack=True, w=12),
    lines("Sends an hour", "Sends that the provider took in the last hour.", "short",
          [('sum by (channel) (increase(campaignd_sends_total{SEL,' + CHANNEL + ',outcome="sent"}[1h]))', "{{channel}}")]),
    lines("Hours of work in line", "The line against the sends of the last hour. Nothing where nothing was sent.", "h",
          [('sum by (channel) (campaignd_channel_line{SEL,' + CHANNEL + '}) / '
            '(sum by (channel) (increase(campaignd_sends_total{SEL,' + CHANNEL + ',outcome="sent"}[1h])) > 0)', "{{channel}}")]),
    stat("API key", "1 while the provider refuses our API key: nothing is sent through it.", "none",
         "max by (provider) (campaignd_provider_key_refused{SEL})", [(1, "red")], legend="{{provider}}", w=8, h=7),
    lines("News of accounts", "What the provider says about the state of accounts, in 5 minutes: broken, or well again.", "short",
          [('sum(increase(campaignd_facts_total{SEL,event="account_status"}[5m]))', "account_status")]),
    lines("Reads that make up for lost webhooks", "Reads of accounts' lists in 5 minutes, by how they ended.", "short",
          [("sum by (list, outcome) (increase(campaignd_catch_up_reads_total{SEL}[5m]))", "{{list}} {{outcome}}")], w=12),
    lines("What only these reads have told", "Facts in 5 minutes that no webhook has brought.", "short",
          [("sum by (list) (increase(campaignd_catch_up_facts_total{SEL}[5m]))", "{{list}}")], w=12),
], channel=True)


def level(slo, title, goal, why):
    """The panels of one service level: its budget and how fast it burns. They read the recording rules."""
    errors = f"campaignd:{slo}_errors:ratio_rate"
    return [
        stat(f"{title}: budget left", f"Of the errors that {goal:.2%} allows in 3 days, the share that is left. {why}", "percentunit",
             f"1 - {errors}3d / {1 - goal:.4g}", w=6, h=7, decimals=1),
        lines(f"{title}: burn rate", "How many times faster than allowed the budget is used: 14.4 over an hour pages, 6 over six hours pages, 1 over three days makes a ticket.",
              "none", [(f"{errors}{w} / {1 - goal:.4g}", w) for w in ("5m", "1h", "6h", "3d")], limits=[(14.4, "red")], w=12),
        stat(f"{title}: good, last hour", f"The goal is {goal:.2%}.", "percentunit", f"1 - {errors}1h", w=6, h=7, decimals=3),
    ]


slo = dashboard("slo", "Service levels", "Four promises, how well they are kept, and how fast their budgets burn. Over all processes: job and instance select only the last row.", [
    *level("timers", "Timers", 0.999, "A timer is good when it is handled within 1 s."),
    *level("reactions", "Reactions", 0.995, "A fact from outside is good when it is durable within 5 s."),
    *level("api", "API", 0.999, "An answer is good when it is no 5xx."),
    *level("webhooks", "Webhooks", 0.9995, "A delivery is good when it is not answered with 5xx."),
    lines("Timers within 1 s", "The share of timers handled within 1 s, of what is selected.", "percentunit", [(LATE_SHARE, "within 1 s")], w=24),
])

if __name__ == "__main__":
    for name, board in (overview, runtime, delivery, persistence, accounts, slo):
        file = Path(__file__).parent / "dashboards" / f"{name}.json"
        file.write_text(json.dumps(board, indent=2, ensure_ascii=False) + "\n")
