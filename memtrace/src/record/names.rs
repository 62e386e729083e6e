//! Frames and the names in them, each stored once.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::{Connection, params};

use crate::report::model::Frame;

/// What has been written, by content. Frames are known by a 128-bit hash of theirs, so that ten
/// thousands of long C++ names are not kept twice.
#[derive(Debug, Default)]
pub(super) struct Names {
    functions: HashMap<u128, i64>,
    files: HashMap<u128, i64>,
    modules: HashMap<u128, i64>,
    frames: HashMap<u128, i64>,
}

impl Names {
    /// The frame's id; it is written when it is new.
    pub fn frame(&mut self, db: &Connection, frame: &Frame) -> rusqlite::Result<i64> {
        let key = content(frame);
        if let Some(id) = self.frames.get(&key) {
            return Ok(*id);
        }
        let function = frame
            .function
            .as_ref()
            .map(|name| text(db, &mut self.functions, "functions (id, name)", name));
        let file = frame
            .file
            .as_ref()
            .map(|path| text(db, &mut self.files, "files (id, path)", path));
        let module = frame
            .module
            .as_ref()
            .map(|path| self.module(db, path, frame));
        let id = next(&self.frames);
        db.prepare_cached("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")?
            .execute(params![
                id,
                function.transpose()?,
                module.transpose()?,
                frame.offset.as_deref().and_then(number),
                number(&frame.address).unwrap_or(0),
                file.transpose()?,
                frame.line,
                frame.inlined,
                frame.allocator,
                frame.reason,
                frame
                    .stated
                    .as_ref()
                    .map(|stated| stated.address.cast_signed()),
            ])?;
        self.frames.insert(key, id);
        Ok(id)
    }

    fn module(&mut self, db: &Connection, path: &str, of: &Frame) -> rusqlite::Result<i64> {
        let link = of.stated.as_ref().and_then(|stated| stated.link.as_ref());
        let key = content(&(path, &of.build_id, link));
        if let Some(id) = self.modules.get(&key) {
            return Ok(*id);
        }
        let id = next(&self.modules);
        db.prepare_cached("INSERT INTO modules VALUES (?, ?, ?, ?, ?)")?
            .execute(params![
                id,
                path,
                of.build_id,
                link.map(|link| &link.name),
                link.map(|link| link.checksum)
            ])?;
        self.modules.insert(key, id);
        Ok(id)
    }
}

fn text(
    db: &Connection,
    known: &mut HashMap<u128, i64>,
    table: &str,
    value: &str,
) -> rusqlite::Result<i64> {
    let key = content(&value);
    if let Some(id) = known.get(&key) {
        return Ok(*id);
    }
    let id = next(known);
    db.prepare_cached(&format!("INSERT INTO {table} VALUES (?, ?)"))?
        .execute(params![id, value])?;
    known.insert(key, id);
    Ok(id)
}

fn next(known: &HashMap<u128, i64>) -> i64 {
    i64::try_from(known.len()).unwrap_or(i64::MAX - 1) + 1
}

fn content(value: &impl Hash) -> u128 {
    let hash = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        value.hash(&mut hasher);
        hasher.finish()
    };
    u128::from(hash(0)) << 64 | u128::from(hash(1))
}

/// `0x12` as SQLite holds it: the upper half of the addresses is negative.
fn number(hex: &str) -> Option<i64> {
    let digits = hex.strip_prefix("0x")?;
    u64::from_str_radix(digits, 16).ok().map(u64::cast_signed)
}
