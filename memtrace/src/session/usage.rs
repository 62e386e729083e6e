//! Watching usage against the limits of the traced processes' groups.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    Session,
    thresholds::{Thresholds, Watch},
};
use crate::target::cgroup::{Effective, Group};

/// Longest and shortest time between two looks. A look is two small files.
const SLOWEST: Duration = Duration::from_secs(1);
const FASTEST: Duration = Duration::from_millis(50);
/// Until a speed is known.
const FIRST: Duration = Duration::from_millis(250);
/// Which groups are limited changes seldom, and finding out takes a file for each one above.
const REFRESH: Duration = Duration::from_secs(5);

/// Limits of one session whose thresholds are recorded: a recording must not grow with groups that
/// come and go. Crossings are recorded whatever their number.
const MAX_RECORDED: usize = 1024;

/// A limit that was neared.
#[derive(Clone, Debug)]
pub(super) struct Crossing {
    pub group: Group,
    pub percent: u8,
    pub used: u64,
    pub limit: u64,
}

/// One limited group.
struct Watched {
    group: Group,
    watch: Watch,
    last: Option<(Instant, u64)>,
    next: Instant,
    /// The limit whose thresholds were last recorded, or counted as not recorded.
    told: Option<u64>,
}

/// All limits watched.
pub(super) struct Usage {
    thresholds: Thresholds,
    watched: Vec<Watched>,
    refresh_at: Instant,
    /// Processes when the groups were found.
    processes: usize,
    /// Groups and limits whose thresholds are recorded.
    recorded: HashSet<(String, u64)>,
    /// Limits beyond [`MAX_RECORDED`].
    unrecorded: u64,
}

impl Usage {
    pub fn new(thresholds: Thresholds) -> Self {
        Self {
            thresholds,
            watched: Vec::new(),
            refresh_at: Instant::now(),
            processes: 0,
            recorded: HashSet::new(),
            unrecorded: 0,
        }
    }

    /// Limits whose thresholds had no place in the recording.
    pub fn unrecorded(&self) -> u64 {
        self.unrecorded
    }

    /// When to look again.
    pub fn due(&self) -> Option<Instant> {
        if self.thresholds.as_slice().is_empty() {
            return None;
        }
        let next = self.watched.iter().map(|one| one.next).min();
        Some(next.map_or(self.refresh_at, |next| next.min(self.refresh_at)))
    }

    /// Takes the groups that limit something now; what was crossed already stays known.
    fn follow(&mut self, groups: Vec<Group>, now: Instant) {
        let mut known: HashMap<Group, Watched> = self
            .watched
            .drain(..)
            .map(|one| (one.group.clone(), one))
            .collect();
        for group in groups {
            if self.watched.iter().any(|one| one.group == group) {
                continue;
            }
            let found = known.remove(&group).unwrap_or_else(|| Watched {
                group,
                watch: Watch::new(self.thresholds.clone()),
                last: None,
                next: now,
                told: None,
            });
            self.watched.push(found);
        }
    }

    /// Thresholds that were not recorded yet: what of, and how many bytes they are.
    fn new_thresholds(&mut self) -> Vec<(String, u64)> {
        let mut new = Vec::new();
        for one in &mut self.watched {
            let Some(limit) = one.group.limit() else {
                continue;
            };
            if one.told.replace(limit) == Some(limit) {
                continue;
            }
            let known = (one.group.path().to_owned(), limit);
            if self.recorded.contains(&known) {
                continue;
            }
            if self.recorded.len() >= MAX_RECORDED {
                self.unrecorded += 1;
                continue;
            }
            self.recorded.insert(known);
            new.extend(self.thresholds.as_slice().iter().map(|percent| {
                let bytes = u128::from(limit) * u128::from(*percent) / 100;
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                (format!("{percent}% of {}", one.group.path()), bytes)
            }));
        }
        new
    }

    fn look(&mut self, now: Instant) -> Vec<Crossing> {
        let due = self.watched.iter_mut().filter(|one| one.next <= now);
        due.filter_map(|one| one.look(now)).collect()
    }
}

impl Watched {
    fn look(&mut self, now: Instant) -> Option<Crossing> {
        self.next = now + SLOWEST;
        let (limit, usage) = (self.group.limit()?, self.group.usage()?);
        let mut used = usage;
        if !matches!(self.watch.room(usage, limit), Some(1..)) {
            // Files that were read once fill every group up to its limit and harm nobody.
            used = usage.saturating_sub(self.group.inactive_file().unwrap_or(0));
        }
        let crossed = self.watch.observe(used, limit);
        self.next = now + self.pause(now, used, limit);
        self.last = Some((now, used));
        crossed.map(|percent| Crossing {
            group: self.group.clone(),
            percent,
            used,
            limit,
        })
    }

    /// Half of the time that the way to the next threshold takes at the present speed.
    fn pause(&self, now: Instant, used: u64, limit: u64) -> Duration {
        let Some((before, from)) = self.last else {
            return FIRST;
        };
        let seconds = now.saturating_duration_since(before).as_secs_f64();
        let speed = used.saturating_sub(from) as f64 / seconds.max(1e-3);
        let Some(room) = self.watch.room(used, limit).filter(|_| speed > 0.0) else {
            return SLOWEST;
        };
        let half = (room as f64 / speed / 2.0).min(SLOWEST.as_secs_f64());
        Duration::from_secs_f64(half).clamp(FASTEST, SLOWEST)
    }
}

