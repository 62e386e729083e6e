//! What the ledger keeps of the past, for who draws it.

use super::{Session, Taken};
use crate::{
    id::{SpaceId, StackId},
    ledger::{Account, Point},
};

impl Session {
    /// Outstanding bytes over time of the stacks of a report, in its order.
    #[must_use]
    pub fn stack_series(&self, taken: &Taken) -> Vec<((SpaceId, StackId), Vec<Point>)> {
        let keys = taken.keys.iter();
        keys.map(|&(space, stack)| {
            let account = self.ledger.stack(space, stack);
            let points = account.map(Account::points).unwrap_or_default();
            ((space, stack), points)
        })
        .collect()
    }

    /// The same of the processes of a report taken just now.
    #[must_use]
    pub fn process_series(&self) -> Vec<(SpaceId, Vec<Point>)> {
        let accounts = self.ledger.spaces();
        self.images()
            .map(|(image, _)| {
                let account = accounts.iter().find(|one| one.space == image.space);
                let points = account.map(|one| one.account.points()).unwrap_or_default();
                (image.space, points)
            })
            .collect()
    }
}
