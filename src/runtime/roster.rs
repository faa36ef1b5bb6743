//! Campaigns, flows and accounts in memory. The rows are the truth; this copy is refreshed on a hint and every few seconds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;

use crate::domain::account::{Account, AccountStatus, Channel};
use crate::domain::execution::Execution;
use crate::domain::flow::{self, Flow};
use crate::domain::id::{AccountId, CampaignId, ExecutionId, WorkspaceId};
use crate::store::{self, Pool, roster as rows};

/// A campaign that actors share.
#[derive(Debug)]
pub(super) struct Campaign {
    pub(super) workspace: WorkspaceId,
    active: AtomicBool,
    /// Whether its executions have been told that it runs.
    announced: AtomicBool,
    /// 0 until the flow could be taken over.
    version: AtomicI32,
    /// Of two campaigns that want the same slot, the one with the higher number goes first.
    priority: AtomicI32,
    /// Those it may use, ordered.
    accounts: RwLock<Option<Vec<AccountId>>>,
}

impl Campaign {
    /// For tests: one that runs.
    #[cfg(test)]
    pub(super) fn running(workspace: WorkspaceId) -> Self {
        Self {
            workspace,
            active: true.into(),
            announced: true.into(),
            version: 1.into(),
            priority: 0.into(),
            accounts: RwLock::default(),
        }
    }

    /// Of two campaigns that want the same slot, the one with the higher number goes first.
    pub(super) fn priority(&self) -> i32 {
        self.priority.load(Relaxed)
    }

    /// Whether time moves for its prospects.
    pub(super) fn is_active(&self) -> bool {
        self.active.load(Relaxed)
    }
}

/// What a refresh found.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Campaigns that run now and did not before: not known, not active, or their flow could not be read.
    pub(super) activated: Vec<CampaignId>,
    /// Accounts that are new or different.
    pub(super) accounts: Vec<Arc<Account>>,
}

/// Why an execution cannot get its flow.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlowError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0}")]
    Unrunnable(String),
}

/// The accounts, by everything they are looked up by: there may be thousands, and each webhook names one.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// Ordered by workspace and id.
    all: Vec<Arc<Account>>,
    by_id: HashMap<AccountId, Arc<Account>>,
    /// By what the provider calls them.
    named: HashMap<(WorkspaceId, String), Vec<Arc<Account>>>,
    /// Those that are not switched off, by workspace and channel, ordered by id: what a draw is made from.
    drawn: HashMap<(WorkspaceId, Channel), Vec<AccountId>>,
}

impl Accounts {
    fn new(all: Vec<Arc<Account>>) -> Self {
        let mut accounts = Self { by_id: HashMap::with_capacity(all.len()), ..Self::default() };
        for account in &all {
            accounts.by_id.insert(account.id, Arc::clone(account));
            let name = (account.workspace, account.provider_account_id.clone());
            accounts.named.entry(name).or_default().push(Arc::clone(account));
            if account.status != AccountStatus::Disabled {
                accounts.drawn.entry((account.workspace, account.channel)).or_default().push(account.id);
            }
        }
        Self { all, ..accounts }
    }

    /// All of them, ordered by workspace and id.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.all.iter()
    }

    /// One of them.
    pub(super) fn get(&self, id: AccountId) -> Option<Arc<Account>> {
        self.by_id.get(&id).map(Arc::clone)
    }

    /// Whether nobody of its workspace but this account can be drawn for its channel.
    pub(super) fn is_only(&self, account: &Account) -> bool {
        self.drawn.get(&(account.workspace, account.channel)).is_some_and(|drawn| drawn[..] == [account.id])
    }

    /// Those of a workspace that a provider calls by this name: one, unless two providers use the same.
    pub(super) fn named(&self, workspace: WorkspaceId, provider_account_id: &str) -> &[Arc<Account>] {
        self.named.get(&(workspace, provider_account_id.to_owned())).map_or(&[], Vec::as_slice)
    }
}

/// The runtime's copy.
#[derive(Debug)]
pub(super) struct Roster {
    pool: Pool,
    campaigns: DashMap<CampaignId, Arc<Campaign>>,
    flows: DashMap<(CampaignId, i32), Arc<Flow>>,
    accounts: RwLock<Arc<Accounts>>,
}

