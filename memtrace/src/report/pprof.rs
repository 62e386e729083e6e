//! pprof: `profile.proto`, gzipped, as `go tool pprof` and the services built on it read it.
//!
//! Four sample types, as heap profiles have: alloc_objects, alloc_space, inuse_objects and
//! inuse_space, which is the default. Checked against
//! <https://github.com/google/pprof/blob/main/proto/profile.proto>.

mod builder;
mod proto;

use std::io::{self, Write as _};

use flate2::{Compression, GzBuilder};
use prost::Message as _;

use super::profile::Profile;

/// The profile, gzipped; the same profile gives the same bytes.
///
/// # Errors
/// When compression fails.
pub fn render(profile: &Profile) -> io::Result<Vec<u8>> {
    let message = builder::build(profile).encode_to_vec();
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::default());
    gzip.write_all(&message)?;
    gzip.finish()
}

#[cfg(test)]
mod tests;
