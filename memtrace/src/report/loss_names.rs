//! Names of losses and notes that user space counts itself, beside the kernel side's counters.
//!
//! They stand in reports, in the reference and in people's alert rules: never reused for something
//! else.

/// What user space lost.
pub const LOSSES: [&str; 22] = [
    "records_undecodable",
    "stacks_refused",
    "ledger_rows_dropped",
    "ledger_stacks_dropped",
    "ledger_spaces_dropped",
    "ended_images_dropped",
    "probes_moved",
    "probes_refused",
    "incidents_dropped",
    "region_bytes_dropped",
    "region_calls_refused",
    "fault_spaces_refused",
    "page_tables_partial",
    "region_paths_dropped",
    "fault_bytes_dropped",
    "fault_paths_dropped",
    "region_calls_missed",
    "mappings_missed",
    "faults_missed",
    "intervals_not_recorded",
    "incidents_not_recorded",
    "limits_not_recorded",
];

/// Those of [`LOSSES`] that only a recording lacks: they bear on no figure and no verdict.
pub const OF_RECORDINGS: [&str; 3] = [
    "intervals_not_recorded",
    "incidents_not_recorded",
    "limits_not_recorded",
];

/// What user space counts and loses nothing by.
pub const NOTES: [&str; 14] = [
    "objects_without_tables",
    "objects_unusable",
    "objects_too_large",
    "objects_panicked",
    "tables_evicted",
    "mappings_dropped",
    "contexts_evicted",
    "processes_skipped",
    "programs_without_text_table",
    "processes_ended_unread",
    "pages_inferred_bytes",
    "regions_joined",
    "pages_joined",
    "process_events_missed",
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use memtrace_common::COUNTERS;

    use super::*;

    /// The reference's tables name every counter of both sides, and nothing else.
    #[test]
    fn the_reference_is_complete() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/counters.md");
        let page = std::fs::read_to_string(page).unwrap();
        let (tables, others) = page.split_once("## Others").unwrap();
        let told: BTreeSet<&str> = tables
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
            .map(|(name, _)| name)
            .collect();
        let work = |class| class == memtrace_common::counters::Class::Work;
        let of_kernel = COUNTERS.iter().filter(|(_, _, class)| !work(*class));
        let known: BTreeSet<&str> = of_kernel
            .map(|(_, name, _)| *name)
            .chain(LOSSES)
            .chain(NOTES)
            .collect();
        assert_eq!(told, known);
        for (_, name, _) in COUNTERS.iter().filter(|(_, _, class)| work(*class)) {
            assert!(others.contains(&format!("`{name}`")), "{name}");
        }
    }
}
