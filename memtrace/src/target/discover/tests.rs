use super::*;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Runs a program that prints a line when it is ready and waits for its input to end.
struct Running {
    child: Child,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        Self { child }
    }

    fn tgid(&self) -> Tgid {
        Tgid(self.child.id())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn discover(tgid: Tgid) -> Discovery {
    Discoverer::new(ProcFs::default(), CustomFunctions::default())
        .discover(tgid)
        .unwrap()
}

/// `sh` waiting in a builtin, with libraries preloaded.
fn shell(preload: &str) -> Running {
    Running::start(
        Command::new("/bin/sh")
            .args(["-c", "echo ready; read x"])
            .env("LD_PRELOAD", preload),
    )
}

fn has(discovery: &Discovery, family: Family) -> bool {
    discovery
        .objects
        .iter()
        .any(|o| o.analysis.families.contains(&family))
}

/// This test process: the C library is found, its probes lie in its executable mappings, and the
/// functions are where the dynamic linker says they are.
#[test]
fn this_process() {
    let found = discover(Tgid(std::process::id()));
    let libc = found
        .objects
        .iter()
        .find(|o| o.analysis.families == [Family::Glibc])
        .unwrap();
    let malloc = libc
        .analysis
        .functions
        .iter()
        .find(|p| p.found.names[0] == "malloc")
        .unwrap();
    let address = libc.address_of(malloc.found.file_offset).unwrap();
    assert_eq!(address, libc::malloc as *const () as u64);
    assert!(malloc.needs_return && malloc.placement.emulated);
    let free = libc
        .analysis
        .functions
        .iter()
        .find(|p| p.found.names[0] == "free")
        .unwrap();
    assert!(!free.needs_return && free.placement.emulated);
    assert!(
        std::fs::metadata(libc.analysis.object.attach_path())
            .unwrap()
            .ino()
            != 0
    );
    assert!(found.notes.is_empty(), "{:?}", found.notes);
}

/// A second look costs nothing new: the same analysis is shared.
#[test]
fn files_are_analysed_once() {
    let mut discoverer = Discoverer::new(ProcFs::default(), CustomFunctions::default());
    let shell = shell("");
    let first = discoverer.discover(Tgid(std::process::id())).unwrap();
    let second = discoverer.discover(shell.tgid()).unwrap();
    let libc = |d: &Discovery| {
        d.objects
            .iter()
            .find(|o| o.analysis.families == [Family::Glibc])
            .unwrap()
            .analysis
            .clone()
    };
    assert!(Arc::ptr_eq(&libc(&first), &libc(&second)));
    drop((first, second));
    discoverer.forget();
    assert!(discoverer.cache.is_empty());
}

/// A preloaded allocator is found beside the C library.
#[test]
fn preloaded_allocators() {
    for (library, family) in [
        ("libjemalloc.so.2", Family::Jemalloc),
        ("libtcmalloc_minimal.so.4", Family::Tcmalloc),
        ("libmimalloc.so.2", Family::Mimalloc),
    ] {
        let path = PathBuf::from("/usr/lib/x86_64-linux-gnu").join(library);
        if !path.exists() {
            continue;
        }
        let found = discover(shell(path.to_str().unwrap()).tgid());
        assert!(
            has(&found, family) && has(&found, Family::Glibc),
            "{library}: {found:?}"
        );
    }
}

/// Compiles a C program when the compiler is there.
fn compiled(compiler: &str, arguments: &[&str]) -> Option<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("t.c"), dir.path().join("t"));
    std::fs::write(
        &source,
        "#include <stdio.h>\n#include <stdlib.h>\nvoid *volatile p;\n\
         int main(void) { p = malloc(10); puts(\"ready\"); fflush(stdout); getchar(); free(p); }\n",
    )
    .unwrap();
    let status = Command::new(compiler)
        .args(arguments)
        .args(["-O2", "-o"])
        .args([&program, &source])
        .status()
        .ok()?;
    status.success().then_some((dir, program))
}

