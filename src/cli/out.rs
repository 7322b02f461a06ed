//! The one place that writes to stdout and stderr for people. When nobody reads them there is
//! nobody to tell.

use std::fmt::Display;
use std::io::Write;

/// Writes a line to stdout.
pub(super) fn line(line: impl Display) {
    let _unheard = writeln!(std::io::stdout().lock(), "{line}");
}

/// Writes a line to stderr.
pub(super) fn error(line: impl Display) {
    let _unheard = writeln!(std::io::stderr().lock(), "{line}");
}