impl Roster {
    pub(super) fn new(pool: Pool) -> Self {
        Self { pool, campaigns: DashMap::new(), flows: DashMap::new(), accounts: RwLock::default() }
    }

    /// Reads one campaign again, or all of them and the accounts.
    pub(super) async fn refresh(&self, only: Option<CampaignId>) -> Result<Changes, store::Error> {
        // Everything that can fail comes first, so that no change is noted and then forgotten.
        let mut found = Vec::new();
        for row in rows::campaigns(&self.pool, only).await? {
            let version = match (row.flow_version, row.flow_settings.as_ref()) {
                (Some(version), _) => version,
                (None, Some(settings)) => self.take_over_flow(&row, settings).await?,
                (None, None) => 0,
            };
            found.push((row, version));
        }
        let accounts = match only {
            None => Some(rows::accounts(&self.pool).await?),
            Some(_) => None,
        };
        let mut changes = Changes::default();
        for (row, version) in found {
            let runs = row.active && version != 0;
            let id = row.id;
            let campaign = self.note_campaign(row, version);
            if !runs {
                campaign.announced.store(false, Relaxed);
            } else if only.is_none() && !campaign.announced.swap(true, Relaxed) {
                changes.activated.push(id);
            }
        }
        if let Some(accounts) = accounts {
            let before = self.accounts();
            let accounts: Vec<Arc<Account>> = accounts.into_iter().map(Arc::new).collect();
            changes.accounts =
                accounts.iter().filter(|a| before.by_id.get(&a.id) != Some(*a)).map(Arc::clone).collect();
            self.note_accounts(accounts);
        }
        Ok(changes)
    }

    fn note_accounts(&self, accounts: Vec<Arc<Account>>) {
        let accounts = Arc::new(Accounts::new(accounts));
        *self.accounts.write().unwrap_or_else(PoisonError::into_inner) = accounts;
    }

    fn note_campaign(&self, mut row: rows::CampaignRow, version: i32) -> Arc<Campaign> {
        if let Some(ids) = &mut row.accounts {
            ids.sort_unstable();
        }
        if let Some(campaign) = self.campaign(row.id) {
            campaign.active.store(row.active, Relaxed);
            campaign.version.store(version, Relaxed);
            campaign.priority.store(row.priority, Relaxed);
            *campaign.accounts.write().unwrap_or_else(PoisonError::into_inner) = row.accounts;
            return campaign;
        }
        let campaign = Arc::new(Campaign {
            workspace: row.workspace,
            active: row.active.into(),
            announced: false.into(),
            version: version.into(),
            priority: row.priority.into(),
            accounts: RwLock::new(row.accounts),
        });
        self.campaigns.insert(row.id, Arc::clone(&campaign));
        campaign
    }

    /// These campaigns could not be acted on: the next refresh names them again.
    pub(super) fn unannounce(&self, campaigns: &[CampaignId]) {
        for campaign in campaigns.iter().filter_map(|id| self.campaign(*id)) {
            campaign.announced.store(false, Relaxed);
        }
    }

    /// A campaign of another program, seen for the first time: its flow becomes version 1, in the current form.
    async fn take_over_flow(&self, row: &rows::CampaignRow, settings: &serde_json::Value) -> Result<i32, store::Error> {
        match flow::parse(settings) {
            Ok(flow) => {
                rows::pin_flow(&self.pool, row.workspace, row.id, &flow::to_json(&flow)).await?;
                self.flows.insert((row.id, 1), Arc::new(flow));
                Ok(1)
            }
            Err(problems) => {
                if !self.campaigns.contains_key(&row.id) {
                    tracing::warn!(campaign.id = %row.id, problems = problems.len(),
                        "the flow of this campaign cannot be read; its prospects wait: see GET /v1/campaigns/{}", row.id);
                }
                Ok(0)
            }
        }
    }

