//! Which mount holds the memory controller. Pure.

/// Mount points, where there are such.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    pub v1: Option<String>,
    pub v2: Option<String>,
}

/// Of the text of `/proc/mounts`. The first of each kind counts: later ones are a container's
/// bind mounts.
pub(super) fn find(text: &str) -> Mounts {
    let mut found = Mounts::default();
    for line in text.lines() {
        let mut fields = line.split(' ').skip(1);
        let (Some(place), Some(kind)) = (fields.next(), fields.next()) else {
            continue;
        };
        let options = fields.next().unwrap_or_default();
        let is_memory =
            options.split(',').any(|option| option == "memory") || place.ends_with("/memory");
        let slot = match kind {
            "cgroup" if is_memory => &mut found.v1,
            "cgroup2" => &mut found.v2,
            _ => continue,
        };
        slot.get_or_insert_with(|| unescaped(place));
    }
    found
}

/// The kernel writes spaces, tabs, line ends and backslashes as `\040` and so on.
fn unescaped(place: &str) -> String {
    place
        .replace("\\040", " ")
        .replace("\\011", "\t")
        .replace("\\012", "\n")
        .replace("\\134", "\\")
}
