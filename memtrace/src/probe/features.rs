//! What the running kernel can do, as far as the choice of maps and programs depends on it.

use super::preemption;

/// Set to anything, probes are put on one by one as on older kernels.
const SINGLE_PROBES: &str = "MEMTRACE_SINGLE_PROBES";

/// The running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// `uname -r`.
    pub release: String,
    /// Major and minor version.
    pub version: (u32, u32),
    /// Hash maps may allocate entries on demand inside tracing programs: since 6.1 they have an
    /// allocator of their own for that; before, everything is allocated up front.
    pub maps_on_demand: bool,
    /// Trace events can have probes at many places (5.4), and removing one leaves the trace buffers
    /// of others alone (6.2).
    pub joined_probes: bool,
    /// The kernel can be preempted within itself.
    pub preemptible: bool,
}

impl Features {
    /// Asks the kernel.
    #[must_use]
    pub fn detect() -> Self {
        let uname = rustix::system::uname();
        let mut features = Self::of_release(&uname.release().to_string_lossy());
        features.preemptible = preemption::is_possible();
        features.joined_probes &= std::env::var_os(SINGLE_PROBES).is_none();
        features
    }

    /// What a kernel of this release can do, if it cannot be preempted.
    #[must_use]
    pub fn of_release(release: &str) -> Self {
        let version = parse_release(release);
        Self {
            release: release.to_owned(),
            version,
            maps_on_demand: version >= (6, 1),
            joined_probes: version >= (6, 2),
            preemptible: false,
        }
    }
}

/// The first two numbers of a release.
pub(super) fn parse_release(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Releases of several distributions are read.
    #[test]
    fn releases() {
        assert_eq!(parse_release("6.18.44-fc-v669"), (6, 18));
        assert_eq!(parse_release("5.10.0-43-cloud-amd64"), (5, 10));
        assert_eq!(parse_release("7.2-rc1"), (7, 2));
        assert_eq!(parse_release("odd"), (0, 0));
    }
}
