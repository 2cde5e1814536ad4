//! Shared claims of a process before this one, written anew while their outcomes are looked for: else another amibus takes
//! them for those of one that is gone, and ends them without what this one finds.

use tracing::{debug, warn};

use super::{engine::Engine, follow::AWAY_RETRY, hold::renewal, shared::Shared};

impl Engine {
    /// Runs `work`, writing the claims of these commands anew meanwhile, as long as they are looked for.
    pub(super) async fn renewing<T>(&self, ids: Vec<String>, work: impl Future<Output = T>) -> T {
        let Some(shared) = &self.shared else { return work.await };
        let renew = async {
            loop {
                let renewed = self.renewed(shared, &ids).await;
                tokio::time::sleep(if renewed { renewal(shared) } else { AWAY_RETRY.min(renewal(shared)) })
                    .await;
            }
        };
        tokio::select! {
            done = work => done,
            never = renew => never,
        }
    }

    /// Answers whether all that could be renewed are.
    async fn renewed(&self, shared: &Shared, ids: &[String]) -> bool {
        for id in ids {
            if !self.looking_up.borrow().contains(id) {
                continue;
            }
            let hold = match self.hold(id).await {
                Ok(Some(hold)) => hold,
                Ok(None) => continue,
                Err(error) => {
                    warn!(id, %error, "the journal does not tell which claim is to be renewed");
                    return false;
                }
            };
            if let Err(fault) = hold.renew().await {
                debug!(id, %fault, "a claim could not be renewed");
                // It is told of once, whatever number of claims there are.
                if shared.is_away() {
                    return false;
                }
            }
        }
        true
    }
}
