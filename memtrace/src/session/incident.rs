//! Incidents: an OOM kill or a crossing with the report of that moment.

use std::time::{Duration, Instant};

use super::{
    Session, SessionError,
    oom::{Gathered, Kill},
    usage::Crossing,
};
use crate::{
    id::Tgid,
    report::{
        incident::{Cgroup, Holder, Incident, Kind, SCHEMA, Threshold, Trigger, Victim, suspects},
        model::{Container, Process, Report},
    },
    target::{
        cgroup::{Group, State},
        container::{Identity, Runtime},
    },
};

/// Stacks in an incident: enough for many processes, and named within a moment.
const STACKS: usize = 100;
/// An answer of a runtime is waited for so long: the file must be written soon.
pub(super) const NAMES: Duration = Duration::from_millis(200);
/// Incidents that nobody has taken yet.
const MAX_WAITING: usize = 64;

/// Incidents to be told.
#[derive(Default)]
pub(super) struct Incidents {
    waiting: Vec<Incident>,
    dropped: u64,
}

impl Session {
    /// Incidents since the last call.
    pub fn take_incidents(&mut self) -> Vec<Incident> {
        std::mem::take(&mut self.incidents.waiting)
    }

    /// Incidents that nobody took in time.
    pub(super) fn incidents_dropped(&self) -> u64 {
        self.incidents.dropped
    }

    /// Makes incidents of what has happened; `all` also of what is still being gathered. True when
    /// there are some to be taken.
    pub(super) fn make_incidents(&mut self, all: bool) -> Result<bool, SessionError> {
        for crossing in self.crossings() {
            let incident = self.crossing(crossing)?;
            self.keep(incident);
        }
        let now = Some(Instant::now()).filter(|_| !all);
        if let Some(mut gathered) = self.oom.take(now) {
            self.consult_log(&mut gathered);
            let incident = self.kill(&gathered)?;
            self.keep(incident);
        }
        Ok(!self.incidents.waiting.is_empty())
    }

    fn keep(&mut self, incident: Incident) {
        self.events.incident(&incident);
        self.recording(|recorder| recorder.incident(&incident));
        if self.incidents.waiting.len() >= MAX_WAITING {
            self.incidents.dropped += 1;
        } else {
            self.incidents.waiting.push(incident);
        }
    }

    /// When one may be due.
    pub(super) fn incident_due(&self) -> Option<Instant> {
        [self.usage.due(), self.oom.due()]
            .into_iter()
            .flatten()
            .min()
    }

    fn crossing(&mut self, crossing: Crossing) -> Result<Incident, SessionError> {
        let at = jiff::Timestamp::now();
        let report = self.report(Some(STACKS), true)?.report;
        let pids = self.pids_of(&crossing.group);
        let mut incident = self.incident(Kind::Threshold, at, Some(&crossing.group), report, &pids);
        incident.threshold = Some(Threshold {
            percent: crossing.percent,
            used_bytes: crossing.used,
            limit_bytes: crossing.limit,
        });
        incident.container = self.container_of(&crossing.group, &[]);
        Ok(incident)
    }

    fn kill(&mut self, gathered: &Gathered) -> Result<Incident, SessionError> {
        let group = gathered.limited_group();
        self.learn_names(NAMES);
        let report = self.report(Some(STACKS), true)?.report;
        let mut pids = group
            .as_ref()
            .map(|group| self.pids_of(group))
            .unwrap_or_default();
        for kill in gathered.kills.iter().filter(|kill| kill.space.is_some()) {
            if !pids.contains(&kill.tgid.0) {
                pids.push(kill.tgid.0);
            }
        }
        let victims: Vec<_> = gathered
            .kills
            .iter()
            .map(|kill| self.victim(kill, &report))
            .collect();
        let container = match &group {
            Some(group) => self.container_of(group, &gathered.kills),
            // Nobody's limit: the first victim's container is what a person looks for.
            None => victims.first().and_then(|victim| victim.container.clone()),
        };
        let mut incident = self.incident(Kind::OomKill, gathered.at, group.as_ref(), report, &pids);
        let known = gathered
            .limits()
            .find(|(one, _)| Some(one) == group.as_ref());
        if let (Some(cgroup), Some((_, state))) = (&mut incident.cgroup, known) {
            fill(cgroup, state.clone());
        }
        incident.container = container;
        incident.trigger = gathered
            .kills
            .first()
            .map(|kill| self.trigger(kill, &victims));
        for holder in &mut incident.processes {
            holder.is_victim = victims.iter().any(|victim| victim.pid == holder.pid);
        }
        if gathered.domain.is_none() && group.is_some() {
            incident.notes.push(
                "which limit was met is inferred: the kernel's log does not say it here".into(),
            );
        }
        incident.victims = victims;
        Ok(incident)
    }

    fn incident(
        &self,
        kind: Kind,
        at: jiff::Timestamp,
        group: Option<&Group>,
        report: Report,
        pids: &[u32],
    ) -> Incident {
        Incident {
            schema: SCHEMA,
            tool_version: report.tool_version,
            host: report.host.clone(),
            at: at.to_string(),
            seconds_since_start: self.started.elapsed().as_secs_f64(),
            kind,
            container: None,
            cgroup: group.map(cgroup),
            threshold: None,
            trigger: None,
            victims: Vec::new(),
            processes: holders(&report, pids),
            suspects: suspects(&report, pids),
            notes: Vec::new(),
            before: None,
            report: Some(report),
        }
    }

