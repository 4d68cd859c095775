//! Where the real model is.

use std::io::Write;
use std::path::{Path, PathBuf};

/// The cache that `scripts/get-model` fills with all-MiniLM-L6-v2. Without it a test is skipped, visibly, and with
/// `REQUIRE_MODEL=1` it fails.
pub fn cache() -> Option<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".models/hub");
    if cache.is_dir() {
        return Some(cache);
    }
    assert!(std::env::var_os("REQUIRE_MODEL").is_none(), "{} is missing: run scripts/get-model", cache.display());
    // Past the capture of the test harness: a skip must be seen.
    let _ = writeln!(std::io::stderr(), "skipped: the model is not there: run scripts/get-model");
    None
}
