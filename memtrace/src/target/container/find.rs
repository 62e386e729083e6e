//! The processes of a container that a person named: `--container NAME|ID-PREFIX|POD/CONTAINER`.

use std::collections::BTreeMap;

use super::{
    Identity, Runtime,
    names::{Named, Sockets},
};
use crate::{id::Tgid, target::process::ProcFs};

/// Shorter beginnings of an id match by accident.
const MIN_PREFIX: usize = 4;
/// Candidates named in an error.
const SHOWN: usize = 8;

/// A container with its processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its ids.
    pub identity: Identity,
    /// What its runtime calls it.
    pub named: Option<Named>,
    /// Its processes, by rising pid.
    pub tgids: Vec<Tgid>,
}

impl Found {
    /// For messages: name and short id.
    #[must_use]
    pub fn title(&self) -> String {
        let id: String = self.identity.id.chars().take(12).collect();
        match &self.named {
            Some(Named {
                pod: Some(pod),
                name: Some(name),
                ..
            }) => format!("{pod}/{name} ({id})"),
            Some(Named {
                name: Some(name), ..
            }) => format!("{name} ({id})"),
            _ => format!("{} ({})", self.identity.id, self.identity.runtime.name()),
        }
    }
}

/// No container, or more than one, was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// None.
    #[error("no running container `{query}`: {hint}")]
    None {
        /// As typed.
        query: String,
        /// What there is, or why names are not known.
        hint: String,
    },
    /// Several.
    #[error("`{query}` is {count} containers: {candidates}; name one by its id")]
    Several {
        /// As typed.
        query: String,
        /// How many.
        count: usize,
        /// Some of them.
        candidates: String,
    },
}

/// Finds the one running container that `query` names: the whole name, a beginning of the id,
/// `pod/container`, `namespace/pod/container`, a pod with one container, or a service's unit.
/// Takes a few seconds at most.
///
/// # Errors
/// [`FindError`].
pub fn find(proc: &ProcFs, sockets: &Sockets, query: &str) -> Result<Found, FindError> {
    let running = running(proc);
    let answers = sockets.list();
    choose(running, &answers.named, &answers.problems, query)
}

/// All containers that have processes.
fn running(proc: &ProcFs) -> BTreeMap<String, Found> {
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for tgid in proc.list().unwrap_or_default() {
        if let Some(identity) = Identity::of_process(proc, tgid) {
            let id = identity.id.clone();
            let container = found.entry(id).or_insert_with(|| Found {
                identity,
                named: None,
                tgids: Vec::new(),
            });
            container.tgids.push(tgid);
        }
    }
    for container in found.values_mut() {
        container.tgids.sort_unstable();
    }
    found
}

fn choose(
    mut running: BTreeMap<String, Found>,
    named: &[Named],
    problems: &[String],
    query: &str,
) -> Result<Found, FindError> {
    for one in named {
        if let Some(container) = running.get_mut(&one.id) {
            container.named = Some(one.clone());
        }
    }
    let matches = |test: &dyn Fn(&Found) -> bool| -> Vec<&Found> {
        running.values().filter(|one| test(one)).collect()
    };
    // The surer a match, the earlier: a container called `cafe` is not the id `cafe…`.
    let mut found = matches(&|one| is_named(one, query));
    if found.is_empty() {
        found = matches(&|one| is_pod(one, query));
    }
    if found.is_empty() && query.len() >= MIN_PREFIX {
        let lower = query.to_ascii_lowercase();
        found = matches(&|one| {
            one.identity.runtime != Runtime::Systemd && one.identity.id.starts_with(&lower)
        });
    }
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(FindError::None {
            query: query.to_owned(),
            hint: hint(&running, problems),
        }),
        several => Err(FindError::Several {
            query: query.to_owned(),
            count: several.len(),
            candidates: titles(several.iter().copied()),
        }),
    }
}

/// The whole id or unit, the name, `pod/name`, `namespace/pod/name`.
fn is_named(one: &Found, query: &str) -> bool {
    let unit = one.identity.runtime == Runtime::Systemd
        && one.identity.id.strip_suffix(".service") == Some(query);
    if one.identity.id == query || unit {
        return true;
    }
    let Some(named) = &one.named else {
        return false;
    };
    let Some(name) = &named.name else {
        return false;
    };
    let pod = named.pod.as_deref().unwrap_or_default();
    let namespace = named.namespace.as_deref().unwrap_or_default();
    query == name
        || query == format!("{pod}/{name}")
        || query == format!("{namespace}/{pod}/{name}")
}

