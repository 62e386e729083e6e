//! What the runtimes call their containers, asked of their sockets.
//!
//! A runtime may be missing, slow, or not be one at all: each call has a deadline and a limit, all
//! of it happens on a thread of its own, and without an answer the ids from the cgroup stand.

use std::{
    collections::{BTreeMap, HashMap},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    time::{Duration, Instant},
};

use super::{cri, docker, http::CallError};
use crate::target::printable;

/// Sockets asked at most.
const MAX_SOCKETS: usize = 16;
/// Containers taken of one answer.
const MAX_CONTAINERS: usize = 10_000;
/// Labels kept of one container, and the length of each.
const MAX_LABELS: usize = 64;
const MAX_TEXT: usize = 256;
/// A runtime is not asked more often: a node that starts a container a second is no reason.
const PAUSE: Duration = Duration::from_secs(2);
/// A container that no runtime knows is asked for so often: its runtime may only just make it.
const ATTEMPTS: u32 = 5;

/// Where runtimes listen unless told otherwise, below the root of a machine's files.
const USUAL: &[(&str, Protocol)] = &[
    ("run/containerd/containerd.sock", Protocol::Cri),
    ("run/k3s/containerd/containerd.sock", Protocol::Cri),
    ("run/crio/crio.sock", Protocol::Cri),
    ("run/docker.sock", Protocol::Docker),
    ("run/podman/podman.sock", Protocol::Podman),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Cri,
    Docker,
    Podman,
    /// A socket that a person named: what it speaks is tried.
    Any,
}

/// A container as its runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The runtime that answered.
    pub runtime: String,
    /// Whole.
    pub id: String,
    /// Name; none for the container that only holds a pod's namespaces.
    pub name: Option<String>,
    /// Pod.
    pub pod: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Image.
    pub image: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Named {
    /// With nothing in it that could hurt a terminal or fill the memory.
    fn bounded(self) -> Self {
        let text = |text: String| {
            let short: String = text.chars().take(MAX_TEXT).collect();
            printable(short.as_bytes())
        };
        Self {
            runtime: text(self.runtime),
            id: text(self.id),
            name: self.name.map(text),
            pod: self.pod.map(text),
            namespace: self.namespace.map(text),
            image: self.image.map(text),
            labels: self
                .labels
                .into_iter()
                .take(MAX_LABELS)
                .map(|(key, value)| (text(key), text(value)))
                .collect(),
        }
    }
}

/// The sockets to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sockets(Vec<(PathBuf, Protocol)>);

impl Sockets {
    /// Those that a person named, else the usual ones that are there.
    #[must_use]
    pub fn new(root: &Path, named: &[PathBuf]) -> Self {
        let all: Vec<_> = if named.is_empty() {
            let usual = USUAL.iter().map(|(path, kind)| (root.join(path), *kind));
            usual.filter(|(path, _)| is_socket(path)).collect()
        } else {
            let named = named.iter().map(|path| (path.clone(), Protocol::Any));
            named.collect()
        };
        Self(all.into_iter().take(MAX_SOCKETS).collect())
    }

    /// Whether there is nobody to ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Asks all of them, one after the other. Takes at most a few seconds for each.
    #[must_use]
    pub fn list(&self) -> Answers {
        let mut answers = Answers::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = match runtime {
            Ok(runtime) => runtime,
            Err(error) => {
                answers.problems.push(format!("container names: {error}"));
                return answers;
            }
        };
        for (path, protocol) in &self.0 {
            match runtime.block_on(ask(path, *protocol)) {
                Ok(named) => {
                    let named = named.into_iter().take(MAX_CONTAINERS).map(Named::bounded);
                    answers.named.extend(named);
                }
                Err(error) => answers
                    .problems
                    .push(format!("container names from {}: {error}", path.display())),
            }
        }
        answers
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

async fn ask(path: &Path, protocol: Protocol) -> Result<Vec<Named>, CallError> {
    match protocol {
        Protocol::Cri => cri::list(path).await,
        Protocol::Docker => docker::list(path, "docker").await,
        Protocol::Podman => docker::list(path, "podman").await,
        Protocol::Any => match cri::list(path).await {
            Err(error @ (CallError::Connect(_) | CallError::Slow)) => Err(error),
            Err(_) => docker::list(path, name_of(path)).await,
            named => named,
        },
    }
}

fn name_of(path: &Path) -> &'static str {
    if path.to_string_lossy().contains("podman") {
        "podman"
    } else {
        "docker"
    }
}

/// What the sockets said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Containers.
    pub named: Vec<Named>,
    /// Sockets that did not answer, and why, for people.
    pub problems: Vec<String>,
}

