//! Allocators in an object: which of its functions allocate and free, and how they are called (R16).
//!
//! One object can hold several: a static musl program with jemalloc beside it, for instance.
//! Functions are found by exact name, so that internals with a name alike (`_rjem_je_*`,
//! `__libc_malloc_impl`) are no entries; every address is taken once (R8).

mod custom;
mod names;

use std::collections::{BTreeMap, BTreeSet};

use memtrace_common::Function;

pub use custom::{CustomError, CustomFunctions};

use super::object::{Binding, FoundSymbols, Object, ObjectError, Symbol, SymbolKind, Wanted};

/// Who made an allocator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// The GNU C library.
    Glibc,
    /// musl.
    Musl,
    /// jemalloc, under any prefix.
    Jemalloc,
    /// gperftools' or Google's tcmalloc.
    Tcmalloc,
    /// mimalloc.
    Mimalloc,
    /// Something else that defines `malloc` (scudo, an interposer, a program's own).
    Other,
    /// Named by the user (R17).
    Custom,
}

impl Family {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
            Self::Jemalloc => "jemalloc",
            Self::Tcmalloc => "tcmalloc",
            Self::Mimalloc => "mimalloc",
            Self::Other => "other",
            Self::Custom => "custom",
        }
    }
}

/// An entry of an allocator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundFunction {
    /// Every name of this address, the family's usual one first.
    pub names: Vec<String>,
    /// How it is called.
    pub function: Function,
    /// Whose it is.
    pub family: Family,
    /// Offset in the file.
    pub file_offset: u64,
    /// Address in the object's own numbering.
    pub address: u64,
    /// Size in bytes, 0 when unknown.
    pub size: u64,
}

/// The allocators of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocators {
    /// Families, in order; more than one in static programs.
    pub families: Vec<Family>,
    /// Their entries, by rising file offset.
    pub functions: Vec<FoundFunction>,
    /// Functions that such an allocator usually has and this one does not.
    pub missing: Vec<String>,
    /// Things to know, for people.
    pub notes: Vec<String>,
    /// The object has `.symtab`, so that nothing was hidden by stripping.
    pub has_symtab: bool,
}

/// Finds the allocators of an object. An object without any gives no functions and no families.
pub fn find(object: &Object, custom: &CustomFunctions) -> Result<Allocators, ObjectError> {
    let mut prefixes = names::JEMALLOC_PREFIXES
        .iter()
        .map(ToString::to_string)
        .collect();
    let mut found = object.find_symbols(&wanted(custom, &prefixes))?;
    let detected = jemalloc_prefixes(&found);
    if !detected.is_subset(&prefixes) {
        prefixes.extend(detected.iter().cloned());
        found = object.find_symbols(&wanted(custom, &prefixes))?;
    }
    let search = Search {
        object,
        names: by_name(&found.symbols),
        detected,
    };
    let mut allocators = if is_loader(object) {
        search.loader()
    } else {
        search.run(custom)
    };
    allocators.has_symtab = found.has_symtab;
    if found.truncated {
        allocators
            .notes
            .push("more symbols than memtrace reads; some were left out".to_owned());
    }
    Ok(allocators)
}

/// All names worth looking up.
fn wanted(custom: &CustomFunctions, jemalloc_prefixes: &BTreeSet<String>) -> Wanted {
    let mut wanted = Wanted::names(
        names::OPERATORS
            .iter()
            .chain(names::TCMALLOC)
            .chain(names::MIMALLOC)
            .map(|(name, _)| *name)
            .chain(names::MARKERS.iter().copied())
            .chain(names::MIMALLOC_NOT_MEASURED.iter().copied())
            .chain(custom.names()),
    );
    let prefixes = jemalloc_prefixes
        .iter()
        .map(String::as_str)
        .chain(custom.prefixes());
    for prefix in prefixes.chain([""]) {
        for (name, _) in names::STANDARD.iter().chain(names::JEMALLOC) {
            wanted.add(&format!("{prefix}{name}"));
        }
    }
    wanted.add_ending(names::JEMALLOC_MARKER);
    wanted
}

