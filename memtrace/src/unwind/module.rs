//! Objects that targets have mapped, kept readable for as long as somebody may ask for a name.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, OnceLock, Weak};

use super::elf::{Bytes, ElfError, Layout, Segment};

/// What makes two mappings the same object: device and inode, or a hash for bytes without a file.
///
/// An inode is not reused while a [`ModuleFile`] holds the file open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// `st_dev`; 0 for bytes without a file.
    pub device: u64,
    /// `st_ino`; a hash of the bytes when there is no file.
    pub inode: u64,
}

/// Why a file cannot be a module.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// `fstat` failed.
    #[error("cannot look at {path}")]
    Stat {
        /// Path as the target sees it.
        path: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A device, pipe or directory: reading it could block or have effects.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// Path as the target sees it.
        path: String,
    },
}

/// `.gnu_debuglink`: the name of an object's debug file, and what tells that a file is it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DebugLink {
    /// A file's name, no path.
    pub name: String,
    /// CRC-32 of the file.
    pub checksum: u32,
}

/// One object a target has mapped: an executable, a library, the vDSO.
///
/// The file stays open, so that it can be read when it was deleted, when its mount namespace is
/// gone, or when the target is dead. It costs one file descriptor.
#[derive(Debug)]
pub struct ModuleFile {
    path: String,
    bytes: Bytes,
    identity: Identity,
    layout: Result<Layout, ElfError>,
    debug_file: OnceLock<Option<File>>,
    debug_link: OnceLock<Option<DebugLink>>,
}

impl ModuleFile {
    /// Takes over an open file; `path` is only shown. Reads the headers, a few KiB.
    ///
    /// Open it through the target's root or `map_files` and with `O_NONBLOCK`, never by the bare
    /// path (R28). A file that is not ELF is a module too: one without names.
    pub fn new(path: impl Into<String>, file: File) -> Result<Arc<Self>, ModuleError> {
        Self::open(path.into(), file).map(Arc::new)
    }

    /// A file that is only asked for names, by the addresses that its symbols state: what is an offset
    /// elsewhere is such an address here. A separate debug file knows no offsets of the object's.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn of_addresses(path: impl Into<String>, file: File) -> Result<Arc<Self>, ModuleError> {
        let mut module = Self::open(path.into(), file)?;
        if let Ok(layout) = &mut module.layout {
            layout.segments = vec![Segment {
                address: 0,
                offset: 0,
                file_size: u64::MAX,
                memory_size: u64::MAX,
                executable: true,
            }];
        }
        Ok(Arc::new(module))
    }

    fn open(path: String, file: File) -> Result<Self, ModuleError> {
        let meta = match file.metadata() {
            Ok(meta) => meta,
            Err(source) => return Err(ModuleError::Stat { path, source }),
        };
        if !meta.is_file() {
            return Err(ModuleError::NotRegular { path });
        }
        let identity = Identity {
            device: meta.dev(),
            inode: meta.ino(),
        };
        Ok(Self::build(
            path,
            Bytes::File {
                file,
                len: meta.len(),
            },
            identity,
        ))
    }

    /// A module that has no file, such as `[vdso]`, from the bytes of its mapping.
    pub fn from_bytes(path: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Arc<Self> {
        let bytes = bytes.into();
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let identity = Identity {
            device: 0,
            inode: hasher.finish(),
        };
        Arc::new(Self::build(path.into(), Bytes::Memory(bytes), identity))
    }

    fn build(path: String, bytes: Bytes, identity: Identity) -> Self {
        let layout = Layout::read(&bytes);
        Self {
            path,
            bytes,
            identity,
            layout,
            debug_file: OnceLock::new(),
            debug_link: OnceLock::new(),
        }
    }

    /// Path as the target sees it; for people, never to be opened.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The object's bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Device and inode.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Build id, lower-case hex.
    pub fn build_id(&self) -> Option<&str> {
        self.layout.as_ref().ok()?.build_id.as_deref()
    }

    /// The ELF headers, or what is wrong with them.
    pub fn layout(&self) -> Result<&Layout, ElfError> {
        self.layout.as_ref().map_err(|e| *e)
    }

    /// A separate debug file found inside the target's root while it lived.
    pub fn debug_file(&self) -> Option<&File> {
        self.debug_file.get()?.as_ref()
    }

    /// Remembers the separate debug file (or that there is none); the first answer stays.
    pub fn set_debug_file(&self, file: Option<File>) {
        // A second answer is for the same object and is dropped on purpose.
        let _ = self.debug_file.set(file);
    }

    /// The link to its debug file, read once.
    pub fn debug_link(&self, read: impl FnOnce() -> Option<DebugLink>) -> Option<&DebugLink> {
        self.debug_link.get_or_init(read).as_ref()
    }

    /// Whether [`Self::set_debug_file`] was called.
    pub fn debug_file_searched(&self) -> bool {
        self.debug_file.get().is_some()
    }
}

/// One [`ModuleFile`] for all mappings of a file, so that 30 workers of one binary cost one
/// descriptor and one set of unwind tables. Holds nothing alive by itself.
#[derive(Debug, Default)]
pub struct ModuleStore {
    known: HashMap<Identity, Weak<ModuleFile>>,
    sweep_at: usize,
}

impl ModuleStore {
    /// The module of an open file; the file is closed again when the module is known already.
    pub fn intern(
        &mut self,
        path: impl Into<String>,
        file: File,
    ) -> Result<Arc<ModuleFile>, ModuleError> {
        let module = ModuleFile::new(path, file)?;
        Ok(self.share(module))
    }

    /// The module of bytes without a file.
    pub fn intern_bytes(&mut self, path: &str, bytes: impl Into<Arc<[u8]>>) -> Arc<ModuleFile> {
        let module = ModuleFile::from_bytes(path, bytes);
        self.share(module)
    }

    /// The module of this device and inode, when it is known and alive: saves opening the file.
    pub fn get(&self, identity: Identity) -> Option<Arc<ModuleFile>> {
        self.known.get(&identity)?.upgrade()
    }

    fn share(&mut self, module: Arc<ModuleFile>) -> Arc<ModuleFile> {
        if let Some(known) = self.get(module.identity()) {
            return known;
        }
        if self.known.len() >= self.sweep_at.max(256) {
            self.known.retain(|_, weak| weak.strong_count() > 0);
            self.known.shrink_to_fit();
            self.sweep_at = self.known.len() * 2;
        }
        self.known
            .insert(module.identity(), Arc::downgrade(&module));
        module
    }
}
