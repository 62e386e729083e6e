//! Results and arguments of calls, by the names people know.

use serde::{Serialize, Serializer};

use crate::report::model::Word;

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what was asked.
    Done,
    /// An allocator gave nothing.
    Failed,
    /// realloc to nothing: the block is gone.
    Freed,
    /// A system call refused with this error number.
    Refused(i32),
}

impl Outcome {
    /// From what a system call returned.
    #[must_use]
    pub fn of_result(result: u64) -> Self {
        match result.cast_signed() {
            error @ -4095..=-1 => Self::Refused(i32::try_from(-error).unwrap_or(i32::MAX)),
            _ => Self::Done,
        }
    }

    /// As in JSON: `ok`, `failed`, `freed`, the error's name or number.
    #[must_use]
    pub fn name(self) -> Word {
        match self {
            Self::Done => "ok",
            Self::Failed => "failed",
            Self::Freed => "freed",
            Self::Refused(number) => error_name(number),
        }
    }

    /// Nothing was done.
    #[must_use]
    pub fn is_failure(self) -> bool {
        matches!(self, Self::Failed | Self::Refused(_))
    }
}

impl Serialize for Outcome {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// The errors that these calls are documented to give.
fn error_name(number: i32) -> Word {
    match number {
        libc::EPERM => "EPERM",
        libc::EINTR => "EINTR",
        libc::EIO => "EIO",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::ETXTBSY => "ETXTBSY",
        libc::ENOSYS => "ENOSYS",
        libc::EOVERFLOW => "EOVERFLOW",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        _ => "error",
    }
}

/// Access as `/proc/PID/maps` shows it.
#[must_use]
pub fn protection(bits: u64) -> Word {
    const WAYS: [Word; 8] = ["---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"];
    WAYS.get((bits & 7) as usize).copied().unwrap_or("---")
}

/// The constant of `madvise`.
#[must_use]
pub fn advice_name(advice: u64) -> Option<Word> {
    Some(match advice {
        0 => "MADV_NORMAL",
        1 => "MADV_RANDOM",
        2 => "MADV_SEQUENTIAL",
        3 => "MADV_WILLNEED",
        4 => "MADV_DONTNEED",
        8 => "MADV_FREE",
        9 => "MADV_REMOVE",
        10 => "MADV_DONTFORK",
        11 => "MADV_DOFORK",
        12 => "MADV_MERGEABLE",
        13 => "MADV_UNMERGEABLE",
        14 => "MADV_HUGEPAGE",
        15 => "MADV_NOHUGEPAGE",
        16 => "MADV_DONTDUMP",
        17 => "MADV_DODUMP",
        18 => "MADV_WIPEONFORK",
        19 => "MADV_KEEPONFORK",
        20 => "MADV_COLD",
        21 => "MADV_PAGEOUT",
        22 => "MADV_POPULATE_READ",
        23 => "MADV_POPULATE_WRITE",
        24 => "MADV_DONTNEED_LOCKED",
        25 => "MADV_COLLAPSE",
        102 => "MADV_GUARD_INSTALL",
        103 => "MADV_GUARD_REMOVE",
        _ => return None,
    })
}
