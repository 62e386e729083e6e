//! Identifiers that must not be mixed up.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A thread group id: what people call a pid.
    Tgid(u32)
}
id! {
    /// A thread id.
    Tid(u32)
}
id! {
    /// An address space for its whole life: never reused, new after exec.
    SpaceId(u64)
}
id! {
    /// The kernel side's fingerprint of a call path.
    Fingerprint(u64)
}
id! {
    /// An interned stack of raw addresses, see [`crate::unwind::StackTable`].
    StackId(u32)
}
