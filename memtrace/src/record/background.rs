//! Recording in a thread of its own: a slow disk holds up the recording and not the tracing.
//!
//! What is to be written waits in a bounded queue. When the disk is so slow that the queue is full,
//! whole reports are left out and counted; those that were written are right all the same, because
//! each is written as the difference to the one written before it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::encode::Observed;
use super::naming::Naming;
use super::{Interval, RecordError, Writer, incidents};
use crate::report::incident::Incident;
use crate::report::model::{Frame, Report};

/// Stacks of the reports that wait, all together: some 20 MiB. One report may always wait.
const MAX_ROWS: usize = 65_536;
/// What waits, of any kind.
const MAX_WAITING: usize = 64;
/// Marks and incidents are few, and nobody can repeat them: they may wait where reports may not.
const RESERVE: usize = 2;
/// The end of a session waits so long for the disk.
const LAST_PATIENCE: Duration = Duration::from_secs(30);
/// And a session that ends otherwise so long.
const FAREWELL: Duration = Duration::from_secs(1);
/// A thread that died would not say so.
const LOOK: Duration = Duration::from_millis(100);

/// What had no place in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Reports, with the marks that were set then.
    pub intervals: u64,
    /// Incidents.
    pub incidents: u64,
}

/// A report as it is handed over; see [`Interval`].
#[derive(Debug)]
pub struct Given {
    /// When, since tracing began.
    pub at: Duration,
    /// Address spaces in the order of the report's processes.
    pub spaces: Vec<u64>,
    /// All stacks.
    pub observed: Vec<Observed>,
    /// Frames of those that [`Recorder::wants_names`] named.
    pub frames: Vec<(usize, Vec<Frame>)>,
    /// Marks set at this moment.
    pub marks: Vec<String>,
}

/// Something to be written.
enum Task {
    Interval(Box<Report>, Given),
    Incident {
        at: String,
        kind: &'static str,
        pid: Option<u32>,
        details: serde_json::Value,
    },
    Threshold(String, u64),
}

impl Task {
    fn rows(&self) -> usize {
        match self {
            Self::Interval(_, given) => given.observed.len(),
            Self::Incident { .. } | Self::Threshold(..) => 0,
        }
    }
}

/// What writes. A recording; in tests something that can be held up.
trait Sink: Send + 'static {
    fn write(&mut self, task: Task) -> Result<(), RecordError>;
    fn finish(self, ended_at: &str) -> Result<(), RecordError>;
}

impl Sink for Writer {
    fn write(&mut self, task: Task) -> Result<(), RecordError> {
        match task {
            Task::Interval(mut report, given) => self.interval(
                &mut report,
                Interval {
                    at: given.at,
                    spaces: &given.spaces,
                    observed: &given.observed,
                    frames: given.frames,
                    marks: &given.marks,
                },
            ),
            Task::Incident {
                at,
                kind,
                pid,
                details,
            } => self.incident(&at, kind, pid, &details),
            Task::Threshold(name, bytes) => self.threshold(&name, bytes),
        }
    }

    fn finish(self, ended_at: &str) -> Result<(), RecordError> {
        Self::finish(self, ended_at)
    }
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Task>,
    rows: usize,
    /// One is being written.
    is_busy: bool,
    /// When the session ended; nothing comes after.
    ended_at: Option<String>,
    /// The session failed: what waits is written, and no end.
    is_abandoned: bool,
    /// The thread is done, for good or bad.
    is_over: bool,
    failed: Option<RecordError>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sleep<'a>(&self, queue: MutexGuard<'a, Queue>, time: Duration) -> MutexGuard<'a, Queue> {
        let woken = self.changed.wait_timeout(queue, time);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// A recording that is written by a thread of its own.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    path: PathBuf,
    naming: Naming,
    lost: Lost,
    /// It failed, and that was told.
    is_told: bool,
}