impl Session {
    /// Looks at the limits that are due.
    pub(super) fn crossings(&mut self) -> Vec<Crossing> {
        let now = Instant::now();
        if self.usage.due().is_none_or(|due| now < due) && self.usage.processes == self.traced.len()
        {
            return Vec::new();
        }
        if self.usage.thresholds.as_slice().is_empty() {
            return Vec::new();
        }
        if now >= self.usage.refresh_at || self.usage.processes != self.traced.len() {
            let groups = self.limited_groups();
            self.usage.follow(groups, now);
            self.usage.refresh_at = now + REFRESH;
            self.usage.processes = self.traced.len();
            for (name, bytes) in self.usage.new_thresholds() {
                self.events.threshold(&name, bytes);
                let mut has_place = true;
                self.recording(|recorder| has_place = recorder.threshold(&name, bytes));
                self.usage.unrecorded += u64::from(!has_place);
            }
        }
        self.usage.look(now)
    }

    fn limited_groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for traced in &self.traced {
            if let Some(group) = self.groups.group_of(&self.proc, traced.tgid)
                && !groups.contains(&group)
            {
                groups.push(group);
            }
        }
        let limited = groups.iter().filter_map(Group::effective);
        limited.map(|Effective { group, .. }| group).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::target::cgroup::CgroupFs;

    fn write(root: &Path, name: &str, text: &str) {
        let directory = root.join("sys/fs/cgroup/app");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
    }

    fn usage(root: &Path) -> Usage {
        fs::create_dir_all(root.join("proc")).unwrap();
        fs::write(
            root.join("proc/mounts"),
            "c /sys/fs/cgroup cgroup2 rw 0 0\n",
        )
        .unwrap();
        write(root, "memory.max", "1000\n");
        write(root, "memory.stat", "inactive_file 0\n");
        let group = CgroupFs::new(root).group("0::/app\n").unwrap();
        let mut usage = Usage::new(Thresholds::default());
        usage.follow(vec![group], Instant::now());
        usage
    }

    /// A crossing is told once, and looks come faster the nearer the next threshold is in time.
    #[test]
    fn looks() {
        let root = tempfile::tempdir().unwrap();
        let mut usage = usage(root.path());
        let begun = Instant::now();
        usage.refresh_at = begun + Duration::from_secs(3600);
        let mut at = |seconds: f64, bytes: u64| {
            write(root.path(), "memory.current", &format!("{bytes}\n"));
            let now = begun + Duration::from_secs_f64(seconds);
            usage.watched[0].next = now;
            let told = usage.look(now).first().map(|one| (one.percent, one.used));
            (told, usage.due().unwrap().saturating_duration_since(now))
        };
        assert_eq!(at(0.0, 100), (None, FIRST));
        // 100 a second, 550 to go: the slowest pace.
        assert_eq!(at(1.0, 200), (None, SLOWEST));
        // 500 a second, 50 to go.
        let (told, pause) = at(2.0, 700);
        assert_eq!((told, pause.as_millis()), (None, 50));
        assert_eq!(at(3.0, 760).0, Some((75, 760)));
        assert_eq!(at(4.0, 770).0, None);
        assert_eq!(at(5.0, 950).0, Some((90, 950)));
    }

    /// A group full of files that nobody uses is not near its limit.
    #[test]
    fn files_are_not_usage() {
        let root = tempfile::tempdir().unwrap();
        let mut usage = usage(root.path());
        write(root.path(), "memory.current", "990\n");
        write(root.path(), "memory.stat", "inactive_file 500\n");
        assert!(usage.look(Instant::now()).is_empty());
    }

    /// Thresholds are recorded once for each limit of a group.
    #[test]
    fn recorded_once() {
        let root = tempfile::tempdir().unwrap();
        let mut usage = usage(root.path());
        let new = |usage: &mut Usage| usage.new_thresholds();
        let of = |bytes: [u64; 3]| -> Vec<_> {
            let percents = [75, 85, 90].into_iter().zip(bytes);
            percents
                .map(|(n, bytes)| (format!("{n}% of /app"), bytes))
                .collect()
        };
        assert_eq!(new(&mut usage), of([750, 850, 900]));
        assert_eq!(new(&mut usage), []);
        write(root.path(), "memory.max", "2000\n");
        assert_eq!(new(&mut usage), of([1500, 1700, 1800]));
    }

    /// What has no place in a recording is counted, once for each limit.
    #[test]
    fn too_many_limits() {
        let root = tempfile::tempdir().unwrap();
        let mut usage = usage(root.path());
        let limit = |usage: &mut Usage, bytes: usize| {
            write(root.path(), "memory.max", &format!("{bytes}\n"));
            usage.new_thresholds().len()
        };
        for bytes in 1..=MAX_RECORDED {
            assert_eq!(limit(&mut usage, bytes), 3);
        }
        assert_eq!(usage.unrecorded(), 0);
        assert_eq!(limit(&mut usage, MAX_RECORDED + 1), 0);
        assert_eq!(limit(&mut usage, MAX_RECORDED + 1), 0);
        assert_eq!(usage.unrecorded(), 1);
        // One that is recorded already is no loss.
        assert_eq!(limit(&mut usage, 1), 0);
        assert_eq!(usage.unrecorded(), 1);
    }

    /// A group that was removed, or lost its limit, tells nothing.
    #[test]
    fn removed() {
        let root = tempfile::tempdir().unwrap();
        let mut usage = usage(root.path());
        fs::remove_dir_all(root.path().join("sys/fs/cgroup/app")).unwrap();
        assert!(usage.look(Instant::now()).is_empty());
    }
}
