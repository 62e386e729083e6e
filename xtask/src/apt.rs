//! Debian packages: which are missing, and getting them.
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell::{self, capture, is_root, say, which};

/// Installs those of `packages` that are missing; `purpose` says what for.
///
/// Without root, or where there is no apt, it fails with the command a person would type.
pub fn ensure(packages: &[&str], purpose: &str) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if which("apt-get").is_none() {
        bail!(
            "{purpose}: this needs what Debian calls {names}; install it with this system's package manager"
        );
    }
    if !is_root() {
        bail!("{purpose}: run `sudo apt-get install -y --no-install-recommends {names}` first");
    }
    say(format!("{purpose}: installing {names}"));
    if !all_known(&missing) {
        update()?;
    }
    // Package lists go stale: what they name may be gone from the mirror.
    shell::run(&mut install_command(&missing)).or_else(|_| {
        update()?;
        shell::run(&mut install_command(&missing))
    })
}

/// Those of `packages` that are not installed.
pub fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    // dpkg-query fails when it does not know one of them and still prints the others.
    let listed = Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status} ${Package}\n"])
        .args(packages)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    let installed: Vec<&str> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("installed "))
        .collect();
    packages
        .iter()
        .copied()
        .filter(|name| !installed.contains(name))
        .collect()
}

fn all_known(packages: &[&str]) -> bool {
    let shown = capture(
        Command::new("apt-cache")
            .arg("show")
            .arg("--no-all-versions")
            .args(packages),
    );
    shown.is_ok()
}

fn update() -> Result<()> {
    shell::run(&mut apt_get(&["update", "-qq"]))
}

fn install_command(packages: &[&str]) -> Command {
    let mut command = apt_get(&["install", "-y", "-qq", "--no-install-recommends"]);
    command.args(packages);
    command
}

/// Waits for another apt to finish rather than failing beside it.
fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0"])
        .args(args);
    command
}