/// Names of containers as they become known, without waiting for anyone.
pub struct Names {
    sockets: Sockets,
    thread: Option<(SyncSender<()>, Receiver<Answers>)>,
    known: HashMap<String, Named>,
    /// How often an answer did not have an id.
    missing: HashMap<String, u32>,
    asked: Option<Instant>,
    problems: Vec<String>,
    told: bool,
}

impl Names {
    /// Nobody is asked yet.
    #[must_use]
    pub fn new(sockets: Sockets) -> Self {
        Self {
            sockets,
            thread: None,
            known: HashMap::new(),
            missing: HashMap::new(),
            asked: None,
            problems: Vec::new(),
            told: false,
        }
    }

    /// A container, when its name is known already.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Named> {
        self.known.get(id)
    }

    /// Asks for containers that are not known, now and then.
    pub fn want<'a>(&mut self, ids: impl Iterator<Item = &'a str>) {
        self.receive(Duration::ZERO);
        let unknown: Vec<&str> = ids
            .filter(|id| !self.known.contains_key(*id))
            .filter(|id| self.missing.get(*id).is_none_or(|times| *times < ATTEMPTS))
            .take(MAX_CONTAINERS)
            .collect();
        let asked_just_now = self.asked.is_some_and(|at| at.elapsed() < PAUSE);
        if self.sockets.is_empty() || unknown.is_empty() || asked_just_now {
            return;
        }
        if self.missing.len() > MAX_CONTAINERS {
            self.missing.clear();
        }
        for id in unknown {
            *self.missing.entry(id.to_owned()).or_default() += 1;
        }
        self.asked = Some(Instant::now());
        if self.thread.is_none() {
            self.thread = start(self.sockets.clone());
        }
        if let Some((ask, _)) = &self.thread {
            // Still busy with the last question: its answer will do.
            let _ = ask.try_send(());
        }
    }

    /// Takes answers; waits for one at most so long.
    pub fn receive(&mut self, wait: Duration) {
        let Some((_, answers)) = &self.thread else {
            return;
        };
        let Ok(answers) = answers.recv_timeout(wait) else {
            return;
        };
        if self.known.len() > MAX_CONTAINERS {
            self.known.clear();
        }
        let named = answers.named.into_iter();
        self.known.extend(named.map(|one| (one.id.clone(), one)));
        if !answers.problems.is_empty() && !std::mem::replace(&mut self.told, true) {
            self.problems = answers.problems;
        }
    }

    /// Sockets that did not answer: once.
    pub fn take_problems(&mut self) -> Vec<String> {
        std::mem::take(&mut self.problems)
    }
}

/// A thread that asks when it is told to, and ends with whoever tells it.
fn start(sockets: Sockets) -> Option<(SyncSender<()>, Receiver<Answers>)> {
    let (ask, questions) = sync_channel(1);
    let (tell, answers) = sync_channel(1);
    std::thread::Builder::new()
        .name("containers".into())
        .spawn(move || {
            while questions.recv().is_ok() {
                if tell.send(sockets.list()).is_err() {
                    return;
                }
            }
        })
        .ok()?;
    Some((ask, answers))
}
