//! What was lost, by name, and what that means for the figures (R12).

use memtrace_common::COUNTERS;
use memtrace_common::counters::Class;

use super::View;
use super::facts::LABEL;
use crate::report::human;
use crate::report::layout::{Page, piece, plain, style, tight};

/// What happened, and what to do about it, by counter. The consequence comes from its class.
const SENTENCES: &[(&str, &str)] = &[
    (
        "live_table_full",
        "the table of live blocks was full (raise --live-entries)",
    ),
    ("live_table_full_bytes", "the size of those allocations"),
    (
        "thread_table_full",
        "more threads at once than the table has room for",
    ),
    ("nesting_too_deep", "allocator calls nested too deep"),
    (
        "orphan_returns",
        "an allocator returned without a recorded call",
    ),
    (
        "vanished_reallocs",
        "a realloc never returned; its old block's fate is unknown",
    ),
    (
        "context_table_full",
        "more call paths than the table has room for",
    ),
    (
        "lifecycle_events_lost",
        "the ring buffer was full (raise --ring-bytes)",
    ),
    (
        "stack_copies_lost",
        "the ring buffer was full (raise --ring-bytes); asked for again",
    ),
    ("stack_reads_failed", "the stack could not be read"),
    (
        "out_pointers_unreadable",
        "posix_memalign's result could not be read",
    ),
    ("sizes_too_large", "a block of more than 256 TiB"),
    (
        "target_table_full",
        "a process that shares the address space is not traced",
    ),
    ("unmatched_frees", "frees of blocks from before the attach"),
    (
        "vanished_calls",
        "allocator calls that never returned (longjmp, exceptions)",
    ),
    (
        "missed_frees",
        "blocks replaced at a live address: their free was not seen",
    ),
    (
        "ambiguous_contexts",
        "call paths that looked alike, told apart since",
    ),
    (
        "forks_not_followed",
        "processes the target started: they are not traced",
    ),
    (
        "processes_skipped",
        "selected processes that could not be traced",
    ),
    (
        "programs_without_text_table",
        "programs at once beyond 512: their call paths are told apart by more than code",
    ),
    (
        "processes_ended_unread",
        "programs over before their mappings could be read: their stacks have no names",
    ),
    (
        "region_events_lost",
        "the ring buffer was full (raise --ring-bytes)",
    ),
    (
        "call_events_lost",
        "the ring buffer was full (raise --ring-bytes)",
    ),
    (
        "fault_events_lost",
        "the ring buffer was full (raise --ring-bytes)",
    ),
    (
        "region_calls_missed",
        "changes of mappings, of any process, that the kernel did not show",
    ),
    (
        "mappings_missed",
        "files mapped, by any process, that the kernel did not show",
    ),
    (
        "faults_missed",
        "page faults, of any process, that the kernel did not show",
    ),
    (
        "process_events_missed",
        "starts and ends, of any process, that the kernel did not show",
    ),
    (
        "fault_spaces_refused",
        "faults of more address spaces than there is room for",
    ),
    (
        "page_tables_partial",
        "a process has more pages than are looked through",
    ),
    (
        "pages_inferred_bytes",
        "bytes that came with a huge page around a touched one",
    ),
    (
        "region_bytes_dropped",
        "bytes of more regions than there is room for",
    ),
    (
        "region_calls_refused",
        "more address spaces than there is room for",
    ),
    (
        "region_paths_dropped",
        "regions of more call paths than there is room for stand under no stack",
    ),
    (
        "fault_bytes_dropped",
        "resident bytes in more pieces than there is room for",
    ),
    (
        "fault_paths_dropped",
        "pages of more call paths than there is room for stand under no stack",
    ),
    (
        "regions_joined",
        "times that neighbouring regions were joined for room: their ages and number are given up",
    ),
    (
        "pages_joined",
        "times that neighbouring pages were joined for room: the older age counts for both",
    ),
    (
        "contexts_evicted",
        "idle call paths removed from the kernel's table for room",
    ),
    (
        "objects_without_tables",
        "objects without unwind tables: stacks end there",
    ),
    (
        "objects_unusable",
        "objects with broken unwind tables: stacks end there",
    ),
    (
        "objects_too_large",
        "objects with unwind tables too large to keep: stacks end there",
    ),
    (
        "objects_panicked",
        "objects whose unwind tables made the unwinder fail: stacks end there",
    ),
    (
        "tables_evicted",
        "unwind tables dropped for room and read again",
    ),
    (
        "mappings_dropped",
        "mappings beyond the cap: stacks end there",
    ),
    (
        "records_undecodable",
        "records from the kernel that were not understood; please report it",
    ),
    (
        "stacks_refused",
        "the table of stacks was full; further ones have no frames",
    ),
    (
        "ledger_rows_dropped",
        "too many contexts; bytes are missing from the sums",
    ),
    (
        "ledger_stacks_dropped",
        "accounts of stacks dropped for room; the sums of processes are right",
    ),
    (
        "ledger_spaces_dropped",
        "accounts of ended processes dropped for room",
    ),
    (
        "ended_images_dropped",
        "the oldest of many ended processes are no longer shown",
    ),
    (
        "probes_moved",
        "the thread that the probes hung on ended; calls until they were put on another are missing",
    ),
    (
        "probes_refused",
        "probes of a later loaded object could not be put on; no verdict is given",
    ),
    (
        "incidents_dropped",
        "more incidents at once than are kept to be told: some OOM kills or crossings are missing",
    ),
    (
        "intervals_not_recorded",
        "reports that the recording lacks: its disk is too slow; these figures are right",
    ),
    (
        "incidents_not_recorded",
        "incidents that the recording lacks: its disk is too slow",
    ),
    (
        "limits_not_recorded",
        "memory limits whose thresholds had no place in the recording",
    ),
];
/// Notes that say that something went wrong: shown to everybody (R12).
const ALWAYS: &[&str] = &[
    "stack_copies_lost",
    "missed_frees",
    "mappings_dropped",
    "objects_panicked",
];
const UNEXPLAINED: &str = "the reference of counters explains it";

