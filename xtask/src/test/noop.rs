//! A second build rebuilds nothing: a build script that is always dirty costs every developer,
//! every time.
use anyhow::{Result, ensure};
use serde_json::Value;

use crate::shell::{capture, cargo};
use crate::workspace::Workspace;

/// Builds twice; of the second, every artifact must have been fresh.
pub fn run(workspace: &Workspace) -> Result<()> {
    capture(cargo(workspace).arg("build"))?;
    let messages = capture(cargo(workspace).args(["build", "--message-format=json"]))?;
    let rebuilt: Vec<String> = messages.lines().filter_map(rebuilt).collect();
    ensure!(
        rebuilt.is_empty(),
        "a second `cargo build` rebuilt {}",
        rebuilt.join(", ")
    );
    Ok(())
}

/// The package, when the line is cargo's word that it had to be built.
fn rebuilt(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    let fresh = message["fresh"].as_bool()?;
    (!fresh).then(|| message["package_id"].to_string())
}