impl Recorder {
    /// Hands a recording over to a thread.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(writer: Writer) -> io::Result<Self> {
        let path = writer.path().to_owned();
        Self::with(writer, &path)
    }

    fn with(sink: impl Sink, path: &Path) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let its = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("record".to_owned())
            .spawn(move || write_all(sink, &its))?;
        Ok(Self {
            shared,
            thread,
            path: path.to_owned(),
            naming: Naming::default(),
            lost: Lost::default(),
            is_told: false,
        })
    }

    /// Which of the stacks have to be named for [`Given::frames`]: new ones, and those that were not
    /// named in time before.
    #[must_use]
    pub fn wants_names(&self, observed: &[Observed]) -> Vec<usize> {
        self.naming.wanted(observed)
    }

    /// False when it failed: there is nothing to hand over any more.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        !self.is_told && !self.shared.queue().is_over
    }

    /// Hands a report over.
    pub fn interval(&mut self, report: &mut Report, given: Given) {
        // The stacks come apart, all of them: those of the report need not be copied.
        let stacks = std::mem::take(&mut report.stacks);
        let copy = Box::new(report.clone());
        report.stacks = stacks;
        let mut queue = self.shared.queue();
        let reserve = if given.marks.is_empty() { 1 } else { RESERVE };
        let rows = queue.rows + given.observed.len();
        let is_full = queue.waiting.len() >= MAX_WAITING * reserve
            || (queue.rows > 0 && rows > MAX_ROWS * reserve);
        if is_full {
            drop(queue);
            self.lost.intervals += 1;
            return;
        }
        // Only what is written need not be asked for again.
        self.naming.given(&given.observed, &given.frames);
        queue.rows = rows;
        queue.waiting.push_back(Task::Interval(copy, given));
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Hands over what went wrong: it belongs to the report that was handed over last.
    pub fn incident(&mut self, incident: &Incident) {
        let task = Task::Incident {
            at: incident.at.clone(),
            kind: incident.kind.name(),
            pid: incident.pid(),
            details: incidents::details(incident),
        };
        if !self.push(task) {
            self.lost.incidents += 1;
        }
    }

    /// Hands over an amount that is watched; false when there is no place.
    #[must_use]
    pub fn threshold(&mut self, name: &str, bytes: u64) -> bool {
        self.push(Task::Threshold(name.to_owned(), bytes))
    }

    fn push(&self, task: Task) -> bool {
        let mut queue = self.shared.queue();
        let has_place = queue.waiting.len() < MAX_WAITING * RESERVE;
        if has_place {
            queue.waiting.push_back(task);
        }
        drop(queue);
        self.shared.changed.notify_all();
        has_place
    }

    /// What had no place.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Why it ended, once.
    pub fn failure(&mut self) -> Option<RecordError> {
        let failed = self.shared.queue().failed.take();
        self.is_told |= failed.is_some();
        failed
    }

    /// Waits until everything is written, but not longer than `patience`.
    pub fn settle(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        let mut queue = self.shared.queue();
        loop {
            if queue.is_over || (queue.waiting.is_empty() && !queue.is_busy) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.thread.is_finished() {
                return false;
            }
            queue = self.shared.sleep(queue, left.min(LOOK));
        }
    }

    /// Writes what waits, and the end of the session.
    ///
    /// # Errors
    /// Why it failed, when that was not told before, and a disk that is too slow.
    pub fn finish(mut self, ended_at: &str) -> Result<(), RecordError> {
        self.finish_within(ended_at, LAST_PATIENCE)
    }

    fn finish_within(&mut self, ended_at: &str, patience: Duration) -> Result<(), RecordError> {
        self.shared.queue().ended_at = Some(ended_at.to_owned());
        self.shared.changed.notify_all();
        let until = Instant::now() + patience;
        let mut queue = self.shared.queue();
        while !queue.is_over && !self.thread.is_finished() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(RecordError::TooSlow {
                    path: self.path.clone(),
                    waiting: queue.waiting.len() + usize::from(queue.is_busy),
                });
            }
            queue = self.shared.sleep(queue, left.min(LOOK));
        }
        match queue.failed.take() {
            Some(error) if !self.is_told => Err(error),
            _ => Ok(()),
        }
    }
}