pub(super) fn write(page: &mut Page, view: &View<'_>) {
    let report = view.report;
    for (name, count) in report.losses.iter().filter(|(_, count)| **count > 0) {
        let consequence = piece(style::BOLD, consequence(name));
        let pieces = [
            plain(what(name, *count)),
            plain(sentence(name)),
            consequence,
        ];
        page.labelled(piece(style::BAD, "LOST"), LABEL, &pieces);
    }
    for (name, count) in report
        .notes
        .iter()
        .filter(|(name, count)| **count > 0 && (view.verbose || ALWAYS.contains(&name.as_str())))
    {
        let pieces = [plain(what(name, *count)), plain(sentence(name))];
        page.labelled(piece(style::DIM, "Note"), LABEL, &pieces);
    }
}

fn what(name: &str, count: u64) -> String {
    let amount = if name.ends_with("_bytes") {
        human::bytes(count)
    } else {
        human::count(count)
    };
    format!("{}: ", tight(format!("{name} {amount}")))
}

fn sentence(name: &str) -> &'static str {
    SENTENCES
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(UNEXPLAINED, |(_, text)| text)
}

fn consequence(name: &str) -> &'static str {
    let class = COUNTERS
        .iter()
        .find(|(_, known, _)| *known == name)
        .map(|(_, _, class)| *class);
    match class {
        // The counter it belongs to has said it.
        _ if name.ends_with("_bytes") => "",
        Some(Class::LostAllocation) => "; allocations are missing, a leak may be hidden",
        Some(Class::LostFree) => "; frees are missing, a leak may be invented",
        Some(Class::LostAttribution) => "; bytes may stand under the wrong stack",
        Some(Class::Work | Class::Note) | None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Every counter that can lose or explain something has a sentence of its own.
    #[test]
    fn every_counter_is_explained() {
        use crate::report::loss_names::{LOSSES, NOTES};
        let counters = COUNTERS.iter();
        let of_kernel = counters.filter(|(_, _, class)| *class != Class::Work);
        for name in of_kernel
            .map(|(_, name, _)| *name)
            .chain(LOSSES)
            .chain(NOTES)
        {
            assert_ne!(sentence(name), UNEXPLAINED, "{name}");
        }
    }
}