/// A pod's name or uid, of a container that does something.
fn is_pod(one: &Found, query: &str) -> bool {
    let uid = one.identity.pod_uid.as_deref() == Some(query);
    match &one.named {
        Some(named) => named.name.is_some() && (uid || named.pod.as_deref() == Some(query)),
        None => uid,
    }
}

fn hint(running: &BTreeMap<String, Found>, problems: &[String]) -> String {
    let containers = running
        .values()
        .filter(|one| one.identity.runtime != Runtime::Systemd);
    let mut parts = vec![match titles(containers) {
        none if none.is_empty() => "no process here is in a container".to_owned(),
        some => format!("there are {some}"),
    }];
    parts.extend(problems.iter().cloned());
    parts.join("; ")
}

fn titles<'a>(all: impl Iterator<Item = &'a Found>) -> String {
    let mut titles: Vec<_> = all.map(Found::title).collect();
    let more = titles.len().saturating_sub(SHOWN);
    titles.truncate(SHOWN);
    if more > 0 {
        titles.push(format!("{more} more"));
    }
    titles.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first: &str) -> String {
        format!("{first:0<64}")
    }

    fn running() -> BTreeMap<String, Found> {
        let one = |runtime, id: String, pod: Option<&str>, tgid| {
            let found = Found {
                identity: Identity {
                    runtime,
                    id: id.clone(),
                    pod_uid: pod.map(str::to_owned),
                    qos: None,
                    outer: None,
                },
                named: None,
                tgids: vec![Tgid(tgid)],
            };
            (id, found)
        };
        BTreeMap::from([
            one(Runtime::Kubernetes, id("aaaa1"), Some("uid-1"), 1),
            one(Runtime::Kubernetes, id("aaaa2"), Some("uid-1"), 2),
            one(Runtime::Kubernetes, id("bbbb"), Some("uid-1"), 3),
            one(Runtime::Docker, id("cafe"), None, 4),
            one(Runtime::Docker, id("dddd"), None, 5),
            one(Runtime::Systemd, "nginx.service".into(), None, 6),
        ])
    }

    fn names() -> Vec<Named> {
        let one = |id: String, name: Option<&str>, pod: Option<&str>| Named {
            id,
            name: name.map(str::to_owned),
            pod: pod.map(str::to_owned),
            namespace: pod.map(|_| "shop".to_owned()),
            ..Named::default()
        };
        vec![
            one(id("aaaa1"), Some("app"), Some("cart-1")),
            one(id("aaaa2"), Some("proxy"), Some("cart-1")),
            one(id("bbbb"), None, Some("cart-1")),
            one(id("cafe"), Some("web"), None),
            one(id("dddd"), Some("cafe"), None),
        ]
    }

    fn pid(query: &str) -> Result<u32, FindError> {
        choose(running(), &names(), &[], query).map(|found| found.tgids[0].0)
    }

    /// Names, beginnings of ids, pods and units; a name goes before an id that begins like it.
    #[test]
    fn queries() {
        for (query, wanted) in [
            ("web", 4),
            ("cafe", 5),
            ("cafe0", 4),
            ("CAFE0", 4),
            ("cart-1/proxy", 2),
            ("shop/cart-1/app", 1),
            ("bbbb", 3),
            ("nginx", 6),
            ("nginx.service", 6),
        ] {
            assert_eq!(pid(query), Ok(wanted), "{query}");
        }
    }

    /// What is nobody's, and what is several's, is said with what there is.
    #[test]
    fn nobody_and_several() {
        for query in ["aaaa", "cart-1"] {
            let error = pid(query).unwrap_err().to_string();
            assert!(
                error.contains("is 2 containers") && error.contains("cart-1/app (aaaa10000000)"),
                "{error}"
            );
        }
        let error = pid("shop/web").unwrap_err().to_string();
        assert!(error.contains("there are") && error.contains("web (cafe00000000)"));
        assert!(pid("").is_err() && pid("caf").is_err());
        let problems = ["container names from /run/x: slow".to_owned()];
        let error = choose(BTreeMap::new(), &[], &problems, "web").unwrap_err();
        assert!(error.to_string().contains("slow"), "{error}");
    }
}
