//! Function names that are too long for their column: template arguments and parameters go first.

use std::borrow::Cow;

use crate::report::layout::{shorten_middle, width};

/// A function's name in at most so many columns. `Cache<Key, Value>::insert(Key const&)` becomes
/// `Cache<Key, Value>::insert(…)`, then `Cache<…>::insert(…)`, then `…::insert(…)`, and at last it is
/// cut in its middle.
pub(crate) fn fit_name(name: &str, columns: usize) -> Cow<'_, str> {
    if width(name) <= columns {
        return Cow::Borrowed(name);
    }
    let Some(bare) = without(name, '(', ')') else {
        return shorten_middle(name, columns);
    };
    if width(&bare) <= columns {
        return Cow::Owned(bare);
    }
    let bare = without(&bare, '<', '>').unwrap_or(bare);
    if width(&bare) <= columns {
        return Cow::Owned(bare);
    }
    // Then the namespaces: what the function is called says most.
    let unqualified = bare.match_indices("::").find_map(|(at, _)| {
        let short = format!("…{}", bare.get(at..)?);
        (width(&short) <= columns).then_some(short)
    });
    Cow::Owned(unqualified.unwrap_or_else(|| shorten_middle(&bare, columns).into_owned()))
}

/// With `…` for what stands between outermost brackets; `None` when they do not match.
///
/// Brackets stay that belong to a name: `operator()`, `operator<<`, `(anonymous namespace)`,
/// `{lambda(int)#1}` and Rust's `<T as Trait>::f`, which begin a name instead of following one.
fn without(name: &str, open: char, close: char) -> Option<String> {
    let mut out = String::new();
    let mut depth = 0_usize;
    let mut before = ' ';
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(operator) = operator(rest, before) {
            if depth == 0 {
                out.push_str(operator);
            }
            rest = rest.get(operator.len()..)?;
            before = 'r';
            continue;
        }
        rest = rest.get(c.len_utf8()..)?;
        // `app::(anonymous namespace)` is a name; `Vec::<T>` has arguments.
        let follows_name = before.is_alphanumeric()
            || matches!(before, '_' | '>' | '}')
            || (before == ':' && c == '<')
            // `operator[](int)`, `operator+=(int)`.
            || (c == '(' && matches!(before, ']' | '=' | '+' | '-' | '*' | '/' | '%' | '!' | '&' | '|' | '^' | '~'));
        if c == open && (depth > 0 || follows_name) {
            if depth == 0 {
                out.push(open);
                out.push('…');
            }
            depth += 1;
        } else if c == close && depth > 0 && before != '-' {
            depth -= 1;
            if depth == 0 {
                out.push(close);
            }
        } else if depth == 0 {
            out.push(c);
        }
        before = c;
    }
    (depth == 0).then_some(out)
}

/// The operator's name with which a text begins, behind something that ends no other name.
fn operator(text: &str, before: char) -> Option<&str> {
    let rest = text.strip_prefix("operator")?;
    if before.is_alphanumeric() || before == '_' {
        return None;
    }
    const SIGNS: [&str; 9] = ["()", "<<=", ">>=", "<=>", "->*", "<<", ">>", "->", "<="];
    let sign = SIGNS
        .into_iter()
        .chain([">=", "<", ">"])
        .find(|sign| rest.starts_with(sign))?;
    text.get(.."operator".len() + sign.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Parameters go first, then template arguments; what tells one name from another stays.
    #[test]
    fn long_names() {
        for (name, columns, short) in [
            ("short(int)", 20, "short(int)"),
            (
                "Cache<Key, Value>::insert(Key const&)",
                30,
                "Cache<Key, Value>::insert(…)",
            ),
            (
                "Cache<Key, Value>::insert(Key const&)",
                25,
                "Cache<…>::insert(…)",
            ),
            ("Cache<Key, Value>::insert(Key const&)", 14, "…::insert(…)"),
            (
                "app::each<main::{lambda(int)#1}>(main::{lambda(int)#1})",
                30,
                "app::each<…>(…)",
            ),
            (
                "std::map<int, std::less<int> >::operator[](int const&)",
                30,
                "std::map<…>::operator[](…)",
            ),
            (
                "Stream<char>& operator<< <char>(Stream<char>&, char const*)",
                30,
                "Stream<…>& operator<< <char>(…)",
            ),
            (
                "Call<int>::operator()(int, int, int) const",
                32,
                "Call<int>::operator()(…) const",
            ),
            (
                "app::(anonymous namespace)::handler(std::string const&)",
                40,
                "app::(anonymous namespace)::handler(…)",
            ),
            (
                "<alloc::vec::Vec<Tree> as core::clone::Clone>::clone",
                49,
                "<alloc::vec::Vec<…> as core::clone::Clone>::clone",
            ),
        ] {
            let columns = columns.max(width(short));
            assert_eq!(fit_name(name, columns), short, "{name}");
        }
        // Brackets that do not match are cut like any text.
        assert_eq!(fit_name("broken<name(int", 9), "brok…(int");
    }

    proptest! {
        /// Whatever the name, it fits.
        #[test]
        fn fits(name in "[a-z<>():, …-]{0,60}|(operator|[<>()-]){0,20}", columns in 1_usize..50) {
            prop_assert!(width(&fit_name(&name, columns)) <= columns);
        }
    }
}
