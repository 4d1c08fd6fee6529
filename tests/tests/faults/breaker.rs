//! Breaks what the plan says when the sending is so far, and mends it.

use tests::stack::origin::Origin;
use tests::stack::postgres::Postgres;
use tokio::sync::watch;

use crate::plan::{Broken, Fault};
use crate::sender::Progress;

/// Goes through all faults; ends when the last is mended.
pub(crate) async fn break_all(
    faults: &[Fault],
    origin: &mut Origin,
    postgres: &Postgres,
    mut progress: watch::Receiver<Progress>,
) -> anyhow::Result<()> {
    for fault in faults {
        let broken_at = progress.wait_for(|progress| progress.taken >= fault.after).await?.requests;
        match fault.broken {
            Broken::Origin => origin.kill().await?,
            Broken::Postgres => postgres.kill().await?,
        }
        progress.wait_for(|progress| progress.requests >= broken_at + fault.lasts).await?;
        match fault.broken {
            Broken::Origin => origin.start_again().await?,
            Broken::Postgres => postgres.start_again().await?,
        }
    }
    Ok(())
}
