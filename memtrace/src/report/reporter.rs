//! Reports of one session, in one form, to one place.

use std::io;

use super::json;
use super::model::Report;
use super::output::{Delivery, Destination, OutputError};
use super::text::{self, TextOptions};

/// How reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text(TextOptions),
    /// One pretty JSON object.
    Json,
    /// One line of JSON.
    Ndjson,
}

impl Form {
    /// A report as bytes, with a line end.
    ///
    /// # Errors
    /// When JSON cannot hold it.
    pub fn render(self, report: &Report) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::Text(options) => bytes = text::render(report, options).into_bytes(),
            Self::Json => json::pretty(report, &mut bytes)?,
            Self::Ndjson => json::line(report, &mut bytes)?,
        }
        Ok(bytes)
    }
}

/// Writes the reports of one session.
#[derive(Debug)]
pub struct Reporter {
    form: Form,
    destination: Destination,
    began: bool,
}

impl Reporter {
    /// Nothing is opened yet; see [`Destination::check`].
    #[must_use]
    pub fn new(form: Form, destination: Destination) -> Self {
        Self {
            form,
            destination,
            began: false,
        }
    }

    /// Writes a report; on standard output an empty line parts texts.
    ///
    /// # Errors
    /// [`OutputError`], except that a closed pipe is [`Delivery::ReaderGone`].
    pub fn report(&mut self, report: &Report) -> Result<Delivery, OutputError> {
        let mut bytes = self.form.render(report).map_err(OutputError::Stdout)?;
        let parted = matches!(self.form, Form::Text(_)) && self.destination == Destination::Stdout;
        if parted && self.began {
            bytes.insert(0, b'\n');
        }
        self.began = true;
        self.destination.write(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // Each form reaches its file.
    #[test]
    fn reports_in_every_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("report");
        let report = crate::report::fixtures::leak();
        let write = |form, destination| {
            let mut reporter = Reporter::new(form, destination);
            for _ in 0..2 {
                assert_eq!(reporter.report(&report).unwrap(), Delivery::Written);
            }
            fs::read_to_string(&path).unwrap()
        };
        let text = write(
            Form::Text(TextOptions::default()),
            Destination::Replace(path.clone()),
        );
        assert!(text.starts_with("memtrace: pid 1234") && text.matches("memtrace:").count() == 1);
        let json = write(Form::Json, Destination::Replace(path.clone()));
        assert!(json.starts_with("{\n") && json.ends_with("}\n"));
        fs::remove_file(&path).unwrap();
        let lines = write(Form::Ndjson, Destination::Append(path.clone()));
        assert_eq!(lines.lines().count(), 2);
    }
}
