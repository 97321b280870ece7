//! Writing to the terminal without the panics of `println!`: a reader may go away at any time.

use std::fmt::Arguments;
use std::io::Write;

/// Writes a line to standard output; an error when nobody reads it any more.
macro_rules! say {
    () => {
        crate::output::line(format_args!(""))
    };
    ($($argument:tt)*) => {
        crate::output::line(format_args!($($argument)*))
    };
}

/// Writes a line to standard error; when that is closed there is nobody to tell.
macro_rules! tell {
    ($($argument:tt)*) => {
        crate::output::note(format_args!($($argument)*))
    };
}

/// What [`say!`] does.
pub(crate) fn line(text: Arguments<'_>) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_fmt(text)?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}

/// What [`tell!`] does.
pub(crate) fn note(text: Arguments<'_>) {
    let mut stderr = std::io::stderr().lock();
    let _ = stderr
        .write_fmt(text)
        .and_then(|()| stderr.write_all(b"\n"));
}
