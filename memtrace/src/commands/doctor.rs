//! `memtrace doctor`.

use super::trace::custom;
use crate::{
    cli::{exit::Exit, plan::DoctorPlan, terminal},
    doctor::{Questions, examine},
    report::{
        doctor::{Status, render},
        json,
        text::TextOptions,
    },
};

/// Looks and tells; fails when a check did.
pub(super) fn doctor(plan: &DoctorPlan) -> anyhow::Result<Exit> {
    let found = examine(&Questions {
        pids: plan.pids.clone(),
        custom: custom(&plan.allocators)?,
        objects: plan.allocators.objects.clone(),
    });
    let printed = super::print(|out| {
        if plan.json {
            return json::pretty(&found, out);
        }
        let options = TextOptions {
            width: terminal::width(),
            color: terminal::color(plan.color),
            verbose: plan.verbose,
        };
        out.extend_from_slice(render(&found, options).as_bytes());
        Ok(())
    })?;
    Ok(match found.worst() {
        Status::Ok | Status::Warn => printed,
        Status::Fail => Exit::Failed,
    })
}
