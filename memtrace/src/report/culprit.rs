//! Which frame of a stack to name: the innermost one that is the program's own.
//!
//! `malloc` ← `operator new` ← `std::vector<T>::push_back` ← `Cache::insert`: a person wants to
//! read `Cache::insert`. A guess by names only; every frame stays in the report.

use super::model::Frame;

/// Prefixes of functions that allocate for whoever called them.
const LIBRARY_FUNCTIONS: &[&str] = &[
    "std::",
    "__gnu_cxx::",
    "__cxxabiv1::",
    "operator new",
    "alloc::",
    "core::",
    "hashbrown::",
    "__rust_",
    "__rustc",
    "__rdl_",
    "__libc_",
    "__GI_",
];

/// Starts of the file names of objects that allocate for whoever called them.
const LIBRARY_OBJECTS: &[&str] = &[
    "libc.so",
    "libc-",
    "libc.musl",
    "ld-musl",
    "ld-linux",
    "libstdc++.so",
    "libc++.so",
    "libc++abi.so",
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
    "libgcc_s.so",
    "linux-vdso",
];

/// Index of the frame to name; `None` only when there are no frames.
#[must_use]
pub fn culprit(frames: &[Frame]) -> Option<usize> {
    let own = frames
        .iter()
        .position(|frame| !is_plumbing(frame) && frame.function.is_some());
    own.or_else(|| {
        frames
            .iter()
            .position(|frame| !frame.allocator && !is_library(frame))
    })
    .or_else(|| frames.iter().position(|frame| !frame.allocator))
    .or_else(|| frames.len().checked_sub(1))
}

/// True for code that allocates for its caller, or only calls `main`.
#[must_use]
pub fn is_plumbing(frame: &Frame) -> bool {
    frame.allocator || is_library(frame) || is_entry(frame)
}

fn is_library(frame: &Frame) -> bool {
    let function = frame.function.as_deref().unwrap_or("");
    // Rust's `<alloc::vec::Vec<T> as Trait>::f` and C++'s `void std::f<T>()`.
    let bare = function.trim_start_matches('<');
    let bare = bare.strip_prefix("void ").unwrap_or(bare);
    LIBRARY_FUNCTIONS
        .iter()
        .any(|prefix| bare.starts_with(prefix))
        || in_library(frame)
}

fn in_library(frame: &Frame) -> bool {
    let object = frame.module.as_deref().map_or("", file_name);
    LIBRARY_OBJECTS
        .iter()
        .any(|prefix| object.starts_with(prefix))
}

fn is_entry(frame: &Frame) -> bool {
    matches!(
        frame.function.as_deref(),
        Some("_start" | "clone" | "clone3" | "start_thread")
    )
}

/// What to call a frame: its function, else `module+0xoffset`, else its address.
#[must_use]
pub fn name(frame: &Frame) -> String {
    match &frame.function {
        Some(function) => function.clone(),
        None => place_in_module(frame).unwrap_or_else(|| frame.address.clone()),
    }
}

/// Where a frame is: `file:line`, else `module+0xoffset`; `None` when [`name`] says that already.
#[must_use]
pub fn place(frame: &Frame) -> Option<String> {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => Some(format!("{file}:{line}")),
        (Some(file), None) => Some(file.clone()),
        (None, _) if frame.function.is_some() => place_in_module(frame),
        (None, _) => None,
    }
}

fn place_in_module(frame: &Frame) -> Option<String> {
    let object = file_name(frame.module.as_deref()?);
    Some(
        frame
            .offset
            .as_ref()
            .map_or_else(|| object.to_owned(), |at| format!("{object}+{at}")),
    )
}

/// [`place`] in short: `file:line` without directories, else the module's file name.
#[must_use]
pub fn short_place(frame: &Frame) -> Option<String> {
    match (&frame.file, &frame.module) {
        (Some(_), _) => place(frame).map(|place| file_name(&place).to_owned()),
        (None, Some(module)) if frame.function.is_some() => Some(file_name(module).to_owned()),
        (None, _) => None,
    }
}

/// The part after the last `/`.
#[must_use]
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, module: &str) -> Frame {
        Frame {
            function: (!function.is_empty()).then(|| function.to_owned()),
            module: Some(module.to_owned()),
            offset: Some("0x10".to_owned()),
            address: "0x7f0010".to_owned(),
            ..Frame::default()
        }
    }

    fn named(frames: &[Frame]) -> Option<String> {
        culprit(frames).and_then(|at| frames.get(at)).map(name)
    }

    // The C++ container and operator new are skipped.
    #[test]
    fn skips_cpp_plumbing() {
        let mut new = frame("operator new(unsigned long)", "/usr/lib/libstdc++.so.6");
        new.allocator = true;
        let push = frame("std::vector<int>::push_back(int&&)", "/srv/app");
        assert_eq!(
            named(&[new, push, frame("Cache::insert", "/srv/app")]).as_deref(),
            Some("Cache::insert")
        );
    }

    // So are Rust's containers, also in their trait form.
    #[test]
    fn skips_rust_plumbing() {
        let frames = [
            frame("alloc::raw_vec::finish_grow", "/srv/app"),
            frame(
                "<alloc::string::String as core::clone::Clone>::clone",
                "/srv/app",
            ),
            frame("app::session::open", "/srv/app"),
        ];
        assert_eq!(named(&frames).as_deref(), Some("app::session::open"));
    }

    // strdup leaks for its caller.
    #[test]
    fn skips_libc() {
        let frames = [
            frame("strdup", "/usr/lib/libc.so.6"),
            frame("add_user", "/srv/app"),
        ];
        assert_eq!(named(&frames).as_deref(), Some("add_user"));
    }

    // A stack of library frames only names its innermost one that is not the allocator's.
    #[test]
    fn library_only() {
        let frames = [
            frame("fopen", "/usr/lib/libc.so.6"),
            frame("getpwnam", "/usr/lib/libc.so.6"),
        ];
        assert_eq!(named(&frames).as_deref(), Some("fopen"));
        assert_eq!(culprit(&[]), None);
    }

    // A stripped program is named by object and offset.
    #[test]
    fn stripped_program() {
        let frames = [
            frame("", "/srv/app"),
            frame("__libc_start_main", "/usr/lib/libc.so.6"),
        ];
        assert_eq!(named(&frames).as_deref(), Some("app+0x10"));
    }
}
