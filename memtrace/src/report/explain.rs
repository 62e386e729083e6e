//! What made a process's resident memory grow, in a sentence (R24).

use super::culprit::{culprit, name, short_place};
use super::human;
use super::model::{Process, RuntimeInfo, Stack};
use crate::ledger::reconcile::Share;

/// Less growth than this is not worth a sentence.
const SMALL: u64 = 1 << 20;

/// The sentence; nothing when the process did not grow, or is not known well enough.
#[must_use]
pub fn growth(process: &Process, stacks: &[Stack]) -> Option<String> {
    let grower = process.grower?;
    if grower.rss_bytes < SMALL || grower.bytes < SMALL / 2 {
        return None;
    }
    let (rss, bytes) = (human::bytes(grower.rss_bytes), human::bytes(grower.bytes));
    let at = |probe: &str| place_of(process.pid, probe, stacks);
    Some(match grower.share {
        Share::HeapOutstanding => {
            let place = at("heap").map_or(String::new(), |place| format!(", most at {place}"));
            format!("RSS grew {rss}: {bytes} outstanding in the heap{place}")
        }
        Share::HeapRetained => format!(
            "RSS grew {rss}, live bytes do not: {bytes} are held by the allocator without a live block \
             (fragmentation, free lists)"
        ),
        Share::Regions => {
            let place = at("region").map_or(String::new(), |place| format!(", most at {place}"));
            format!("RSS grew {rss}: {bytes} in mappings of the program's own{place}")
        }
        Share::Unexplained => match at("fault") {
            Some(place) => {
                format!("RSS grew {rss}: {bytes} of private memory, most first touched at {place}")
            }
            None => format!(
                "RSS grew {rss}: {bytes} of private memory that these probes do not explain; \
                 --probe heap,region,fault tells more"
            ),
        },
        share => format!("RSS grew {rss}: {bytes} in {share}"),
    })
}

/// What a runtime's heap did, to stand behind its name.
#[must_use]
pub fn managed(runtime: &RuntimeInfo) -> String {
    let Some(grown) = runtime.heap_growth_bytes else {
        return String::new();
    };
    match u64::try_from(grown) {
        Ok(grown) if grown >= SMALL / 2 => {
            format!(", its heap grew {} (an estimate)", human::bytes(grown))
        }
        _ => ", its heap has not grown".to_owned(),
    }
}

/// The function that holds most of one probe's bytes.
fn place_of(pid: u32, probe: &str, stacks: &[Stack]) -> Option<String> {
    let mine = stacks
        .iter()
        .filter(|stack| stack.pid == pid && stack.probe == probe && !stack.is_apart());
    let most = mine.max_by_key(|stack| stack.outstanding_bytes)?;
    let frame = most.frames.get(culprit(&most.frames)?)?;
    let place = short_place(frame).map_or(String::new(), |place| format!(" ({place})"));
    Some(format!("{}{place}", name(frame)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{fixtures, model::Grower};
    use crate::trend::Verdict;

    fn said(share: Share) -> Option<String> {
        let mut process = fixtures::process();
        process.grower = Some(Grower {
            share,
            bytes: 171 << 20,
            rss_bytes: 180 << 20,
        });
        let stack = fixtures::stack(1, 171 << 20, 1000, Verdict::Growing);
        growth(&process, &[stack])
    }

    /// A heap that grew says by how much; less than half a MiB is said not to have.
    #[test]
    fn heaps() {
        let of = |heap_growth_bytes| {
            managed(&RuntimeInfo {
                name: crate::target::runtime::Runtime::Jvm,
                heap_growth_bytes,
                advice: String::new(),
            })
        };
        assert_eq!(of(Some(12 << 20)), ", its heap grew 12.0 MiB (an estimate)");
        assert_eq!(of(Some(-5)), ", its heap has not grown");
        assert_eq!(of(None), "");
    }

    /// The largest grower is named with the function behind it.
    #[test]
    fn sentences() {
        assert_eq!(
            said(Share::HeapOutstanding).unwrap(),
            "RSS grew 180 MiB: 171 MiB outstanding in the heap, most at warm_cache (warm.c:77)"
        );
        assert!(
            said(Share::HeapRetained)
                .unwrap()
                .contains("live bytes do not")
        );
        assert!(
            said(Share::Unexplained)
                .unwrap()
                .contains("--probe heap,region,fault")
        );
        assert_eq!(
            said(Share::File).unwrap(),
            "RSS grew 180 MiB: 171 MiB in files"
        );
    }
}
