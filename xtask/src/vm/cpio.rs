//! Archives in the form that the kernel unpacks at boot: cpio "newc".
//! Source: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst.
use std::collections::BTreeSet;

const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// An archive being written. Paths are absolute, as they will be in the guest.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and those above it.
    pub fn folder(&mut self, path: &str) {
        let path = path.trim_end_matches('/');
        if path.is_empty() || self.paths.contains(path) {
            return;
        }
        self.parent_of(path);
        self.entry(path, FOLDER, &[]);
    }

    /// Adds a file; one that is there already stays.
    pub fn file(&mut self, path: &str, data: &[u8]) {
        if !self.paths.contains(path) {
            self.parent_of(path);
            self.entry(path, FILE, data);
        }
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, to: &str) {
        self.parent_of(path);
        self.entry(path, LINK, to.as_bytes());
    }

    /// Whether there is something at `path`.
    pub fn contains(&self, path: &str) -> bool {
        self.paths.contains(path)
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.record("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parent_of(&mut self, path: &str) {
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.paths.insert(path.to_owned());
        self.record(path.trim_start_matches('/'), mode, data);
    }

    /// Inode, mode, uid, gid, links, mtime, size, device twice, name's length, checksum.
    fn record(&mut self, name: &str, mode: u32, data: &[u8]) {
        let inode = self.paths.len();
        let fields = [inode, mode as usize, 0, 0, 1, 0, data.len(), 0, 0, 0, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields.into_iter().chain([name.len() + 1, 0]) {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of a small archive, field by field: parents come first, once.
    #[test]
    fn layout() {
        let mut archive = Archive::default();
        archive.file("/t/a", b"hello");
        archive.file("/t/a", b"again");
        let bytes = archive.finish();
        let folder = &bytes[..112];
        assert_eq!(&folder[..6], b"070701");
        assert_eq!(&folder[14..22], b"000041ed");
        assert_eq!(&folder[110..112], b"t\0");
        let file = &bytes[112..];
        assert_eq!(&file[54..62], b"00000005");
        assert_eq!(&file[94..102], b"00000004");
        assert_eq!(&file[110..114], b"t/a\0");
        assert_eq!(&file[116..121], b"hello");
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(bytes.windows(5).filter(|w| w == b"again").count(), 0);
    }
}
