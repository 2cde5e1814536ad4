//! Where `tests/services/install` puts the servers.

use std::env;
use std::path::{Path, PathBuf};

/// The cache: `AMIBUS_TEST_CACHE`, or `amibus` in the user's cache directory.
pub(crate) fn directory() -> PathBuf {
    let of = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("AMIBUS_TEST_CACHE")
        .or_else(|| Some(of("XDG_CACHE_HOME")?.join("amibus")))
        .or_else(|| Some(of("HOME")?.join(".cache/amibus")))
        .expect("AMIBUS_TEST_CACHE, XDG_CACHE_HOME or HOME must say where the servers are")
}

/// A file of the cache, or a panic that says which command puts it there.
pub(crate) fn installed(file: &str, part: &str) -> PathBuf {
    let path = directory().join(file);
    assert!(path.exists(), "{} is missing: run tests/services/install {part}", path.display());
    path
}

/// A file that belongs to this crate.
pub(crate) fn own(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}
