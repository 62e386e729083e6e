//! Probes on memtrace's own functions, for what is measured and tried on itself.

use super::ProbeError;

/// memtrace's executable, for every process that runs it.
pub(super) const OWN_FILE: &str = "/proc/self/exe";

/// File offset in memtrace's own executable of an address in it.
pub(super) fn own_file_offset(address: u64) -> Result<u64, ProbeError> {
    let maps = std::fs::read_to_string("/proc/self/maps")
        .map_err(|source| ProbeError::system("cannot read /proc/self/maps", source))?;
    maps.lines()
        .find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let start = u64::from_str_radix(start, 16).ok()?;
            let end = u64::from_str_radix(end, 16).ok()?;
            let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
            (start..end)
                .contains(&address)
                .then(|| address - start + offset)
        })
        .ok_or(ProbeError::Missing("its own code in /proc/self/maps"))
}
