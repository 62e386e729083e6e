//! `memtrace doctor`.

use super::trace::custom;
use crate::{
    cli::{exit::Exit, plan::DoctorPlan, terminal},
    doctor::{Questions, examine},
    report::{
        doctor::{Status, render},
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
    let options = TextOptions {
        width: terminal::width(),
        color: terminal::color(plan.color),
        verbose: plan.verbose,
    };
    let printed = super::print_as(plan.json, &found, || render(&found, options))?;
    Ok(match found.worst() {
        Status::Ok | Status::Warn => printed,
        Status::Fail => Exit::Failed,
    })
}