impl Drop for Recorder {
    /// A session that fails has no end, but what it reported before is worth a moment.
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        if queue.ended_at.is_some() {
            return;
        }
        queue.is_abandoned = true;
        self.shared.changed.notify_all();
        let until = Instant::now() + FAREWELL;
        while !queue.is_over && !self.thread.is_finished() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            queue = self.shared.sleep(queue, left.min(LOOK));
        }
    }
}

/// The thread.
fn write_all(mut sink: impl Sink, shared: &Shared) {
    let done = loop {
        let mut queue = shared.queue();
        while queue.waiting.is_empty() && queue.ended_at.is_none() && !queue.is_abandoned {
            queue = shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let Some(task) = queue.waiting.pop_front() else {
            let ended_at = queue.ended_at.clone();
            drop(queue);
            break match ended_at {
                Some(ended_at) => sink.finish(&ended_at),
                None => {
                    // Closed before that is told: who waits for it ends the process.
                    drop(sink);
                    Ok(())
                }
            };
        };
        queue.rows -= task.rows();
        queue.is_busy = true;
        drop(queue);
        let written = sink.write(task);
        shared.queue().is_busy = false;
        shared.changed.notify_all();
        if let Err(error) = written {
            // What was written before stays readable; the file is closed before that is told.
            drop(sink);
            break Err(error);
        }
    };
    let mut queue = shared.queue();
    queue.failed = done.err();
    queue.is_over = true;
    queue.waiting = VecDeque::new();
    queue.rows = 0;
    drop(queue);
    shared.changed.notify_all();
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;
    use crate::record::StackKey;
    use crate::report::fixtures;
    use crate::trend::Verdict;

    /// A disk that takes one task for each pass it is given, and tells what it took.
    struct Slow {
        passes: Receiver<()>,
        took: SyncSender<String>,
        fails: bool,
    }

    impl Sink for Slow {
        fn write(&mut self, task: Task) -> Result<(), RecordError> {
            let name = match task {
                Task::Interval(report, given) => {
                    assert!(report.stacks.is_empty());
                    format!("{} {:?}", given.at.as_secs(), given.marks)
                }
                Task::Incident { kind, .. } => kind.to_owned(),
                Task::Threshold(name, _) => name,
            };
            // Closed: no more passes are needed.
            let _ = self.passes.recv();
            if self.fails {
                return Err(RecordError::Empty(PathBuf::from("r")));
            }
            self.took.send(name).unwrap();
            Ok(())
        }

        fn finish(self, ended_at: &str) -> Result<(), RecordError> {
            self.took.send(ended_at.to_owned()).unwrap();
            Ok(())
        }
    }

    fn slow(fails: bool) -> (Recorder, SyncSender<()>, Receiver<String>) {
        let (give, passes) = sync_channel(1000);
        let (took, taken) = sync_channel(1000);
        let sink = Slow {
            passes,
            took,
            fails,
        };
        (Recorder::with(sink, Path::new("r")).unwrap(), give, taken)
    }

    fn given(second: u64, stacks: u32, marks: &[&str]) -> Given {
        let observed = |stack| Observed {
            key: StackKey {
                space: 7,
                stack,
                probe: "heap",
                kind: None,
            },
            account: fixtures::stack(0, 1, 1, Verdict::Steady),
            judged: true,
        };
        Given {
            at: Duration::from_secs(second),
            spaces: vec![7],
            observed: (0..stacks).map(observed).collect(),
            frames: vec![(0, vec![fixtures::malloc()])],
            marks: marks.iter().map(|&mark| mark.to_owned()).collect(),
        }
    }

    // A disk that stands still: nobody waits, what has no place is counted, and what had one is written
    // in its order when the disk goes on.
    #[test]
    fn slow_disk() {
        let (mut writer, passes, taken) = slow(false);
        let mut report = fixtures::leak();
        let whole = report.stacks.len();
        let reports = 3 * u64::try_from(MAX_WAITING).unwrap();
        for second in 0..reports {
            writer.interval(&mut report, given(second, 1, &[]));
            // The first is in the disk's hands before the others come.
            while second == 0 && !writer.shared.queue().is_busy {
                std::thread::yield_now();
            }
        }
        assert_eq!(report.stacks.len(), whole, "the report is given back");
        let kept = reports - writer.lost().intervals;
        assert_eq!(kept, u64::try_from(MAX_WAITING).unwrap() + 1);
        writer.interval(&mut report, given(999, 1, &["cycle"]));
        writer.incident(&crate::report::incident::tests::kill());
        assert_eq!(writer.lost().intervals, reports - kept);
        assert_eq!(writer.lost().incidents, 0);
        assert!(!writer.settle(Duration::from_millis(1)));
        assert!(writer.is_recording());
        drop(passes);
        writer.finish("then").unwrap();
        let taken: Vec<_> = taken.iter().collect();
        let expected: Vec<_> = (0..kept)
            .map(|second| format!("{second} []"))
            .chain(["999 [\"cycle\"]", "oom-kill", "then"].map(str::to_owned))
            .collect();
        assert_eq!(taken, expected);
    }

    // What waits is bounded by its size, too; one report may be of any size. Names that were lost with
    // their report are asked for again.
    #[test]
    fn large_reports() {
        let (mut writer, passes, taken) = slow(false);
        let mut report = fixtures::leak();
        let many = u32::try_from(MAX_ROWS).unwrap() + 1;
        let first = given(1, many, &[]);
        let wanted = writer.wants_names(&first.observed);
        assert_eq!(wanted.first(), Some(&0));
        writer.interval(&mut report, first);
        // Once the disk has it in its hands, there is place for another.
        while writer.shared.queue().rows > 0 {
            std::thread::yield_now();
        }
        writer.interval(&mut report, given(2, many, &[]));
        let mut third = given(3, 2, &[]);
        third.frames = vec![(1, vec![fixtures::malloc()])];
        let again = given(3, 2, &[]).observed;
        writer.interval(&mut report, third);
        assert_eq!(writer.lost().intervals, 1);
        assert_eq!(writer.wants_names(&again), [1], "0 was named, 1 was lost");
        drop(passes);
        writer.finish("then").unwrap();
        let taken: Vec<_> = taken.iter().collect();
        assert_eq!(taken, ["1 []", "2 []", "then"]);
    }

    // A disk that fails ends the recording; that is told once, also when it comes at the end.
    #[test]
    fn failing_disk() {
        for tell_before in [true, false] {
            let (mut writer, passes, _taken) = slow(true);
            let mut report = fixtures::leak();
            writer.interval(&mut report, given(1, 1, &[]));
            passes.send(()).unwrap();
            assert!(writer.settle(Duration::from_secs(60)));
            while writer.is_recording() {
                std::thread::yield_now();
            }
            if tell_before {
                assert!(writer.failure().is_some());
                assert!(writer.failure().is_none());
            }
            assert_eq!(writer.finish("then").is_err(), !tell_before);
        }
    }

    // A disk that never answers does not hold the end up for ever.
    #[test]
    fn dead_disk() {
        let (mut writer, passes, _taken) = slow(false);
        let mut report = fixtures::leak();
        writer.interval(&mut report, given(1, 1, &[]));
        let error = writer
            .finish_within("then", Duration::from_millis(20))
            .unwrap_err();
        assert!(error.to_string().contains("too slow"), "{error}");
        drop(passes);
    }
}
