//! The names of all metrics. What each one is, [`CATALOG`](super::CATALOG) says.

/// Constant 1; what it was built from is in its labels (gauge; labels `version`, `revision`, `rustc`).
pub const BUILD_INFO: &str = "campaignd_build_info";
/// Executions without a live actor that have a wake-up (gauge).
pub const PARKED: &str = "campaignd_parked";
/// Actors that gave way because more were live than there may be (counter).
pub const PASSIVATED: &str = "campaignd_passivated_total";
/// Executions that are due and wait for room in their account's backlog (gauge; label `channel`).
pub const CHANNEL_LINE: &str = "campaignd_channel_line";
/// Sends that the channels of the accounts have (gauge; label `channel`).
pub const CHANNEL_QUEUE: &str = "campaignd_channel_queue";
/// Durable transitions by trigger (counter; label `trigger`).
pub const TRANSITIONS: &str = "campaignd_transitions_total";
/// From handing a change to the writer to its commit, in seconds (histogram).
pub const COMMIT_SECONDS: &str = "campaignd_persist_commit_seconds";
/// Rows in one group commit (histogram).
pub const COMMIT_ROWS: &str = "campaignd_persist_batch_rows";
/// From the arrival of a trigger to its durable transition, in seconds (histogram; label `trigger`).
pub const REACTION_SECONDS: &str = "campaignd_reaction_seconds";
/// What the parts of a reaction to a fact from outside took, in seconds (histogram; label `stage`).
pub const REACTION_STAGE_SECONDS: &str = "campaignd_reaction_stage_seconds";
/// How long after its due time a timer was handled, in real seconds (histogram).
pub const TIMER_LATENESS_SECONDS: &str = "campaignd_timer_lateness_seconds";
/// Finished sends (counter; labels `channel`, `action`, `outcome`).
pub const SENDS: &str = "campaignd_sends_total";
/// Duration of a provider call in seconds (histogram; label `channel`).
pub const PROVIDER_SECONDS: &str = "campaignd_provider_call_seconds";
/// Webhooks taken in (counter; label `outcome`: accepted, duplicate, refused).
pub const WEBHOOKS: &str = "campaignd_webhooks_total";
/// Inbox rows processed (counter; label `outcome`: applied, ignored, failed).
pub const INBOX: &str = "campaignd_inbox_processed_total";
/// Facts from providers, by what they say (counter; label `event`).
pub const FACTS: &str = "campaignd_facts_total";
/// Reads of an account's lists that make up for lost webhooks (counter; labels `list`, `outcome`: done, failed).
pub const CATCH_UP_READS: &str = "campaignd_catch_up_reads_total";
/// Facts that only such a read has told (counter; label `list`).
pub const CATCH_UP_FACTS: &str = "campaignd_catch_up_facts_total";
/// Executions put into quarantine (counter).
pub const QUARANTINED: &str = "campaignd_quarantined_total";
/// Actors restarted after a panic (counter).
pub const ACTOR_RESTARTS: &str = "campaignd_actor_restarts_total";
/// Rehydrated executions (counter).
pub const REHYDRATED: &str = "campaignd_rehydrated_total";
/// HTTP requests (counter; labels `route`, `method`, `code`).
pub const HTTP_REQUESTS: &str = "campaignd_http_requests_total";
/// HTTP request duration in seconds (histogram; label `route`).
pub const HTTP_SECONDS: &str = "campaignd_http_request_seconds";
/// Whether `/readyz` would say yes (gauge).
pub const READY: &str = "campaignd_ready";
/// Live actors (gauge; label `kind`).
pub const ACTORS: &str = "campaignd_actors";
/// Triggers and timer firings in mailboxes or in hand (gauge; label `kind`).
pub const MAILBOX: &str = "campaignd_mailbox_messages";
/// How many there may be (gauge; label `kind`).
pub const MAILBOX_LIMIT: &str = "campaignd_mailbox_limit";
/// Triggers refused for want of room (counter).
pub const MAILBOX_REJECTED: &str = "campaignd_mailbox_rejected_total";
/// Works of prospects that are not done, and messages to shards that were not taken (gauge; label `kind`).
pub const ACTOR_MAILBOX: &str = "campaignd_actor_mailbox_messages";
/// The same at the shard where there are most (gauge; label `kind`).
pub const ACTOR_MAILBOX_DEEPEST: &str = "campaignd_actor_mailbox_deepest";
/// How long a message waits for its actor, by probes (histogram; label `kind`).
pub const ACTOR_MAILBOX_SECONDS: &str = "campaignd_actor_mailbox_wait_seconds";
/// Executions that wait to be read from the table (gauge).
pub const LOADING: &str = "campaignd_executions_loading";
/// Executions that have ended (counter; label `reason`).
pub const ENDED: &str = "campaignd_executions_ended_total";
/// Wake-ups, by when they are due (gauge; label `horizon`).
pub const TIMERS: &str = "campaignd_timers_pending";
/// How long the oldest wake-up of the table is overdue, in real seconds (gauge; label `status`).
pub const TIMER_OVERDUE: &str = "campaignd_timer_oldest_overdue_seconds";
/// 1 at the phase of the start (gauge; label `phase`).
pub const REHYDRATION_PHASE: &str = "campaignd_rehydration_phase";
/// Executions that a start reads back, roughly (gauge).
pub const REHYDRATION_EXPECTED: &str = "campaignd_rehydration_expected";
/// How long the last start took to read everything back (gauge).
pub const REHYDRATION_SECONDS: &str = "campaignd_rehydration_seconds";
/// Shards by who owns them (gauge; label `state`).
pub const SHARDS: &str = "campaignd_shards";
/// Until when the lease is trusted (gauge).
pub const LEASE_REMAINING: &str = "campaignd_lease_remaining_seconds";
/// How long a renewed lease is trusted (gauge).
pub const LEASE_WINDOW: &str = "campaignd_lease_window_seconds";
/// Renewals of the lease (counter; label `outcome`).
pub const LEASE_RENEWALS: &str = "campaignd_lease_renewals_total";
/// Jumps of the wall clock (counter; label `direction`).
pub const CLOCK_JUMPS: &str = "campaignd_clock_jumps_total";
/// The database's clock less ours (gauge).
pub const CLOCK_OFFSET: &str = "campaignd_clock_offset_seconds";
/// Whether the database answered the last probe (gauge).
pub const DB_UP: &str = "campaignd_db_up";
/// Round trip of a probe of the database (histogram).
pub const DB_PROBE_SECONDS: &str = "campaignd_db_probe_seconds";
/// Connections to the database (gauge; labels `pool`, `state`).
pub const POOL: &str = "campaignd_db_pool_connections";
/// Callers that waited in vain for a connection (counter; label `pool`).
pub const POOL_TIMEOUTS: &str = "campaignd_db_pool_timeouts_total";
/// Looks at the tables for the gauges (counter; label `outcome`).
pub const SAMPLES: &str = "campaignd_table_samples_total";
/// Changes that were handed to the writer and are not answered (gauge).
pub const PERSIST_QUEUE: &str = "campaignd_persist_queue_rows";
/// How long the oldest of them waits (gauge).
pub const PERSIST_OLDEST: &str = "campaignd_persist_oldest_seconds";
/// Failed tries of the writer (counter; label `class`).
pub const PERSIST_FAILURES: &str = "campaignd_persist_failures_total";
/// Writes refused because the shard is somebody else's (counter; label `writer`).
pub const PERSIST_FENCED: &str = "campaignd_persist_fenced_total";
/// Changes refused because the row has another version, or by Postgres (counter).
pub const PERSIST_CONFLICTS: &str = "campaignd_persist_conflicts_total";
/// Stored facts that are not applied (gauge).
pub const INBOX_OPEN: &str = "campaignd_inbox_unprocessed";
/// Age of the oldest of them, in real seconds (gauge).
pub const INBOX_OLDEST: &str = "campaignd_inbox_oldest_seconds";
/// From the receipt of a fact to its being dealt with, in real seconds (histogram; label `outcome`).
pub const INBOX_SECONDS: &str = "campaignd_inbox_seconds";
/// Jobs of accounts that are under way (gauge; label `channel`).
pub const SENDS_IN_FLIGHT: &str = "campaignd_sends_in_flight";
/// Sends whose outcome is not known (gauge; labels `channel`, `state`).
pub const SENDS_UNKNOWN: &str = "campaignd_sends_unknown";
/// Times that a send was put off (counter; labels `channel`, `reason`).
pub const SENDS_DEFERRED: &str = "campaignd_send_deferred_total";
/// Accounts (gauge; labels `channel`, `state`).
pub const ACCOUNTS: &str = "campaignd_accounts";
/// Accounts by what is left of their daily limits (gauge; labels `channel`, `headroom`).
pub const ACCOUNTS_QUOTA: &str = "campaignd_accounts_quota";
/// Calls of the provider's API (counter; labels `endpoint`, `code`).
pub const PROVIDER_REQUESTS: &str = "campaignd_provider_requests_total";
/// 1 while a provider refuses our API key (gauge; label `provider`).
pub const KEY_REFUSED: &str = "campaignd_provider_key_refused";
/// Spans that no collector has got (counter; label `reason`).
pub const SPANS_LOST: &str = "campaignd_trace_spans_lost_total";
/// Requests under way (gauge; label `kind`).
pub const HTTP_IN_FLIGHT: &str = "campaignd_http_in_flight";
/// Requests and connections refused for want of room (counter; label `kind`).
pub const HTTP_SHED: &str = "campaignd_http_shed_total";
/// Requests without a valid key or secret (counter; labels `surface`, `reason`).
pub const AUTH_FAILURES: &str = "campaignd_auth_failures_total";
/// Share of the last second that the worker threads were busy (gauge).
pub const RUNTIME_BUSY: &str = "campaignd_runtime_busy_ratio";
/// Live tasks (gauge).
pub const RUNTIME_TASKS: &str = "campaignd_runtime_tasks";
/// Tasks in the queue that all worker threads share (gauge).
pub const RUNTIME_QUEUED: &str = "campaignd_runtime_queued_tasks";
/// How late a task that sleeps is woken (histogram).
pub const RUNTIME_LAG: &str = "campaignd_runtime_lag_seconds";
/// CPU time of the process (counter).
pub const PROCESS_CPU: &str = "process_cpu_seconds_total";
/// Resident memory (gauge).
pub const PROCESS_RSS: &str = "process_resident_memory_bytes";
/// Virtual memory (gauge).
pub const PROCESS_VSIZE: &str = "process_virtual_memory_bytes";
/// Open files (gauge).
pub const PROCESS_FDS: &str = "process_open_fds";
/// How many files may be open (gauge).
pub const PROCESS_FDS_MAX: &str = "process_max_fds";
/// Threads (gauge).
pub const PROCESS_THREADS: &str = "process_threads";
/// When the process began, in seconds since 1970 (gauge).
pub const PROCESS_START: &str = "process_start_time_seconds";