    /// Whether a process has a limit that it can meet.
    pub(super) fn is_limited(&self, tgid: Tgid) -> bool {
        let traced = self.traced.iter().find(|traced| traced.tgid == tgid);
        traced.is_some_and(|traced| traced.image.memory.limit.is_some())
    }

    /// The traced processes whose memory counts against a group, those that have ended too.
    fn pids_of(&self, group: &Group) -> Vec<u32> {
        let mut pids: Vec<u32> = self
            .images()
            .filter(|(image, _)| {
                let own = image.memory.group.as_ref();
                own.is_some_and(|own| group.contains(own))
            })
            .map(|(image, _)| image.tgid.0)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// The container that a group is, or that all of its processes are in.
    fn container_of(&self, group: &Group, kills: &[Kill]) -> Option<Container> {
        let own = crate::target::container::path::parse(group.path());
        let traced = self
            .images()
            .filter(|(image, _)| {
                let own = image.memory.group.as_ref();
                own.is_some_and(|own| group.contains(own))
            })
            .filter_map(|(image, _)| image.container.clone());
        let killed = kills.iter().filter_map(|kill| kill.container.clone());
        let found: Option<Identity> = own.or_else(|| killed.chain(traced).next());
        found.as_ref().map(|identity| self.container(identity))
    }

    fn victim(&self, kill: &Kill, report: &Report) -> Victim {
        let process = kill.space.and_then(|_| process(report, kill.tgid.0));
        Victim {
            pid: kill.tgid.0,
            tid: kill.tid,
            comm: kill.comm.clone(),
            traced: kill.space.is_some(),
            container: kill.container.as_ref().map(|one| self.container(one)),
            cgroup_path: kill.group.as_ref().map(|group| group.path().to_owned()),
            figures: kill.figures,
            outstanding_bytes: process.map(|process| process.outstanding_bytes),
            outstanding_objects: process.map(|process| process.outstanding_objects),
        }
    }

    fn trigger(&self, kill: &Kill, victims: &[Victim]) -> Trigger {
        let cause = &kill.trigger;
        Trigger {
            pid: cause.tgid.0,
            tid: cause.tid,
            comm: cause.comm.clone(),
            traced: self.images().any(|(image, _)| image.tgid == cause.tgid),
            is_victim: victims.iter().any(|victim| victim.pid == cause.tgid.0),
            container: cause.container.as_ref().map(|one| self.container(one)),
        }
    }

    /// A container as reports show it: its ids, and the runtime's names as far as they are known.
    pub(super) fn container(&self, identity: &Identity) -> Container {
        let named = self.names.get(&identity.id).cloned().unwrap_or_default();
        // A path of Kubernetes' does not name the runtime, its answer does.
        let unnamed = matches!(identity.runtime, Runtime::Kubernetes | Runtime::Unknown);
        let runtime = match unnamed && !named.runtime.is_empty() {
            true => named.runtime,
            false => identity.runtime.name().to_owned(),
        };
        Container {
            runtime,
            id: identity.id.clone(),
            name: named.name,
            pod: named.pod,
            namespace: named.namespace,
            image: named.image,
            pod_uid: identity.pod_uid.clone(),
            qos: identity.qos.map(|qos| qos.name()),
            labels: named.labels,
        }
    }

    /// Asks for the names of containers that have none yet. Waits for an answer at most so long.
    pub(super) fn learn_names(&mut self, wait: Duration) {
        let ids: Vec<String> = self
            .images()
            .filter_map(|(image, _)| image.container.as_ref())
            .filter(|identity| identity.runtime != Runtime::Systemd)
            .map(|identity| identity.id.clone())
            .collect();
        self.names.want(ids.iter().map(String::as_str));
        if ids.iter().any(|id| self.names.get(id).is_none()) {
            self.names.receive(wait);
        }
        self.notices.extend(self.names.take_problems());
    }
}

/// The newest image of a process.
fn process(report: &Report, pid: u32) -> Option<&Process> {
    report.processes.iter().rfind(|process| process.pid == pid)
}

fn holders(report: &Report, pids: &[u32]) -> Vec<Holder> {
    let mut holders: Vec<_> = pids
        .iter()
        .filter_map(|pid| process(report, *pid))
        .map(|process| Holder {
            pid: process.pid,
            comm: process.comm.clone(),
            outstanding_bytes: process.outstanding_bytes,
            growth_bytes_per_second: process.growth_bytes_per_second,
            verdict: process.verdict,
            is_victim: false,
        })
        .collect();
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.outstanding_bytes));
    holders
}

fn cgroup(group: &Group) -> Cgroup {
    let mut cgroup = Cgroup {
        path: group.path().to_owned(),
        version: group.version().number(),
        ..Cgroup::default()
    };
    fill(&mut cgroup, group.state());
    cgroup
}

fn fill(cgroup: &mut Cgroup, state: State) {
    cgroup.id = state.id;
    cgroup.limit_bytes = state.limit;
    cgroup.usage_bytes = state.usage;
    cgroup.peak_bytes = state.peak;
    cgroup.inactive_file_bytes = state.inactive_file;
    cgroup.events = state.events;
    cgroup.pressure = state.pressure;
}
