//! What all commands share that list something from a server.

use serde_json::{Value, json};

use super::client::Remote;
use super::output::{Failure, Paint, Table, print, print_json};
use crate::domain::time::Timestamp;

/// How much of a list, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Listing {
    /// How many at most
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The server to talk to
    #[command(flatten)]
    remote: Remote,
}

/// What was listed.
pub(super) struct Listed {
    pub(super) items: Vec<Value>,
    /// The server's time.
    pub(super) now: Timestamp,
    /// There are more than this.
    more_than: Option<usize>,
}

impl Listing {
    /// Reads the items `name` of a list; prints them and answers `None` when JSON is wanted.
    pub(super) async fn read(
        &self,
        path: &str,
        filter: &[(&str, &str)],
        name: &str,
    ) -> Result<Option<Listed>, Failure> {
        let max = usize::try_from(self.limit.max(1)).unwrap_or(usize::MAX);
        let (items, more, now) = self.remote.client()?.list(path, filter, name, max).await?;
        if self.json {
            print_json(&json!({name: items, "more": more}))?;
            return Ok(None);
        }
        Ok(Some(Listed { items, now, more_than: more.then_some(max) }))
    }
}

impl Listed {
    /// Prints them as a table, with what is to be said below.
    pub(super) fn print(&self, table: &Table, below: &str) -> Result<(), Failure> {
        let more = self.more_than.map_or_else(String::new, |max| format!("there are more than {max}: raise --limit\n"));
        print(&(table.render(Paint::stdout()) + below + &more))
    }
}
