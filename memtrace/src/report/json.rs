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

    /// Every field's name, in the report's order.
    fn fields(value: &serde_json::Value, into: &mut Vec<String>) {
        match value {
            serde_json::Value::Object(members) => {
                for (name, value) in members {
                    into.push(name.clone());
                    // Counters have a reference of their own.
                    if name != "losses" && name != "notes" {
                        fields(value, into);
                    }
                }
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| fields(item, into)),
            _ => {}
        }
    }

    // The reference explains every field that is printed.
    #[test]
    fn the_reference_is_complete() {
        use crate::report::{group, model::*};
        let page =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/src/reference/json.md");
        let page = std::fs::read_to_string(page).unwrap();
        let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
        let cells = rows.filter_map(|row| Some(row.split_once(" |")?.0));
        let headings = page.lines().filter(|line| line.starts_with("### "));
        // `a.b`, `c`; `allocated_*`; the container's fields stand in the text beside it.
        let told: Vec<&str> = cells
            .chain(headings)
            .flat_map(|cell| cell.split('`').skip(1).step_by(2))
            .flat_map(|name| name.split('.'))
            .map(|name| name.trim_end_matches("[]"))
            .collect();
        let container = page.lines().find(|line| line.starts_with("| `container`"));
        let in_container: Vec<&str> = container
            .map(|line| line.split('`').skip(1).step_by(2).collect())
            .unwrap_or_default();
        let mut report = fixtures::leak();
        report.processes[0].container = Some(Container {
            runtime: String::new(),
            id: String::new(),
            name: None,
            pod: None,
            namespace: None,
            image: None,
            ..Container::default()
        });
        report.marks = vec![Mark {
            name: String::new(),
            at: String::new(),
        }];
        report.gained_since = Some(String::new());
        report.cycles = Some(crate::report::cycles::tests::cycles());
        report.stacks[0].gained_per_cycle = vec![1];
        group::apply(&mut report, GroupBy::Function, None);
        let mut names = Vec::new();
        fields(&serde_json::to_value(&report).unwrap(), &mut names);
        assert!(names.iter().any(|name| name == "inlined") && names.len() > 60);
        for name in names {
            let is = |told: &str| {
                told == name
                    || told
                        .strip_suffix('*')
                        .is_some_and(|part| name.starts_with(part))
            };
            assert!(
                told.iter().any(|one| is(one)) || in_container.contains(&name.as_str()),
                "`{name}` is not in docs/src/reference/json.md"
            );
        }
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
