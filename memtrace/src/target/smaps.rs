//! What is resident of each mapping of a process: /proc/PID/smaps.

use std::{fs::File, io::Read as _};

use super::{
    maps::{Mapping, Maps},
    process::{ProcFs, ProcessError, error_of},
};
use crate::id::Tgid;

/// A mapping and what of it is resident, in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resident {
    /// The mapping.
    pub mapping: Mapping,
    /// Resident in all.
    pub rss: u64,
    /// Of that, anonymous memory: also a file's pages that were written to privately.
    pub anonymous: u64,
    /// Of that, in huge pages.
    pub huge: u64,
}

/// Bytes of smaps read at most: a mapping takes about 700.
const BYTES_CAP: u64 = 256 << 20;

/// Reads what is resident of every mapping.
///
/// # Errors
/// When the process is gone or may not be looked into.
pub fn read(proc: &ProcFs, tgid: Tgid) -> Result<Vec<Resident>, ProcessError> {
    let path = proc.process(tgid).join("smaps");
    let mut bytes = Vec::new();
    File::open(&path)
        .and_then(|file| file.take(BYTES_CAP).read_to_end(&mut bytes))
        .map_err(|source| error_of(tgid, &path, source))?;
    Ok(parse(&bytes))
}

/// Parses the text of smaps; lines that are not understood are passed over.
#[must_use]
pub fn parse(text: &[u8]) -> Vec<Resident> {
    let mut found: Vec<Resident> = Vec::new();
    for line in text.split(|byte| *byte == b'\n') {
        if let Some((name, bytes)) = figure(line) {
            let Some(last) = found.last_mut() else {
                continue;
            };
            match name {
                b"Rss" => last.rss = bytes,
                b"Anonymous" => last.anonymous = bytes,
                b"AnonHugePages" => last.huge = bytes,
                _ => {}
            }
        } else if let Some(mapping) = Maps::parse(line).mappings.pop() {
            found.push(Resident {
                mapping,
                rss: 0,
                anonymous: 0,
                huge: 0,
            });
        }
    }
    found
}

/// `Rss:                 12 kB`
fn figure(line: &[u8]) -> Option<(&[u8], u64)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, rest) = line.split_at(colon);
    if !name.iter().all(u8::is_ascii_alphanumeric) {
        return None;
    }
    let rest = std::str::from_utf8(rest.get(1..)?).ok()?;
    let kib = rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
    Some((name, kib.checked_mul(1024)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Figures belong to the mapping before them; flags and unknown lines are passed over.
    #[test]
    fn figures() {
        let text = b"00400000-00600000 rw-p 00000000 00:00 0                  [heap]\n\
                     Size:               2048 kB\nRss:                  12 kB\n\
                     Anonymous:             8 kB\nAnonHugePages:         4 kB\nVmFlags: rd wr \n\
                     7f0000000000-7f0000001000 r--p 00000000 fe:01 9        /usr/lib/a: b.so\n\
                     Rss:                   4 kB\n";
        let found = parse(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].rss, found[0].anonymous, found[0].huge),
            (12288, 8192, 4096)
        );
        assert_eq!((found[1].rss, found[1].anonymous), (4096, 0));
        assert!(found[1].mapping.is_file());
    }

    proptest! {
        /// No bytes make it panic.
        #[test]
        fn hostile(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
