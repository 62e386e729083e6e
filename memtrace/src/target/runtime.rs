//! Runtimes that manage their programs' memory: their heap grows as they like, and who holds an
//! object only they can tell.

/// A runtime, by the objects that a process maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// A Java virtual machine.
    Jvm,
    /// Go.
    Go,
    /// Node.js, with V8.
    Node,
    /// The reference implementation of Python.
    Python,
    /// .NET.
    Dotnet,
    /// Ruby.
    Ruby,
}

/// The first Python that writes a perf map.
const NAMES_FRAMES: (u32, u32) = (3, 12);

/// The version of a Python, by the names of mapped objects: `python3.11`, `libpython3.11.so.1.0`.
pub fn python_version(names: impl Iterator<Item = String>) -> Option<(u32, u32)> {
    let version = |name: String| {
        let file = name.rsplit('/').next()?;
        let stem = file.strip_prefix("lib").unwrap_or(file);
        let mut numbers = stem.strip_prefix("python")?.split('.');
        let mut next = || numbers.next()?.parse().ok();
        Some((next()?, next()?))
    };
    names.filter_map(version).next()
}

impl Runtime {
    /// Finds one by the names of mapped objects. Go has no object of its own:
    /// [`crate::target::discover`] tells.
    pub fn of(names: impl Iterator<Item = String>) -> Option<Self> {
        let mut found = None;
        for name in names {
            let file = name.rsplit('/').next().unwrap_or_default();
            let this = Self::by_file(file);
            // A Java or .NET host can map an interpreter too; the virtual machine is what matters.
            match this {
                Some(Self::Jvm | Self::Dotnet) => return this,
                Some(_) if found.is_none() => found = this,
                _ => {}
            }
        }
        found
    }

    fn by_file(file: &str) -> Option<Self> {
        let versioned = |stem: &str| {
            file.strip_prefix(stem)
                .is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
        };
        if file == "libjvm.so" {
            Some(Self::Jvm)
        } else if file == "libcoreclr.so" {
            Some(Self::Dotnet)
        } else if file == "node" || file == "nodejs" || file.starts_with("libnode.so") {
            Some(Self::Node)
        } else if versioned("python") || file.starts_with("libpython3") {
            Some(Self::Python)
        } else if versioned("ruby") || file.starts_with("libruby") {
            Some(Self::Ruby)
        } else {
            None
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Jvm => "a Java virtual machine",
            Self::Go => "Go",
            Self::Node => "Node.js (V8)",
            Self::Python => "CPython",
            Self::Dotnet => ".NET",
            Self::Ruby => "Ruby",
        }
    }

    /// What to run next: what tells of its objects, and what names its frames. `python` is the version
    /// of a Python, where it is known.
    #[must_use]
    pub fn advice(self, pid: u32, python: Option<(u32, u32)>) -> String {
        match self {
            Self::Jvm => format!(
                "`jcmd {pid} GC.class_histogram` or `jcmd {pid} GC.heap_dump FILE` tell of its objects, \
                 `jcmd {pid} Compiler.perfmap` names its frames"
            ),
            Self::Go => {
                "`go tool pprof http://HOST:PORT/debug/pprof/heap` (net/http/pprof) tells of its \
                         objects, `--probe fault` who first touched their memory"
                    .to_owned()
            }
            Self::Node => {
                "started with --heapsnapshot-signal=SIGUSR2 it writes its objects down, with \
                           --perf-basic-prof it names its frames"
                    .to_owned()
            }
            Self::Python => {
                let frames = match python {
                    Some((major, minor)) if (major, minor) < NAMES_FRAMES => format!(
                        "this Python {major}.{minor} cannot name its frames (3.12 can, by `python -X perf`)"
                    ),
                    _ => "`python -X perf` names its frames (3.12 and newer)".to_owned(),
                };
                format!(
                    "tracemalloc tells of its objects; {frames}; PYTHONMALLOC=malloc lets the heap probe \
                     see every object"
                )
            }
            Self::Dotnet => format!(
                "`dotnet-gcdump collect -p {pid}` tells of its objects, DOTNET_PerfMapEnabled=1 names its \
                 frames"
            ),
            Self::Ruby => format!(
                "ObjectSpace.dump_all (require \"objspace\"), called in it or by `rbtrace -p {pid} -e`, \
                 tells of its objects"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Option<Runtime> {
        Runtime::of(names.iter().map(|name| (*name).to_owned()))
    }

    /// Versions by either name; a Python that names no frames says so.
    #[test]
    fn versions() {
        let of = |name: &str| python_version(std::iter::once(name.to_owned()));
        assert_eq!(of("/usr/bin/python3.11"), Some((3, 11)));
        assert_eq!(of("/usr/lib/libpython3.13.so.1.0"), Some((3, 13)));
        assert_eq!(of("/usr/bin/python3"), None);
        assert_eq!(of("/usr/lib/python3.11.x/libc.so.6"), None);
        let advice = |version| Runtime::Python.advice(1, version);
        assert!(advice(Some((3, 11))).contains("3.11 cannot name"));
        assert!(advice(Some((3, 12))).contains("`python -X perf` names"));
        assert!(advice(None).contains("3.12 and newer"));
    }

    /// Each runtime by what it maps; names that only begin alike are none.
    #[test]
    fn by_objects() {
        assert_eq!(
            of(&["/usr/bin/python3.11", "/lib/libc.so.6"]),
            Some(Runtime::Python)
        );
        assert_eq!(
            of(&["/usr/lib/jvm/lib/server/libjvm.so"]),
            Some(Runtime::Jvm)
        );
        assert_eq!(
            of(&["/usr/bin/python3", "/opt/libjvm.so"]),
            Some(Runtime::Jvm)
        );
        assert_eq!(of(&["/usr/lib/libnode.so.108"]), Some(Runtime::Node));
        assert_eq!(of(&["/usr/bin/ruby3.1"]), Some(Runtime::Ruby));
        assert_eq!(of(&["/usr/bin/python-server", "[heap]", ""]), None);
    }
}