/// musl, dynamic and static: found by name.
#[test]
fn musl_programs() {
    for arguments in [&[][..], &["-static"]] {
        let Some((_dir, program)) = compiled("musl-gcc", arguments) else {
            return;
        };
        let running = Running::start(&mut Command::new(&program));
        let found = discover(running.tgid());
        assert!(has(&found, Family::Musl), "{arguments:?}: {found:?}");
        assert!(!has(&found, Family::Glibc));
    }
}

/// A static glibc program is found by its symbols; stripped, it is said what remains (R16).
#[test]
fn static_programs() {
    let Some((_dir, program)) = compiled("gcc", &["-static"]) else {
        return;
    };
    let running = Running::start(&mut Command::new(&program));
    assert!(has(&discover(running.tgid()), Family::Glibc));
    let Some((_dir, program)) = compiled("gcc", &["-static", "-s"]) else {
        return;
    };
    let running = Running::start(&mut Command::new(&program));
    let found = discover(running.tgid());
    assert!(found.is_empty());
    assert!(
        found.notes[0].contains("static program without symbols"),
        "{:?}",
        found.notes
    );
}

/// A library that was deleted after it was mapped is still reached.
#[test]
fn deleted_files_are_reached() {
    let Some((dir, program)) = compiled("gcc", &["-static"]) else {
        return;
    };
    let running = Running::start(&mut Command::new(&program));
    std::fs::remove_file(&program).unwrap();
    drop(dir);
    assert!(has(&discover(running.tgid()), Family::Glibc));
}

/// The user's functions that are nowhere are named.
#[test]
fn custom_functions_that_are_missing() {
    let mut custom = CustomFunctions::default();
    custom.add_alloc("no_such_pool_take", 0).unwrap();
    let mut discoverer = Discoverer::new(ProcFs::default(), custom);
    let found = discoverer.discover(Tgid(std::process::id())).unwrap();
    assert!(
        found.notes.iter().any(|n| n.contains("no_such_pool_take")),
        "{:?}",
        found.notes
    );
}

/// A process that is not there is named.
#[test]
fn missing_process() {
    let error = Discoverer::default().discover(Tgid(u32::MAX)).unwrap_err();
    assert!(error.to_string().contains("4294967295"), "{error}");
}

/// A process without mappings is just ending: said, not searched.
#[test]
fn ending_process() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("5")).unwrap();
    std::fs::write(dir.path().join("5/maps"), "").unwrap();
    let mut discoverer = Discoverer::new(ProcFs::new(dir.path()), CustomFunctions::default());
    let error = discoverer.discover(Tgid(5)).unwrap_err();
    assert!(
        matches!(error, ProcessError::NoMemory { tgid: Tgid(5) }),
        "{error}"
    );
}

/// Mapped files that cannot be read as objects are listed with the reason and do no harm.
#[test]
fn unreadable_files_are_listed() {
    let dir = tempfile::tempdir().unwrap();
    let process = dir.path().join("5");
    std::fs::create_dir_all(process.join("map_files")).unwrap();
    std::fs::create_dir_all(process.join("root")).unwrap();
    std::fs::write(
        process.join("maps"),
        "1000-2000 r-xp 00000000 fe:01 12 /lib/gone.so\n\
         2000-3000 r-xp 00000000 fe:01 13 /lib/text.so\n\
         3000-4000 r-xp 00000000 fe:01 14 /lib/broken.so\n",
    )
    .unwrap();
    std::fs::write(process.join("map_files/2000-3000"), "just text").unwrap();
    let mut broken = b"\x7fELF\x02\x01\x01".to_vec();
    broken.resize(64, 0);
    broken[16] = 3;
    broken[18] = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    broken[32] = 0xff;
    broken[54] = 56;
    broken[56] = 3;
    std::fs::write(process.join("map_files/3000-4000"), broken).unwrap();
    let mut discoverer = Discoverer::new(ProcFs::new(dir.path()), CustomFunctions::default());
    let found = discoverer.discover(Tgid(5)).unwrap();
    let problems: Vec<_> = found
        .searched
        .iter()
        .map(|s| s.problem.as_deref())
        .collect();
    assert!(problems[0].unwrap().contains("gone.so"), "{problems:?}");
    assert_eq!(problems[1], None);
    assert!(
        problems[2].unwrap().contains("broken ELF file"),
        "{problems:?}"
    );
    assert!(
        found.notes[0].contains("no allocator found in 3 files"),
        "{:?}",
        found.notes
    );
}

