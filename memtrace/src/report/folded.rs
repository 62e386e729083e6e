//! Folded stacks: `process;outermost;…;innermost BYTES`, a stack a line, for flame graph tools.

use super::profile::{Profile, names};

/// Outstanding bytes by stack. Stacks that hold none have no line; equal ones have one each. Tools
/// add lines up, so those have none that may not be ([`super::sums`]).
#[must_use]
pub fn render(profile: &Profile) -> String {
    let mut out = String::new();
    for sample in profile.summed() {
        line(
            &mut out,
            &names::path(profile, sample),
            sample.outstanding_bytes,
        );
    }
    if let Some(rest) = names::not_shown(profile) {
        line(&mut out, &[rest], profile.not_shown.outstanding_bytes);
    }
    out
}

fn line(out: &mut String, path: &[String], bytes: u64) {
    if bytes == 0 {
        return;
    }
    for (at, name) in path.iter().enumerate() {
        if at > 0 {
            out.push(';');
        }
        escape(out, name, at + 1 == path.len());
    }
    out.push_str(&format!(" {bytes}\n"));
}

/// `;` parts frames, so in a name (`[u8; 16]`) it becomes `:`, as in other tools. A name that ends
/// in a number would give the line a second one, which means a difference.
fn escape(out: &mut String, name: &str, last: bool) {
    let name = name.trim().replace(';', ":");
    if name.is_empty() {
        out.push_str("[unknown]");
        return;
    }
    match name.rsplit_once(' ') {
        Some((before, number)) if last && is_number(number) => {
            out.push_str(before);
            out.push('_');
            out.push_str(number);
        }
        // A line that begins so is a comment.
        _ if name.starts_with("# ") => out.push_str(&name.replacen("# ", "#_", 1)),
        _ => out.push_str(&name),
    }
}

fn is_number(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixtures;
    use crate::report::profile::{Series, arbitrary};
    use proptest::prelude::*;

    // Outermost first, bytes last, the remainder included.
    #[test]
    fn golden() {
        let profile = Profile::new(&fixtures::leak(), Series::default());
        insta::assert_snapshot!(render(&profile));
    }

    // Names made to break the format.
    #[test]
    fn golden_hostile() {
        let mut report = fixtures::hostile();
        report.stacks[1].frames[0].function = Some("<[u8; 16] as X>::f 12".to_owned());
        report.stacks[1].frames[1].function = Some("a\nb;c 5 6\0</script>".to_owned());
        let profile = Profile::new(&report, Series::default());
        insta::assert_snapshot!(render(&profile));
    }

    proptest! {
        // Whatever the names, a line is a stack of the right depth, and the bytes add up.
        #[test]
        fn sums(profile in arbitrary::profile()) {
            let text = render(&profile);
            let mut sum = 0_u64;
            let with_bytes = profile.summed().filter(|s| s.outstanding_bytes > 0);
            let mut samples = with_bytes;
            for line in text.lines() {
                let (stack, bytes) = line.rsplit_once(' ').unwrap();
                sum += bytes.parse::<u64>().unwrap();
                let before = stack.rsplit_once(' ').map_or("", |(_, word)| word);
                prop_assert!(before.is_empty() || !is_number(before), "{line}");
                if let Some(sample) = samples.next() {
                    let depth = names::path(&profile, sample).len();
                    prop_assert_eq!(stack.split(';').count(), depth);
                }
            }
            prop_assert_eq!(sum, profile.outstanding_bytes());
        }
    }
}
