//! Packages of any Debian suite and architecture, with lists of their own below the target
//! folder: the system's apt keeps its configuration, and nothing is installed.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::arch::Arch;
use crate::apt;
use crate::shell::{self, capture, create_dir, say, which};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const FALLBACK_MIRROR: &str = "http://deb.debian.org/debian";

/// One suite with its security updates, for one architecture.
pub struct Suite {
    folder: PathBuf,
}

impl Suite {
    /// Gets the suite's lists, into a folder below `cache`.
    pub fn open(cache: &Path, suite: &str, arch: Arch) -> Result<Self> {
        ensure!(
            which("apt-get").is_some(),
            "Debian's kernels are fetched with apt, which is not here: name a kernel's file instead"
        );
        if !Path::new(KEYRING).is_file() {
            apt::ensure(&["debian-archive-keyring"], "the keys of Debian's archive")?;
        }
        let folder = cache.join("apt").join(arch.name()).join(suite);
        for part in ["lists/partial", "cache/archives/partial"] {
            create_dir(&folder.join(part))?;
        }
        fs::write(folder.join("status"), "")?;
        fs::write(folder.join("sources.list"), sources(suite))?;
        fs::write(folder.join("apt.conf"), configuration(&folder, arch))?;
        let opened = Self { folder };
        say(format!("fetching the package lists of {suite}"));
        shell::run(opened.apt("apt-get").args(["update", "-qq"]))?;
        Ok(opened)
    }

    /// The packages that `package` depends on, the first choice of each.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = capture(self.apt("apt-cache").args(["depends", package]))?;
        let dependencies = text
            .lines()
            .filter_map(|line| line.trim_start().split_once("Depends: "))
            .map(|(_, name)| name.trim().to_owned());
        Ok(dependencies.collect())
    }

    /// The names of all packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let text = capture(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads `package` and unpacks it into `to`.
    pub fn unpack(&self, package: &str, to: &Path) -> Result<()> {
        let downloads = self.folder.join("downloads");
        // Empty, so that the one file in it afterwards is the package.
        let _ = fs::remove_dir_all(&downloads);
        create_dir(&downloads)?;
        create_dir(to)?;
        let mut command = self.apt("apt-get");
        command
            .args(["download", "-qq", package])
            .current_dir(&downloads);
        shell::run(&mut command)?;
        let deb = fs::read_dir(&downloads)?
            .next()
            .with_context(|| format!("apt-get downloaded no file for {package}"))??
            .path();
        extract(&deb, to)?;
        fs::remove_dir_all(&downloads)
            .with_context(|| format!("{} cannot be removed", downloads.display()))
    }

    /// A program of apt that sees this suite only.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }
}

/// Everything that apt would read or write elsewhere, turned to `folder`.
fn configuration(folder: &Path, arch: Arch) -> String {
    let folder = folder.display();
    let arch = arch.debian();
    format!(
        r#"Dir::State "{folder}";
Dir::State::lists "{folder}/lists";
Dir::State::status "{folder}/status";
Dir::Cache "{folder}/cache";
Dir::Etc::sourcelist "{folder}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "{arch}";
APT::Architectures {{ "{arch}"; }};
APT::Sandbox::User "root";
Acquire::Languages "none";
"#
    )
}

/// sid has no security suite: fixes go there first.
fn sources(suite: &str) -> String {
    let mirror = mirror();
    let mut text = format!("deb [signed-by={KEYRING}] {mirror} {suite} main\n");
    if suite != "sid" {
        let security = format!("{mirror}-security");
        text += &format!("deb [signed-by={KEYRING}] {security} {suite}-security main\n");
    }
    text
}

/// The mirror that this system's own apt uses.
fn mirror() -> String {
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", "$(REPO_URI)"]);
    let known = capture(&mut command).unwrap_or_default();
    let mirrors = known.lines().map(|line| line.trim_end_matches('/'));
    mirrors
        .into_iter()
        .find(|uri| uri.ends_with("/debian"))
        .unwrap_or(FALLBACK_MIRROR)
        .to_owned()
}

/// What `dpkg-deb -x` does, without setting the owner of the folder it unpacks into.
fn extract(deb: &Path, to: &Path) -> Result<()> {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--fsys-tarfile").arg(deb).stdout(Stdio::piped());
    let mut unpacking = unpack.spawn().context("dpkg-deb cannot be started")?;
    let archive = unpacking.stdout.take().context("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["-x", "--no-same-owner", "-C"]).arg(to);
    let unpacked = tar.stdin(archive).status().context("tar")?;
    if !unpacked.success() || !unpacking.wait()?.success() {
        bail!("{} cannot be unpacked", deb.display());
    }
    Ok(())
}