/// Where the probes go in this machine's allocators: every one in the function, hot ones emulated.
#[test]
fn real_libraries() {
    let hot = ["malloc", "free", "calloc", "realloc", "_Znwm", "_ZdlPv"];
    let libraries = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
        "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4",
        "/usr/lib/x86_64-linux-gnu/libmimalloc.so.2",
        "/lib/ld-musl-x86_64.so.1",
    ];
    for path in libraries.iter().map(Path::new).filter(|p| p.exists()) {
        let object = Object::open(path).unwrap();
        let Cached::Found(analysis) = examine(object, &CustomFunctions::default()) else {
            panic!("nothing in {path:?}");
        };
        for probe in &analysis.functions {
            let p = &probe.placement;
            assert!(p.offset == 0 || p.offset < probe.found.size, "{probe:?}");
            // mimalloc shifts the two arguments of calloc and realloc before it branches.
            let name = probe.found.names[0].as_str();
            let shifts =
                probe.found.family == Family::Mimalloc && matches!(name, "calloc" | "realloc");
            assert!(
                p.emulated || shifts || !hot.contains(&name),
                "{path:?} {probe:?}"
            );
        }
    }
}

/// jemalloc's and musl's functions that only jump to another one need no probe of their own.
#[test]
fn functions_that_only_jump_are_joined() {
    for (path, function, also) in [
        (
            "/usr/lib/x86_64-linux-gnu/libjemalloc.so.2",
            "free",
            "_ZdlPv",
        ),
        ("/lib/ld-musl-x86_64.so.1", "aligned_alloc", "memalign"),
    ] {
        let Ok(object) = Object::open(Path::new(path)) else {
            continue;
        };
        let Cached::Found(analysis) = examine(object, &CustomFunctions::default()) else {
            panic!("nothing in {path}");
        };
        let by_name = |name: &str| {
            analysis
                .functions
                .iter()
                .find(|p| p.found.names.iter().any(|n| n == name))
        };
        let probe = by_name(function).unwrap();
        assert!(probe.also.iter().any(|n| n == also), "{probe:?}");
        assert!(probe.covered().any(|n| n == also) && by_name(also).is_none());
    }
}

/// Functions that jump in a circle keep their probes, a chain ends in one.
#[test]
fn circles_and_chains_of_jumps() {
    use crate::target::object::tests::synthetic_bytes;
    use std::io::Write;
    // malloc jumps to calloc's place in name only: to realloc, whose arguments are others.
    // free → cfree → __libc_free; __libc_cfree and free_sized jump to each other.
    let names = [
        "malloc",
        "realloc",
        "free",
        "cfree",
        "__libc_free",
        "__libc_cfree",
        "free_sized",
    ];
    let jumps = [Some(1_i32), None, Some(3), Some(4), None, Some(6), Some(5)];
    let mut strings = vec![0];
    let mut symbols = Vec::new();
    let mut code = Vec::new();
    for ((index, name), jump) in (0_i32..).zip(names).zip(jumps) {
        symbols.push((
            strings.len() as u32,
            0x1000 + u64::from(index.unsigned_abs()) * 16,
            16,
        ));
        strings.extend(name.as_bytes());
        strings.push(0);
        match jump {
            Some(to) => {
                code.push(0xe9);
                code.extend(((to - index) * 16 - 5).to_le_bytes());
            }
            None => code.push(0x55),
        }
        code.resize(code.len().next_multiple_of(16), 0x90);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&synthetic_bytes(&strings, &symbols, &code))
        .unwrap();
    let object = Object::from_file(file, "jumps".into()).unwrap();
    let allocators = family::find(&object, &CustomFunctions::default()).unwrap();
    let analysis = plan::plan(object, allocators);
    let kept: Vec<_> = analysis
        .functions
        .iter()
        .map(|p| (p.found.names[0].as_str(), p.also.join(" ")))
        .collect();
    let none = String::new;
    assert_eq!(
        kept,
        [
            ("malloc", none()),
            ("realloc", none()),
            ("__libc_free", "free cfree".to_owned()),
            ("__libc_cfree", none()),
            ("free_sized", none()),
        ]
    );
}
