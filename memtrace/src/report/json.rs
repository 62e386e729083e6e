//! JSON and NDJSON to any writer, and the question whether its reader has gone.

use std::io::{self, Write};

use serde::Serialize;

/// One pretty object and a line end.
///
/// # Errors
/// What the writer returns.
pub fn pretty<T: Serialize>(value: &T, out: &mut impl Write) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()
}

/// One object on one line, written at once so that lines of two writers do not mix.
///
/// # Errors
/// What the writer returns.
pub fn line<T: Serialize>(value: &T, out: &mut impl Write) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(value)?;
    bytes.push(b'\n');
    out.write_all(&bytes)?;
    out.flush()
}

/// True when the reader has gone (`memtrace … | head`): that is success, not an error.
#[must_use]
pub fn is_closed_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;

    // The schema as it is documented, with exact numbers.
    #[test]
    fn pretty_golden() {
        let mut out = Vec::new();
        pretty(&fixtures::leak(), &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }

    // A line of NDJSON is one line, also when a name has line breaks in it.
    #[test]
    fn ndjson_is_one_line() {
        let mut out = Vec::new();
        line(&fixtures::hostile(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches('\n').count(), 1);
        assert!(text.ends_with("}\n"));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["schema"], "memtrace.report/1");
    }

    // Numbers that are no numbers become null and leave the JSON readable.
    #[test]
    fn nan_is_null() {
        let mut report = fixtures::leak();
        report.processes[0].growth_bytes_per_second = f64::NAN;
        let mut out = Vec::new();
        line(&report, &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert!(value["processes"][0]["growth_bytes_per_second"].is_null());
    }

    // A reader that has gone is recognised.
    #[test]
    fn closed_pipe() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let error = line(&fixtures::leak(), &mut writer).unwrap_err();
        assert!(is_closed_pipe(&error));
        assert!(!is_closed_pipe(&io::Error::other("x")));
    }
}
