//! The moments of a recording: what there are, and which one somebody means.

use super::{RecordError, Recording, When};

/// One recorded moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Moment {
    /// Its interval.
    pub(super) interval: i64,
    /// Milliseconds since tracing began.
    pub at_ms: i64,
    /// The wall clock, RFC 3339.
    pub taken_at: String,
    /// Marks set then.
    pub marks: Vec<String>,
}

impl Recording {
    /// Every moment, in the order they were recorded.
    ///
    /// # Errors
    /// When the file is damaged or holds none.
    pub fn moments(&self) -> Result<Vec<Moment>, RecordError> {
        let mut statement = self
            .db
            .prepare("SELECT id, at_ms, taken_at FROM intervals ORDER BY id")
            .map_err(self.wrong())?;
        let moments = statement
            .query_map([], |row| {
                Ok(Moment {
                    interval: row.get(0)?,
                    at_ms: row.get(1)?,
                    taken_at: row.get(2)?,
                    marks: Vec::new(),
                })
            })
            .and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let mut moments = moments.map_err(self.wrong())?;
        if moments.is_empty() {
            return Err(RecordError::Empty(self.path().to_path_buf()));
        }
        for (interval, name) in self.marks()? {
            let at = moments.binary_search_by_key(&interval, |m| m.interval);
            if let Some(moment) = at.ok().and_then(|at| moments.get_mut(at)) {
                moment.marks.push(name);
            }
        }
        Ok(moments)
    }

    fn marks(&self) -> Result<Vec<(i64, String)>, RecordError> {
        let mut statement = self
            .db
            .prepare("SELECT interval, name FROM marks ORDER BY id")
            .map_err(self.wrong())?;
        statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .and_then(Iterator::collect)
            .map_err(self.wrong())
    }

    /// The last moment that is not after the one asked for.
    ///
    /// # Errors
    /// When nothing is recorded there, or no mark has the name.
    pub fn find(&self, when: &When) -> Result<Moment, RecordError> {
        let mut moments = self.moments()?;
        let no = |why: String| {
            Err(RecordError::NoMoment {
                path: self.path().to_path_buf(),
                why,
            })
        };
        let (first, last) = match (moments.first(), moments.last()) {
            (Some(first), Some(last)) => (first.clone(), last.clone()),
            _ => return Err(RecordError::Empty(self.path().to_path_buf())),
        };
        let ms = |time: std::time::Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let found = match when {
            When::Start => return Ok(first),
            When::End => return Ok(last),
            When::After(time) => moments.iter().rposition(|m| m.at_ms <= ms(*time)),
            When::BeforeEnd(time) => {
                let at = last.at_ms.saturating_sub(ms(*time));
                moments.iter().rposition(|m| m.at_ms <= at)
            }
            When::At(time) => moments.iter().rposition(|m| {
                let taken: Result<jiff::Timestamp, _> = m.taken_at.parse();
                taken.is_ok_and(|taken| taken <= *time)
            }),
            When::Mark(name) => match marked(name, &moments) {
                Ok(at) => Some(at),
                Err(why) => return no(why),
            },
        };
        match found {
            Some(at) => Ok(moments.swap_remove(at)),
            None => no(format!(
                "nothing is recorded before {} ({} s after tracing began)",
                first.taken_at,
                first.at_ms as f64 / 1000.0
            )),
        }
    }
}

/// The moment with the latest mark of this name, or with the N-th of those that are recorded when it ends in
/// `#N`. A mark that is itself called so goes first.
fn marked(name: &str, moments: &[Moment]) -> Result<usize, String> {
    if let Some(at) = moments
        .iter()
        .rposition(|m| m.marks.iter().any(|m| m == name))
    {
        return Ok(at);
    }
    let numbered = name
        .rsplit_once('#')
        .and_then(|(name, number)| Some((name, number.parse::<usize>().ok()?)));
    let Some((repeated, number)) = numbered else {
        return Err(no_mark(name, moments));
    };
    // One moment can have several marks of a name.
    let of_name: Vec<usize> = moments
        .iter()
        .enumerate()
        .flat_map(|(at, m)| m.marks.iter().filter(|m| *m == repeated).map(move |_| at))
        .collect();
    let found = number.checked_sub(1).and_then(|at| of_name.get(at));
    match (found, of_name.len()) {
        (Some(at), _) => Ok(*at),
        (None, 0) => Err(no_mark(name, moments)),
        (None, count) => {
            let name = crate::symbolize::printable(repeated);
            Err(format!(
                "mark \"{name}\" was set {}: \"{name}#1\" is the first, \"{name}#{count}\" the last",
                match count {
                    1 => "once".to_owned(),
                    many => format!("{many} times"),
                }
            ))
        }
    }
}

/// How to tell marks of one name apart, when one was set several times.
#[must_use]
pub fn repeated(when: &When, moments: &[Moment]) -> Option<String> {
    let When::Mark(name) = when else { return None };
    let marks = moments.iter().flat_map(|m| &m.marks);
    let count = marks.filter(|m| *m == name).count();
    let name = crate::symbolize::printable(name);
    (count > 1).then(|| {
        format!(
            "mark \"{name}\" was set {count} times, and the latest is meant: \"{name}#1\" is the first, \
             \"{name}#{}\" the one before the last",
            count - 1
        )
    })
}

fn no_mark(name: &str, moments: &[Moment]) -> String {
    let name = crate::symbolize::printable(name);
    let mut known: Vec<String> = Vec::new();
    for mark in moments.iter().flat_map(|m| &m.marks) {
        let mark = format!("\"{}\"", crate::symbolize::printable(mark));
        if known.len() < 10 && !known.contains(&mark) {
            known.push(mark);
        }
    }
    if known.is_empty() {
        return format!("no mark is called \"{name}\": it has no marks; name a time instead");
    }
    format!(
        "no mark is called \"{name}\"; there is {}",
        known.join(", ")
    )
}