/// What stands before jemalloc's own public names in this object.
fn jemalloc_prefixes(found: &FoundSymbols) -> BTreeSet<String> {
    found
        .symbols
        .iter()
        .filter_map(|s| s.name.strip_suffix(names::JEMALLOC_MARKER))
        // jemalloc's own internals can carry the public name behind a second prefix.
        .filter(|prefix| !prefix.ends_with("_je_"))
        .map(str::to_owned)
        .collect()
}

/// glibc's dynamic loader. Its minimal malloc serves the loader before the C library is ready and
/// is replaced by the C library's; nothing it gives is ever freed to another allocator.
fn is_loader(object: &Object) -> bool {
    object
        .soname()
        .is_some_and(|n| n.starts_with("ld-linux") || n.starts_with("ld64.so"))
}

type ByName<'a> = BTreeMap<&'a str, Vec<&'a Symbol>>;

fn by_name(symbols: &[Symbol]) -> ByName<'_> {
    let mut names: ByName<'_> = BTreeMap::new();
    for symbol in symbols {
        names.entry(&symbol.name).or_default().push(symbol);
    }
    names
}

/// One search in one object.
struct Search<'a> {
    object: &'a Object,
    names: ByName<'a>,
    /// jemalloc's prefixes.
    detected: BTreeSet<String>,
}

/// What is collected on the way.
#[derive(Default)]
struct Collected {
    functions: BTreeMap<u64, FoundFunction>,
    families: BTreeSet<Family>,
    missing: Vec<String>,
    notes: Vec<String>,
}

