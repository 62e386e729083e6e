//! The fields of `oom:mark_victim` by the event's format file: kernels differ (R27). Pure.

use std::collections::HashMap;

use crate::report::incident::Figures;

/// Where a field stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    offset: usize,
    size: usize,
    signed: bool,
}

/// The fields that the running kernel's event has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::session) struct Fields(HashMap<String, Field>);

/// What a record says of a victim.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::session) struct Victim {
    /// Of a thread of it.
    pub tid: u32,
    pub comm: Option<String>,
    pub figures: Figures,
}

impl Fields {
    /// Of the text of a format file. What cannot be read is left out.
    pub fn parse(format: &str) -> Self {
        Self(format.lines().filter_map(field).collect())
    }

    /// Reads a record.
    pub fn victim(&self, record: &[u8]) -> Victim {
        let number = |name: &str| self.number(record, name);
        let bytes = |name: &str| {
            // The event counts in KiB.
            let kib = u64::try_from(number(name)?).ok()?;
            kib.checked_mul(1024)
        };
        Victim {
            tid: number("pid")
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
            comm: self.text(record, "comm"),
            figures: Figures {
                total_vm_bytes: bytes("total_vm"),
                anon_rss_bytes: bytes("anon_rss"),
                file_rss_bytes: bytes("file_rss"),
                shmem_rss_bytes: bytes("shmem_rss"),
                page_table_bytes: bytes("pgtables"),
                uid: number("uid").and_then(|n| u32::try_from(n).ok()),
                oom_score_adj: number("oom_score_adj").and_then(|n| i32::try_from(n).ok()),
            },
        }
    }

    fn number(&self, record: &[u8], name: &str) -> Option<i128> {
        let field = self.0.get(name)?;
        let bytes = record.get(field.offset..field.offset.checked_add(field.size)?)?;
        let mut word = [0; 8];
        word.get_mut(..bytes.len())?.copy_from_slice(bytes);
        let unsigned = u64::from_ne_bytes(word);
        Some(match (field.signed, bytes.len()) {
            (true, 1) => i128::from(unsigned as i8),
            (true, 2) => i128::from(unsigned as i16),
            (true, 4) => i128::from(unsigned as i32),
            (true, _) => i128::from(unsigned.cast_signed()),
            (false, _) => i128::from(unsigned),
        })
    }

    /// A text at the place that a field gives: offset in the lower half, length in the upper one.
    fn text(&self, record: &[u8], name: &str) -> Option<String> {
        let place = u32::try_from(self.number(record, name)?).ok()?;
        let (offset, length) = ((place & 0xffff) as usize, (place >> 16) as usize);
        let bytes = record.get(offset..)?;
        let bytes = bytes.get(..length.min(bytes.len()))?;
        let bytes = bytes.split(|byte| *byte == 0).next()?;
        Some(crate::target::printable(bytes))
    }
}

fn field(line: &str) -> Option<(String, Field)> {
    let rest = line.trim().strip_prefix("field:")?;
    let mut parts = rest.split(';').map(str::trim);
    let name = parts.next()?.rsplit([' ', '\t']).next()?;
    let name = name.split('[').next()?.to_owned();
    let mut found = Field {
        offset: 0,
        size: 0,
        signed: false,
    };
    for part in parts {
        match part.split_once(':') {
            Some(("offset", value)) => found.offset = value.parse().ok()?,
            Some(("size", value)) => found.size = value.parse().ok()?,
            Some(("signed", value)) => found.signed = value == "1",
            _ => {}
        }
    }
    (1..=8).contains(&found.size).then_some((name, found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "name: mark_victim\nformat:\n\
        \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
        \tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n";
    const NEW: &str = "format:\n\
        \tfield:int pid;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:__data_loc char[] comm;\toffset:12;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned long total_vm;\toffset:16;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long anon_rss;\toffset:24;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long file_rss;\toffset:32;\tsize:8;\tsigned:0;\n\
        \tfield:unsigned long shmem_rss;\toffset:40;\tsize:8;\tsigned:0;\n\
        \tfield:uid_t uid;\toffset:48;\tsize:4;\tsigned:0;\n\
        \tfield:unsigned long pgtables;\toffset:56;\tsize:8;\tsigned:0;\n\
        \tfield:short oom_score_adj;\toffset:64;\tsize:2;\tsigned:1;\n";

    fn record() -> Vec<u8> {
        let mut bytes = vec![0; 160];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(8, &77_i32.to_ne_bytes());
        put(12, &(66_u32 | 6 << 16).to_ne_bytes());
        put(16, &5000_u64.to_ne_bytes());
        put(24, &3000_u64.to_ne_bytes());
        put(48, &1000_u32.to_ne_bytes());
        put(56, &52_u64.to_ne_bytes());
        put(64, &(-500_i16).to_ne_bytes());
        put(66, b"leaky\0rest");
        bytes
    }

    /// Kernels up to 6.7 tell the pid only; what is not there is not made up.
    #[test]
    fn old_kernels() {
        let victim = Fields::parse(OLD).victim(&record());
        assert_eq!((victim.tid, victim.comm), (77, None));
        assert_eq!(victim.figures, Figures::default());
    }

    /// Newer ones tell name and figures, the latter in KiB.
    #[test]
    fn new_kernels() {
        let victim = Fields::parse(NEW).victim(&record());
        assert_eq!((victim.tid, victim.comm.as_deref()), (77, Some("leaky")));
        assert_eq!(victim.figures.anon_rss_bytes, Some(3000 * 1024));
        assert_eq!(victim.figures.total_vm_bytes, Some(5000 * 1024));
        assert_eq!(victim.figures.shmem_rss_bytes, Some(0));
        assert_eq!(victim.figures.page_table_bytes, Some(52 * 1024));
        assert_eq!(victim.figures.uid, Some(1000));
        assert_eq!(victim.figures.oom_score_adj, Some(-500));
    }

    proptest! {
        /// Neither a format nor a record can make it panic.
        #[test]
        fn hostile(
            name in "pid|comm|total_vm",
            offset in any::<u32>(),
            size in any::<u8>(),
            record in proptest::collection::vec(any::<u8>(), 0..170),
        ) {
            let format = format!("field:int {name};\toffset:{offset};\tsize:{size};\tsigned:1;");
            let _ = Fields::parse(&format).victim(&record);
            let _ = Fields::parse(NEW).victim(&record);
        }
    }
}
