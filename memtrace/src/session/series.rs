//! What the ledgers keep of the past, for who draws it.

use std::collections::HashMap;

use super::{Session, Taken};
use crate::{
    id::{SpaceId, StackId},
    ledger::{Account, Point},
    report::{model::Stack, profile::Moment},
};

impl Session {
    /// Outstanding bytes over time of the stacks of a report, in its order.
    #[must_use]
    pub fn stack_series(&self, taken: &Taken) -> Vec<((SpaceId, StackId), Vec<Point>)> {
        let keys = taken.keys.iter().zip(&taken.report.stacks);
        keys.map(|(&key, stack)| (key, self.points(key, stack)))
            .collect()
    }

    /// The same for formats that show the past.
    #[must_use]
    pub fn histories(&self, taken: &Taken) -> Vec<Vec<Moment>> {
        let moment = |point: Point| Moment {
            at: point.at,
            outstanding_bytes: point.bytes,
            outstanding_objects: None,
        };
        let series = self.stack_series(taken).into_iter();
        series
            .map(|(_, points)| points.into_iter().map(moment).collect())
            .collect()
    }

    /// The past of a call path in the account of the probe that saw it: one path can have several.
    fn points(&self, (space, id): (SpaceId, StackId), stack: &Stack) -> Vec<Point> {
        let account = match (stack.probe, stack.kind) {
            ("region", Some(kind)) => self.regions.stack(kind, space, id),
            ("fault", _) => self.faults.ledger().stack(space, id),
            _ => self.ledger.stack(space, id),
        };
        account.map(Account::points).unwrap_or_default()
    }

    /// Outstanding bytes over time of the processes of a report taken just now.
    #[must_use]
    pub fn process_series(&self) -> Vec<(SpaceId, Vec<Point>)> {
        let accounts = self.regions.whole().unwrap_or(&self.ledger).spaces();
        let accounts: HashMap<_, _> = accounts
            .into_iter()
            .map(|one| (one.space, one.account))
            .collect();
        self.images()
            .map(|(image, _)| {
                let account = accounts.get(&image.space);
                let points = account.map(|account| account.points()).unwrap_or_default();
                (image.space, points)
            })
            .collect()
    }
}