impl Search<'_> {
    fn loader(&self) -> Allocators {
        let mut allocators = Allocators::default();
        if self.has("malloc") || self.has("__minimal_malloc") {
            allocators.notes.push(
                "the dynamic loader's own malloc, used before the C library is ready: not probed"
                    .to_owned(),
            );
        }
        allocators
    }

    fn run(&self, custom: &CustomFunctions) -> Allocators {
        let mut out = Collected::default();
        for (name, function) in &custom.functions {
            self.take(&mut out, name, *function, Family::Custom, true);
        }
        for prefix in custom.prefixes() {
            let family = if self.detected.contains(prefix) {
                Family::Jemalloc
            } else {
                Family::Custom
            };
            self.take_prefixed(&mut out, prefix, family);
        }
        for prefix in self.detected.iter().filter(|p| !p.is_empty()) {
            self.take_prefixed(&mut out, prefix, Family::Jemalloc);
        }
        // Stripped of its marker, a prefixed jemalloc is still known by its prefix.
        for prefix in names::JEMALLOC_PREFIXES {
            if !self.detected.contains(*prefix) && self.has(&format!("{prefix}malloc")) {
                self.take_prefixed(&mut out, prefix, Family::Jemalloc);
            }
        }
        if let Some(owner) = self.owner() {
            self.take_standard(&mut out, owner);
        }
        self.take_table(&mut out, names::TCMALLOC, Family::Tcmalloc);
        self.take_table(&mut out, names::MIMALLOC, Family::Mimalloc);
        if out.families.contains(&Family::Mimalloc) {
            self.note_missing(&mut out, "mi_", Family::Mimalloc);
        }
        if out.families.iter().any(|f| names::has_operators(*f)) {
            let family = self.owner().filter(|f| names::has_operators(*f));
            let first = out
                .families
                .iter()
                .copied()
                .find(|f| names::has_operators(*f));
            if let Some(family) = family.or(first) {
                self.take_table(&mut out, names::OPERATORS, family);
            }
        }
        self.note_unmeasured(&mut out);
        Allocators {
            families: out.families.into_iter().collect(),
            functions: out.functions.into_values().collect(),
            missing: out.missing,
            notes: out.notes,
            has_symtab: false,
        }
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whose `malloc`, `free` and so on, without a prefix, are.
    fn owner(&self) -> Option<Family> {
        let plain = |name: &str| self.names.get(name).into_iter().flatten();
        if self.detected.contains("") {
            return Some(Family::Jemalloc);
        }
        let same =
            |other: &str| plain("malloc").any(|m| plain(other).any(|o| o.address == m.address));
        if same("tc_malloc") || same("TCMallocInternalMalloc") {
            return Some(Family::Tcmalloc);
        }
        if same("mi_malloc") {
            return Some(Family::Mimalloc);
        }
        if names::GLIBC_MARKERS.iter().any(|m| self.has(m)) {
            return Some(Family::Glibc);
        }
        let named_musl = self.object.soname().is_some_and(|n| n.contains("musl"));
        if named_musl || names::MUSL_MARKERS.iter().any(|m| self.has(m)) {
            return Some(Family::Musl);
        }
        // A local `malloc` or a lone `free` can be anything.
        let visible = |name: &str| plain(name).any(|s| s.binding != Binding::Local);
        (visible("malloc") && visible("free")).then_some(Family::Other)
    }

    fn take_standard(&self, out: &mut Collected, owner: Family) {
        let local = owner != Family::Other;
        for (name, function) in names::STANDARD {
            // musl's own __libc_malloc serves the library's inner needs and is no user's entry.
            if owner == Family::Musl && name.starts_with("__") {
                continue;
            }
            self.take(out, name, *function, owner, local);
        }
        if owner == Family::Jemalloc {
            self.take_table(out, names::JEMALLOC, owner);
        }
        if out.families.contains(&owner) && owner != Family::Mimalloc {
            self.note_missing(out, "", owner);
        }
    }

    fn take_prefixed(&self, out: &mut Collected, prefix: &str, family: Family) {
        for (name, function) in names::STANDARD.iter().chain(names::JEMALLOC) {
            self.take(out, &format!("{prefix}{name}"), *function, family, true);
        }
        if out.families.contains(&family) {
            self.note_missing(out, prefix, family);
        }
    }

    fn take_table(&self, out: &mut Collected, table: &[(&str, Function)], family: Family) {
        for (name, function) in table {
            self.take(out, name, *function, family, true);
        }
    }

    /// Takes every address of a name, unless it is known already (then only the name is added).
    fn take(
        &self,
        out: &mut Collected,
        name: &str,
        function: Function,
        family: Family,
        accept_local: bool,
    ) {
        let Some(symbols) = self.names.get(name) else {
            return;
        };
        let visible = symbols.iter().any(|s| s.binding != Binding::Local);
        if !visible && !accept_local {
            return;
        }
        let addresses: BTreeSet<u64> = symbols
            .iter()
            .filter(|s| !visible || s.binding != Binding::Local)
            .map(|s| s.address)
            .collect();
        if !visible && addresses.len() > 1 {
            out.notes.push(format!(
                "{} functions are called {name}: none is probed",
                addresses.len()
            ));
            return;
        }
        for address in addresses {
            let Some(symbol) = symbols.iter().find(|s| s.address == address) else {
                continue;
            };
            if symbol.kind == SymbolKind::Indirect {
                out.notes
                    .push(format!("{name} is chosen at load time (IFUNC): not probed"));
                continue;
            }
            let Some(file_offset) = self.object.offset_of(address) else {
                continue;
            };
            out.families.insert(family);
            let entry = out
                .functions
                .entry(file_offset)
                .or_insert_with(|| FoundFunction {
                    names: Vec::new(),
                    function,
                    family,
                    file_offset,
                    address,
                    size: symbol.size,
                });
            if !entry.names.iter().any(|n| n == name) {
                entry.names.push(name.to_owned());
            }
        }
    }

    fn note_missing(&self, out: &mut Collected, prefix: &str, family: Family) {
        let missing = names::expected(family)
            .iter()
            .map(|name| format!("{prefix}{name}"))
            .filter(|name| !self.has(name));
        for name in missing.collect::<Vec<_>>() {
            if !out.missing.contains(&name) {
                out.missing.push(name);
            }
        }
    }

    fn note_unmeasured(&self, out: &mut Collected) {
        let found: Vec<&str> = names::MIMALLOC_NOT_MEASURED
            .iter()
            .copied()
            .filter(|name| self.has(name))
            .collect();
        if let (Some(first), true) = (found.first(), out.families.contains(&Family::Mimalloc)) {
            let more = match found.len() - 1 {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            out.notes.push(format!(
                "blocks that the program gets by calling {first}{more} directly are not counted"
            ));
        }
    }
}

/// True for a function that gives a block: it needs a return probe. One that only frees does not.
#[must_use]
pub const fn needs_return(function: Function) -> bool {
    !matches!(
        function,
        Function::Free0
            | Function::Free1
            | Function::Free2
            | Function::Free3
            | Function::Free4
            | Function::Free5
    )
}

#[cfg(test)]
mod tests;