    /// The campaign and flow of an execution; its version is pinned to the campaign's current one if it has none yet.
    pub(super) async fn flow_of(&self, execution: &mut Execution) -> Result<(Arc<Campaign>, Arc<Flow>), FlowError> {
        let find = || self.campaigns.get(&execution.campaign).map(|c| Arc::clone(&c));
        let campaign = match find() {
            Some(campaign) if execution.flow_version != 0 || campaign.version.load(Relaxed) != 0 => campaign,
            _ => {
                self.refresh(Some(execution.campaign)).await?;
                find()
                    .ok_or_else(|| FlowError::Unrunnable(format!("campaign {} does not exist", execution.campaign)))?
            }
        };
        if execution.flow_version == 0 {
            execution.flow_version = campaign.version.load(Relaxed);
        }
        if execution.flow_version == 0 {
            return Err(FlowError::Unrunnable(
                "the campaign's flow_settings cannot be read: correct it, then start the campaign again".into(),
            ));
        }
        let flow = self.flow(execution.campaign, execution.flow_version).await?;
        Ok((campaign, flow))
    }

    /// A flow version, read once.
    pub(super) async fn flow(&self, campaign: CampaignId, version: i32) -> Result<Arc<Flow>, FlowError> {
        if let Some(flow) = self.flows.get(&(campaign, version)) {
            return Ok(Arc::clone(&flow));
        }
        let json = rows::flow(&self.pool, campaign, version)
            .await?
            .ok_or_else(|| FlowError::Unrunnable(format!("flow version {version} does not exist")))?;
        let flow = flow::parse(&json).map_err(|problems| {
            let first = problems.first().map(ToString::to_string).unwrap_or_default();
            FlowError::Unrunnable(format!("flow version {version} cannot be read: {first}"))
        })?;
        let flow = Arc::new(flow);
        self.flows.insert((campaign, version), Arc::clone(&flow));
        Ok(flow)
    }

    /// The database says that a campaign is not active. Noted here at once, so that the next refresh sees it become active
    /// again even when it was paused and resumed in between.
    pub(super) fn note_inactive(&self, id: CampaignId) {
        if let Some(campaign) = self.campaigns.get(&id) {
            campaign.active.store(false, Relaxed);
            campaign.announced.store(false, Relaxed);
        }
    }

    /// The database says that an account does not send. Noted at once, for the same reason.
    pub(super) fn note_halted(&self, id: AccountId) {
        let halted = |a: &Arc<Account>| {
            if a.id == id {
                Arc::new(Account { status: AccountStatus::Halted, ..Account::clone(a) })
            } else {
                Arc::clone(a)
            }
        };
        self.note_accounts(self.accounts().iter().map(halted).collect());
    }

    /// Whether a workspace has more than one campaign.
    pub(super) fn has_campaigns(&self, workspace: WorkspaceId) -> bool {
        self.campaigns.iter().filter(|c| c.workspace == workspace).nth(1).is_some()
    }

    /// A known campaign.
    pub(super) fn campaign(&self, id: CampaignId) -> Option<Arc<Campaign>> {
        self.campaigns.get(&id).map(|c| Arc::clone(&c))
    }

    /// All accounts.
    pub(super) fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(&self.accounts.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The account that contacts this person on a channel: the one that did before, else one of the campaign's, drawn by
    /// the execution's id, so that the same draw is made again after a crash. `None`: the workspace has none.
    pub(super) fn account_for(
        &self,
        execution: &Execution,
        campaign: &Campaign,
        channel: Channel,
    ) -> Option<AccountId> {
        execution.accounts.get(channel).or_else(|| self.draw(execution.id, campaign, channel))
    }

    /// The account that is drawn for a person whom none has contacted on the channel.
    pub(super) fn draw(&self, execution: ExecutionId, campaign: &Campaign, channel: Channel) -> Option<AccountId> {
        let allowed = campaign.accounts.read().unwrap_or_else(PoisonError::into_inner);
        let accounts = self.accounts();
        let candidates = accounts.drawn.get(&(campaign.workspace, channel))?;
        // The low bits of an id name its shard.
        let draw = |n: usize| usize::try_from((execution.0.as_u128() >> 10).checked_rem(n as u128)?).ok();
        match allowed.as_deref() {
            None => candidates.get(draw(candidates.len())?).copied(),
            Some(ids) => {
                let mut among = candidates.iter().filter(|a| ids.binary_search(a).is_ok());
                let index = draw(among.clone().count())?;
                among.nth(index).copied()
            }
        }
    }
}
