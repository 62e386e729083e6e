//! `memtrace mark`.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, bail};

use crate::{
    cli::{exit::Exit, mark::MarkPlan},
    session::marks::{DIRECTORY, Sent, send},
};

/// A session may be reading names for a report, which takes ten seconds at most.
const PATIENCE: Duration = Duration::from_secs(15);

/// Names this moment in running sessions.
pub(super) fn mark(plan: &MarkPlan) -> anyhow::Result<Exit> {
    if !rustix::process::geteuid().is_root() {
        bail!("marking needs root, as tracing does: run it with sudo");
    }
    let sent = send(Path::new(DIRECTORY), &plan.name, plan.session, PATIENCE)
        .context("cannot reach sessions")?;
    let told = told(plan, &sent)?;
    super::print(|out| {
        out.extend_from_slice(told.as_bytes());
        Ok(())
    })
}

/// What is printed; an error when not every session has the mark.
fn told(plan: &MarkPlan, sent: &Sent) -> anyhow::Result<String> {
    let name = &plan.name;
    if let Some(session) = plan.session
        && sent.marked.is_empty()
        && sent.failed.is_empty()
    {
        bail!(
            "no session of memtrace runs as pid {session}: name the pid of memtrace itself, once it traces"
        );
    }
    let sessions = match sent.marked.len() {
        1 => "1 session".to_owned(),
        many => format!("{many} sessions"),
    };
    match sent.failed.as_slice() {
        [] if sent.marked.is_empty() => {
            bail!("no session of memtrace is running here: there is nothing to mark")
        }
        [] => Ok(format!("marked \"{name}\" in {sessions}\n")),
        [(pid, why), ..] => bail!(
            "marked \"{name}\" in {sessions}, but not in {} (pid {pid}: {why})",
            sent.failed.len()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many sessions have it; none, or one that has it not, is a failure in one line.
    #[test]
    fn outcomes() {
        let sent = |marked: &[u32], failed: &[u32]| Sent {
            marked: marked.to_vec(),
            failed: failed.iter().map(|pid| (*pid, "it x".into())).collect(),
        };
        let plan = |session| MarkPlan {
            name: "a".to_owned(),
            session,
        };
        let told = |sent: Sent| told(&plan(None), &sent).map_err(|error| error.to_string());
        assert_eq!(
            told(sent(&[1], &[])).unwrap(),
            "marked \"a\" in 1 session\n"
        );
        assert_eq!(
            told(sent(&[1, 2], &[])).unwrap(),
            "marked \"a\" in 2 sessions\n"
        );
        assert_eq!(
            told(sent(&[], &[])).unwrap_err(),
            "no session of memtrace is running here: there is nothing to mark"
        );
        assert_eq!(
            told(sent(&[1], &[7, 8])).unwrap_err(),
            "marked \"a\" in 1 session, but not in 2 (pid 7: it x)"
        );
        let none = super::told(&plan(Some(7)), &sent(&[], &[])).unwrap_err();
        assert!(none.to_string().contains("runs as pid 7"), "{none}");
    }
}
