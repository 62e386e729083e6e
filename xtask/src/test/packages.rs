//! What the tests need of the system, beyond what building needs.

/// Compilers for the target programs, other allocators, and real programs to trace.
/// One line each: a test that needs another one adds it here and nowhere else.
pub const TESTS: &[&str] = &[
    "gcc",
    "g++",
    "libc6-dev",
    "libc6-dbg",
    "binutils",
    "musl-tools",
    "libjemalloc2",
    "libtcmalloc-minimal4",
    "libmimalloc2.0",
    "redis-server",
    "redis-tools",
    "python3",
    "gunicorn",
    "golang-go",
    "ruby",
    "google-perftools",
    "nodejs",
    "openjdk-17-jdk-headless",
    "chromium",
    "chromium-driver",
    "tmux",
    "runc",
    "containerd",
];

/// For `cargo check` on the other architecture: zstd's C source is compiled on the way.
pub const CROSS: &[&str] = &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
