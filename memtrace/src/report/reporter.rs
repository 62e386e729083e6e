//! Reports of one session, in one form, to one place.

use std::io;

use super::json;
use super::model::Report;
use super::output::{Delivery, Destination, OutputError};
use super::profile::{Profile, ProfileForm, Series};
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
    /// A format made of the neutral profile.
    Profile(ProfileForm),
}

impl Form {
    /// A report as bytes, text with a line end. `series` is its past, which only profile formats
    /// have a place for; a table gets its header when it `begins`.
    ///
    /// # Errors
    /// When the format cannot hold it.
    pub fn render(self, report: &Report, series: Series, begins: bool) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self {
            Self::Text(options) => bytes = text::render(report, options).into_bytes(),
            Self::Json => json::pretty(report, &mut bytes)?,
            Self::Ndjson => json::line(report, &mut bytes)?,
            Self::Profile(form) => bytes = form.render(&Profile::new(report, series), begins)?,
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
    /// True when the form shows more than one moment of a session.
    #[must_use]
    pub fn wants_series(&self) -> bool {
        self.form == Form::Profile(ProfileForm::Html)
    }

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
        self.report_with(report, Series::default())
    }

    /// The same with the report's past, see [`Reporter::wants_series`].
    ///
    /// # Errors
    /// As [`Reporter::report`].
    pub fn report_with(
        &mut self,
        report: &Report,
        series: Series,
    ) -> Result<Delivery, OutputError> {
        let begins = !self.began && self.destination.is_empty();
        let mut bytes = self
            .form
            .render(report, series, begins)
            .map_err(OutputError::Render)?;
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

    // Every profile format reaches its file; a table has one header, also when memtrace is started
    // again.
    #[test]
    fn profiles() {
        let directory = tempfile::tempdir().unwrap();
        let report = crate::report::fixtures::leak();
        for form in [ProfileForm::Folded, ProfileForm::Svg, ProfileForm::Pprof] {
            let path = directory.path().join(form.name());
            let mut reporter =
                Reporter::new(Form::Profile(form), Destination::Replace(path.clone()));
            for _ in 0..2 {
                assert_eq!(reporter.report(&report).unwrap(), Delivery::Written);
            }
            let expected = form.render(&Profile::new(&report, Series::default()), true);
            assert_eq!(
                fs::read(&path).unwrap(),
                expected.unwrap(),
                "{}",
                form.name()
            );
        }
        let path = directory.path().join("csv");
        for _ in 0..2 {
            let to = Destination::Append(path.clone());
            let mut reporter = Reporter::new(Form::Profile(ProfileForm::Csv), to);
            for _ in 0..2 {
                assert_eq!(reporter.report(&report).unwrap(), Delivery::Written);
            }
        }
        let table = fs::read_to_string(&path).unwrap();
        assert_eq!(table.matches("taken_at,").count(), 1);
        assert_eq!(table.matches("leak_here,").count(), 4);
    }

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
