//! The machine the figures are from, without its name.
use std::fs;
use std::thread::available_parallelism;

/// Processors, their model, memory, kernel.
pub fn describe() -> String {
    let cpus = available_parallelism().map_or(1, usize::from);
    let model = field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown processor".into());
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    let gib = memory
        .trim_end_matches(" kB")
        .parse::<f64>()
        .map_or(0.0, |kib| kib / f64::from(1 << 20));
    let uname = rustix::system::uname();
    // The part after the version can name a provider or a build host.
    let release = uname.release().to_string_lossy().into_owned();
    let version: String = release
        .chars()
        .take_while(|c| c.is_ascii_digit() || *c == '.')
        .collect();
    let kind = if field("/proc/cpuinfo", "flags").is_some_and(|flags| flags.contains("hypervisor"))
    {
        "a virtual machine"
    } else {
        "bare metal"
    };
    format!(
        "{kind}, {cpus} × {model}, {gib:.0} GiB, Linux {version} {}",
        std::env::consts::ARCH
    )
}

/// The first value of a `name : value` file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}
