//! OOM kills: what the kernel said, gathered until an incident can be made of it.

mod fields;
mod kernel_log;

use std::{
    collections::HashSet,
    path::Path,
    time::{Duration, Instant},
};

use memtrace_common::OomEvent;

use super::Session;
use crate::{
    id::{SpaceId, Tgid},
    probe::{self, KernelSide},
    report::incident::Figures,
    target::{
        cgroup::{CgroupFs, Group, State},
        container::Identity,
        printable,
    },
};
use fields::Fields;
use kernel_log::{Domain, KernelLog, Line};

/// The victims of one kill come within microseconds of each other, the kernel's log right after.
const GATHER: Duration = Duration::from_millis(20);
/// A storm of kills is told in parts.
const MAX_GATHER: Duration = Duration::from_millis(200);
/// Victims of one incident; a group has hardly more processes worth naming.
const MAX_VICTIMS: usize = 256;
/// Spaces remembered as killed: far more than reports show of what has ended.
const MAX_KILLED: usize = 4096;

/// One victim.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    pub tgid: Tgid,
    pub tid: u32,
    pub comm: String,
    /// When it is traced.
    pub space: Option<SpaceId>,
    pub figures: Figures,
    pub group: Option<Group>,
    /// The tightest limit above it, read at once: a runtime removes the group with the process.
    pub limited: Option<(Group, State)>,
    pub container: Option<Identity>,
    pub trigger: Cause,
}

/// Whose allocation failed.
#[derive(Clone, Debug)]
pub(super) struct Cause {
    pub tgid: Tgid,
    pub tid: u32,
    pub comm: String,
    pub container: Option<Identity>,
}

/// The kills of one moment.
#[derive(Debug)]
pub(super) struct Gathered {
    pub at: jiff::Timestamp,
    pub kills: Vec<Kill>,
    /// The group whose limit was met, when the kernel's log says so; `Some(None)`: the machine's.
    pub domain: Option<Option<Group>>,
    first: Instant,
    last: Instant,
}

/// What is known of OOM kills.
pub(super) struct Oom {
    fields: Fields,
    log: KernelLog,
    gathered: Option<Gathered>,
    killed: HashSet<SpaceId>,
    /// Why memtrace could not ask the kernel to kill others first, until that is told.
    unspared: Option<String>,
}

impl Oom {
    pub fn new() -> Self {
        let format = probe::event_format(Path::new("/"), "oom/mark_victim").unwrap_or_default();
        Self {
            fields: Fields::parse(&format),
            log: KernelLog::open(),
            gathered: None,
            killed: HashSet::new(),
            unspared: spare_oneself(),
        }
    }

    /// Whether the kernel killed this image.
    pub fn has_killed(&self, space: SpaceId) -> bool {
        self.killed.contains(&space)
    }

    /// To be told once to whoever traces under a limit: for others it is noise.
    pub fn take_unspared(&mut self) -> Option<String> {
        self.unspared.take()
    }

    /// When the kills gathered so far are to be told.
    pub fn due(&self) -> Option<Instant> {
        let gathered = self.gathered.as_ref()?;
        Some((gathered.last + GATHER).min(gathered.first + MAX_GATHER))
    }

    /// The kills, when they are due or `now` matters no more.
    pub fn take(&mut self, now: Option<Instant>) -> Option<Gathered> {
        if now.is_some_and(|now| self.due().is_none_or(|due| now < due)) {
            return None;
        }
        self.gathered.take()
    }

    fn add(&mut self, kill: Kill) {
        if let Some(space) = kill.space {
            if self.killed.len() >= MAX_KILLED {
                self.killed.clear();
            }
            self.killed.insert(space);
        }
        let now = Instant::now();
        let gathered = self.gathered.get_or_insert_with(|| Gathered {
            at: jiff::Timestamp::now(),
            kills: Vec::new(),
            domain: None,
            first: now,
            last: now,
        });
        gathered.last = now;
        // A process whose end takes long can be marked again.
        let known = gathered.kills.iter().any(|one| one.tgid == kill.tgid);
        if !known && gathered.kills.len() < MAX_VICTIMS {
            gathered.kills.push(kill);
        }
    }
}

impl Session {
    /// The kernel chose a victim: all that its end takes away is read now.
    pub(super) fn oom_kill(&mut self, event: &OomEvent) {
        let victim = self.oom.fields.victim(&event.record);
        let space = Some(SpaceId(event.header.space)).filter(|space| space.0 != 0);
        let image = space.and_then(|space| {
            let found = self.images().find(|(image, _)| image.space == space);
            found.map(|(image, _)| image.clone())
        });
        let tgid = match &image {
            Some(image) => image.tgid,
            None => self.process_of(victim.tid),
        };
        // A traced process whose thread the kernel side does not know: it never allocated.
        let image = image.or_else(|| {
            let traced = self.traced.iter().find(|traced| traced.tgid == tgid);
            traced.map(|traced| traced.image.clone())
        });
        let group = self.groups.group_of(&self.proc, Tgid(victim.tid));
        let container = Identity::of_process(&self.proc, Tgid(victim.tid));
        // What was read while it lived stands when it is gone.
        let group = group.or_else(|| image.as_ref()?.memory.group.clone());
        let limited = group.as_ref().and_then(limited).or_else(|| {
            let memory = &image.as_ref()?.memory;
            let state = State {
                limit: memory.limit,
                usage: memory.usage,
                ..State::default()
            };
            Some((memory.limited.clone()?, state))
        });
        let trigger = Tgid(event.header.tgid);
        let kill = Kill {
            tgid,
            tid: victim.tid,
            comm: victim
                .comm
                .or_else(|| image.as_ref().map(|image| image.comm.clone()))
                .or_else(|| self.proc.read(tgid).ok().map(|process| process.comm))
                .unwrap_or_else(|| "?".to_owned()),
            space: image.as_ref().map(|image| image.space),
            figures: victim.figures,
            group,
            limited,
            container: container.or_else(|| image.as_ref()?.container.clone()),
            trigger: Cause {
                tgid: trigger,
                tid: event.header.tid,
                comm: comm(&event.comm),
                container: Identity::of_process(&self.proc, trigger),
            },
        };
        if self.is_ours(&kill) && !self.tell_kill(event.header.time_ns, &kill) {
            self.oom.add(kill);
        }
    }

