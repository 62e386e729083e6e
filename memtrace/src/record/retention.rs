//! How long and how large: old intervals are thinned, then dropped.

use std::time::Duration;

use rusqlite::{Connection, params};

/// How much of the past is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Intervals older than this go.
    pub max_age: Duration,
    /// The file is kept below this, as long as the last intervals fit.
    pub max_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age: Duration::from_secs(7 * 24 * 3600),
            max_bytes: 1 << 30,
        }
    }
}

/// Every interval of the last hour is kept; of what is older one a minute, and one in ten minutes
/// of what is older than a day.
const TIERS: [(i64, i64); 2] = [(3_600_000, 60_000), (86_400_000, 600_000)];
/// Thinning is a matter of minutes, not of every interval.
const EVERY_MS: i64 = 60_000;
/// When the file is too large, every second interval before the last so many goes.
const KEEP_WHOLE: i64 = 12;
/// So many at once.
const AT_ONCE: usize = 4;

/// Keeps a recording within its bounds.
#[derive(Debug)]
pub(super) struct Thinner {
    retention: Retention,
    last_ms: i64,
    /// Up to where each tier has been thinned.
    done_ms: [i64; TIERS.len()],
    /// Where making room goes on.
    cursor: i64,
}

impl Thinner {
    pub fn new(retention: Retention) -> Self {
        Self {
            retention,
            last_ms: 0,
            done_ms: [0; TIERS.len()],
            cursor: 0,
        }
    }

    /// Thins what has become old by interval `last`, and what is too much.
    pub fn thin(&mut self, db: &Connection, last: i64) -> rusqlite::Result<()> {
        let now_ms: i64 = db
            .prepare_cached("SELECT at_ms FROM intervals WHERE id = ?")?
            .query_row([last], |row| row.get(0))?;
        if now_ms - self.last_ms >= EVERY_MS {
            self.last_ms = now_ms;
            for ((age, bucket), done) in TIERS.iter().zip(&mut self.done_ms) {
                // Whole buckets only: half a bucket would be thinned again and differently.
                let until = (now_ms - age).div_euclid(*bucket) * bucket;
                if until > *done {
                    thin_between(db, *done, until, *bucket)?;
                    *done = until;
                }
            }
            let max_age = i64::try_from(self.retention.max_age.as_millis()).unwrap_or(i64::MAX);
            drop_before(db, now_ms.saturating_sub(max_age))?;
        }
        if used_bytes(db)? > self.retention.max_bytes {
            self.make_room(db, last)?;
        }
        Ok(())
    }

    /// Takes every second interval out, from the oldest on and again from there: a few at a time,
    /// since the next report waits for it.
    fn make_room(&mut self, db: &Connection, last: i64) -> rusqlite::Result<()> {
        let next = "id >= ?1 AND id <= ?2";
        let before = last - KEEP_WHOLE;
        let mut found = intervals(db, next, params![self.cursor, before])?;
        if found.len() < 2 {
            self.cursor = 0;
            found = intervals(db, next, params![0, before])?;
        }
        for pair in found.chunks_exact_mut(2).take(AT_ONCE) {
            let [first, second] = pair else { break };
            if !first.pinned {
                merge(db, first, second)?;
            }
            self.cursor = second.id + 1;
        }
        Ok(())
    }
}

/// Bytes of the file that hold something.
fn used_bytes(db: &Connection) -> rusqlite::Result<u64> {
    let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, u64>(0));
    let pages = pragma("page_count")?.saturating_sub(pragma("freelist_count")?);
    Ok(pages.saturating_mul(pragma("page_size")?))
}

/// Keeps the last interval of each bucket of time, and those that are marked.
fn thin_between(db: &Connection, from: i64, until: i64, bucket: i64) -> rusqlite::Result<()> {
    let mut found = intervals(db, "at_ms >= ?1 AND at_ms < ?2", params![from, until])?;
    for at in 1..found.len() {
        let [.., gone, next] = found.get_mut(..=at).unwrap_or_default() else {
            break;
        };
        let same = gone.at_ms.div_euclid(bucket) == next.at_ms.div_euclid(bucket);
        if same && !gone.pinned {
            merge(db, gone, next)?;
        }
    }
    Ok(())
}

/// What is older than `until` goes; what held then is kept in the first interval left.
fn drop_before(db: &Connection, until: i64) -> rusqlite::Result<()> {
    let first_left = "id <= (SELECT min(id) FROM intervals WHERE at_ms >= ?1) AND ?2";
    let mut found = intervals(db, first_left, params![until, true])?;
    for at in 1..found.len() {
        let [.., gone, next] = found.get_mut(..=at).unwrap_or_default() else {
            break;
        };
        db.prepare_cached("DELETE FROM marks WHERE interval = ?")?
            .execute([gone.id])?;
        db.prepare_cached("DELETE FROM incidents WHERE interval = ?")?
            .execute([gone.id])?;
        merge(db, gone, next)?;
    }
    Ok(())
}

struct Listed {
    id: i64,
    at_ms: i64,
    is_key: bool,
    pinned: bool,
}

fn intervals(
    db: &Connection,
    which: &str,
    with: &[&dyn rusqlite::ToSql],
) -> rusqlite::Result<Vec<Listed>> {
    let sql = format!(
        "SELECT id, at_ms, is_key, EXISTS (SELECT 1 FROM marks WHERE interval = intervals.id)
           OR EXISTS (SELECT 1 FROM incidents WHERE interval = intervals.id)
         FROM intervals WHERE {which} ORDER BY id"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(with, |row| {
        Ok(Listed {
            id: row.get(0)?,
            at_ms: row.get(1)?,
            is_key: row.get(2)?,
            pinned: row.get(3)?,
        })
    })?;
    rows.collect()
}

/// Takes an interval out: what changed in it changed in the next one instead.
fn merge(db: &Connection, gone: &Listed, next: &mut Listed) -> rusqlite::Result<()> {
    // A key has a row of everything already.
    if !next.is_key {
        db.prepare_cached("UPDATE OR IGNORE samples SET interval = ?2 WHERE interval = ?1")?
            .execute([gone.id, next.id])?;
        db.prepare_cached(
            "UPDATE OR IGNORE process_samples SET interval = ?2 WHERE interval = ?1",
        )?
        .execute([gone.id, next.id])?;
        if gone.is_key {
            db.prepare_cached("UPDATE intervals SET is_key = 1 WHERE id = ?")?
                .execute([next.id])?;
            next.is_key = true;
        }
    }
    for sql in [
        "DELETE FROM samples WHERE interval = ?",
        "DELETE FROM process_samples WHERE interval = ?",
        "DELETE FROM intervals WHERE id = ?",
    ] {
        db.prepare_cached(sql)?.execute([gone.id])?;
    }
    Ok(())
}