    /// The process that a thread belongs to.
    fn process_of(&self, tid: u32) -> Tgid {
        let path = self.proc.process(Tgid(tid)).join("status");
        let status = std::fs::read_to_string(path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        line.and_then(|text| text.trim().parse().ok())
            .map_or(Tgid(tid), Tgid)
    }

    /// Kills elsewhere on the machine are nobody's business here: ours are those of traced
    /// processes, by traced processes, and under a limit that a traced process shares.
    fn is_ours(&self, kill: &Kill) -> bool {
        if kill.space.is_some() {
            return true;
        }
        self.traced.iter().any(|traced| {
            let limited = traced.image.memory.limited.as_ref();
            traced.tgid == kill.trigger.tgid
                || limited
                    .zip(kill.group.as_ref())
                    .is_some_and(|(above, group)| above.contains(group))
        })
    }

    /// Adds what the kernel's log says of the kills.
    pub(super) fn consult_log(&mut self, gathered: &mut Gathered) {
        for line in self.oom.log.read() {
            match line {
                Line::Cause { pid, domain } if gathered.names(pid) => {
                    gathered.domain = Some(match domain {
                        Domain::Machine => None,
                        Domain::Group(path) => {
                            let like = gathered.kills.iter().find_map(|kill| kill.group.as_ref());
                            let known = gathered.limits().find(|(group, _)| group.path() == path);
                            let known = known.map(|(group, _)| group.clone());
                            let found = known.or_else(|| self.groups.group_at(like, &path));
                            // Not to be found by that path: the next best is taken.
                            match found {
                                Some(group) => Some(group),
                                None => continue,
                            }
                        }
                    });
                }
                Line::Killed { pid, figures } => {
                    for kill in &mut gathered.kills {
                        if kill.tid == pid || kill.tgid.0 == pid {
                            kill.figures = kill.figures.or(figures);
                        }
                    }
                }
                Line::Cause { .. } => {}
            }
        }
    }
}

impl Gathered {
    fn names(&self, pid: u32) -> bool {
        self.kills
            .iter()
            .any(|kill| kill.tid == pid || kill.tgid.0 == pid)
    }

    /// The group whose limit was met: as the log says, else the tightest one above a victim.
    pub fn limited_group(&self) -> Option<Group> {
        if let Some(domain) = &self.domain {
            return domain.clone();
        }
        self.limits().next().map(|(group, _)| group.clone())
    }

    /// Limits of the victims as they were when the kernel chose them.
    pub fn limits(&self) -> impl Iterator<Item = &(Group, State)> {
        self.kills.iter().filter_map(|kill| kill.limited.as_ref())
    }
}

/// The group that limits this one, with what its files tell; nothing when that is gone already.
fn limited(group: &Group) -> Option<(Group, State)> {
    let effective = group.effective()?;
    let state = effective.group.state();
    state.limit?;
    Some((effective.group, state))
}

fn comm(bytes: &[u8]) -> String {
    printable(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// Attaches to OOM kills; for people, why they will not be seen where that fails.
pub(super) fn watch(kernel: &mut KernelSide) -> Option<String> {
    let error = kernel.attach_oom().err()?;
    Some(format!(
        "OOM kills are not seen on this kernel: {}; a process that is killed so is shown as exited and \
         no incident tells of it, while thresholds of memory limits are watched as ever",
        error.summary()
    ))
}

/// Asks the kernel to kill others first. Returns why that could not be, for people.
fn spare_oneself() -> Option<String> {
    const WANTED: i32 = -900;
    let path = "/proc/self/oom_score_adj";
    let now: i32 = std::fs::read_to_string(path).ok()?.trim().parse().ok()?;
    if now <= WANTED {
        return None;
    }
    let error = std::fs::write(path, WANTED.to_string()).err()?;
    let why = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "CAP_SYS_RESOURCE is missing".to_owned(),
        _ => error.to_string(),
    };
    Some(format!(
        "its own oom_score_adj stays at {now} ({why}): when the machine's memory runs out, the \
         kernel may kill memtrace first"
    ))
}

/// Where groups are found; once for a session.
pub(super) fn groups() -> CgroupFs {
    CgroupFs::new(Path::new("/"))
}
