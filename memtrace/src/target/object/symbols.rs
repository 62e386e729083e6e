//! Finding symbols by name in tables of any size with little memory.
//!
//! The string table is streamed first, to learn at which offsets the wanted names stand (a name
//! can be the tail of a longer one: linkers merge them), then the symbol table is streamed to see
//! who uses those offsets. So a browser's symbol table needs no more memory than a small one.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use object::elf;

use super::headers::find;
use super::{Object, ObjectError, u16_at, u32_at, u64_at};

/// Bytes read in one piece.
const CHUNK: u64 = 1 << 20;
/// Bytes of one symbol or string table read at most.
const TABLE_CAP: u64 = 1 << 30;
/// Symbols found at most in one object: hostile tables can name one function a million times.
const FOUND_CAP: usize = 8192;
/// Longest name that can be wanted.
const NAME_MAX: usize = 256;

/// How a symbol is bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binding {
    /// `STB_GLOBAL`, also hidden ones.
    Global,
    /// `STB_WEAK`
    Weak,
    /// `STB_LOCAL` and anything unknown.
    Local,
}

/// What a symbol stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SymbolKind {
    /// `STT_FUNC`, and untyped symbols in code (assembly).
    Function,
    /// `STT_GNU_IFUNC`: the address is a resolver's, not the function's.
    Indirect,
}

/// A defined function symbol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name without version.
    pub name: String,
    /// Address in the object's own numbering.
    pub address: u64,
    /// Size in bytes, as the table says or up to the next symbol; 0 when unknown.
    pub size: u64,
    /// Kind.
    pub kind: SymbolKind,
    /// Binding.
    pub binding: Binding,
    /// Found in the dynamic symbol table.
    pub dynamic: bool,
}

/// Names to look for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    names: HashSet<Vec<u8>>,
    /// Endings that are wanted with anything in front of them.
    endings: Vec<Vec<u8>>,
    lengths: Vec<usize>,
    last_two: HashSet<[u8; 2]>,
}

impl Wanted {
    /// Exactly these names. Names shorter than two bytes or longer than 255 are never found.
    pub fn names<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut wanted = Self::default();
        for name in names {
            wanted.add(name);
        }
        wanted
    }

    /// One more name.
    pub fn add(&mut self, name: &str) {
        let bytes = name.as_bytes();
        if let [.., a, b] = bytes
            && bytes.len() < NAME_MAX
            && !bytes.contains(&0)
        {
            self.last_two.insert([*a, *b]);
            if let Err(at) = self.lengths.binary_search(&bytes.len()) {
                self.lengths.insert(at, bytes.len());
            }
            self.names.insert(bytes.to_vec());
        }
    }

    /// Every whole name that ends so.
    pub fn add_ending(&mut self, ending: &str) {
        if let [.., a, b] = ending.as_bytes() {
            self.last_two.insert([*a, *b]);
            self.endings.push(ending.as_bytes().to_vec());
        }
    }

    /// Calls `found` with the start of every wanted name in a string of the table.
    fn scan(&self, string: &[u8], mut found: impl FnMut(usize, &[u8])) {
        let [.., a, b] = string else { return };
        if !self.last_two.contains(&[*a, *b]) {
            return;
        }
        for length in &self.lengths {
            let Some(start) = string.len().checked_sub(*length) else {
                break;
            };
            if let Some(tail) = string.get(start..)
                && self.names.contains(tail)
            {
                found(start, tail);
            }
        }
        if string.len() < NAME_MAX && self.endings.iter().any(|e| string.ends_with(e)) {
            found(0, string);
        }
    }
}

/// What was found, and what the tables were like.
#[derive(Clone, Debug, Default)]
pub struct FoundSymbols {
    /// The symbols, in table order, dynamic first.
    pub symbols: Vec<Symbol>,
    /// The object has a `.symtab` (it is not stripped).
    pub has_symtab: bool,
    /// The object has dynamic symbols.
    pub has_dynsym: bool,
    /// More than a bounded number was found; the rest was left out.
    pub truncated: bool,
}

/// Where a symbol table and its strings are in the file.
#[derive(Clone, Copy)]
struct Table {
    symbols: (u64, u64),
    strings: (u64, u64),
    dynamic: bool,
}

/// Size of `Elf64_Sym`.
const ENTRY_SIZE: usize = 24;

/// An `Elf64_Sym`.
struct RawSymbol {
    name: u32,
    info: u8,
    section: u16,
    value: u64,
    size: u64,
}

impl RawSymbol {
    fn parse(entry: &[u8]) -> Self {
        Self {
            name: u32_at(entry, 0),
            info: entry.get(4).copied().unwrap_or(0),
            section: u16_at(entry, 6),
            value: u64_at(entry, 8),
            size: u64_at(entry, 16),
        }
    }
}

impl Object {
    /// Finds defined functions by name in `.dynsym` and `.symtab`.
    ///
    /// Works without section headers too (then by the dynamic section). One broken table does
    /// not hide the other; an error is returned only when nothing could be read.
    pub fn find_symbols(&self, wanted: &Wanted) -> Result<FoundSymbols, ObjectError> {
        let mut found = FoundSymbols::default();
        let mut failure = None;
        let tables = self.symbol_tables();
        for table in &tables {
            if table.dynamic {
                found.has_dynsym = true;
            } else {
                found.has_symtab = true;
            }
            if let Err(error) = self.search(table, wanted, &mut found) {
                failure = Some(error);
            }
        }
        if let (Some(error), true) = (failure, found.symbols.is_empty()) {
            return Err(error);
        }
        self.fill_sizes(&tables, &mut found);
        Ok(found)
    }

    fn symbol_tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        for (kind, dynamic) in [(elf::SHT_DYNSYM, true), (elf::SHT_SYMTAB, false)] {
            let Some(symbols) = self.sections.iter().find(|s| s.kind == kind) else {
                continue;
            };
            let Some(strings) = self.sections.get(symbols.link as usize) else {
                continue;
            };
            tables.push(Table {
                symbols: (symbols.offset, symbols.size),
                strings: (strings.offset, strings.size),
                dynamic,
            });
        }
        if !tables.iter().any(|t| t.dynamic) {
            tables.extend(self.dynamic_table());
        }
        tables
    }

    /// The dynamic symbol table without section headers. Its length is nowhere: strings follow
    /// symbols in every linker's layout, so it ends there at the latest.
    fn dynamic_table(&self) -> Option<Table> {
        let entries = self.dynamic();
        let symbols = self.offset_of(find(&entries, elf::DT_SYMTAB)?)?;
        let strings = self.offset_of(find(&entries, elf::DT_STRTAB)?)?;
        let strings_size = find(&entries, elf::DT_STRSZ)?;
        let size = strings.checked_sub(symbols)?;
        Some(Table {
            symbols: (symbols, size),
            strings: (strings, strings_size),
            dynamic: true,
        })
    }

    fn search(
        &self,
        table: &Table,
        wanted: &Wanted,
        found: &mut FoundSymbols,
    ) -> Result<(), ObjectError> {
        let names = self.name_offsets(table, wanted)?;
        if names.is_empty() {
            return Ok(());
        }
        self.each_symbol(table, |symbol| {
            let Some(name) = names.get(&symbol.name) else {
                return ControlFlow::Continue(());
            };
            if found.symbols.len() >= FOUND_CAP {
                found.truncated = true;
                return ControlFlow::Break(());
            }
            found
                .symbols
                .extend(self.accept(symbol, name, table.dynamic));
            ControlFlow::Continue(())
        })
    }

    /// A defined function in code, else nothing.
    fn accept(&self, symbol: &RawSymbol, name: &str, dynamic: bool) -> Option<Symbol> {
        let address = symbol.value;
        let kind = match symbol.info & 0xf {
            elf::STT_FUNC | elf::STT_NOTYPE => SymbolKind::Function,
            elf::STT_GNU_IFUNC => SymbolKind::Indirect,
            _ => return None,
        };
        if symbol.section == elf::SHN_UNDEF || !self.is_code(address) {
            return None;
        }
        let binding = match symbol.info >> 4 {
            elf::STB_GLOBAL | elf::STB_GNU_UNIQUE => Binding::Global,
            elf::STB_WEAK => Binding::Weak,
            _ => Binding::Local,
        };
        let size = symbol.size;
        Some(Symbol {
            name: name.to_owned(),
            address,
            size,
            kind,
            binding,
            dynamic,
        })
    }

    /// String table offsets at which wanted names start.
    fn name_offsets(
        &self,
        table: &Table,
        wanted: &Wanted,
    ) -> Result<HashMap<u32, String>, ObjectError> {
        /// Offsets kept at most.
        const OFFSETS_CAP: usize = 65_536;
        let mut names = HashMap::new();
        let (start, size) = self.bounded(table.strings, "the string table")?;
        // The string that a piece ends in is carried over to the next, cut to the longest name.
        let mut carried: Vec<u8> = Vec::new();
        let mut position = 0;
        while position < size {
            let chunk = self.read_at(start + position, CHUNK.min(size - position))?;
            let mut piece_start = position;
            for piece in chunk.split_inclusive(|&b| b == 0) {
                let piece_end = piece_start + piece.len() as u64;
                if let Some(end) = piece.strip_suffix(&[0]) {
                    let whole;
                    let string = if carried.is_empty() {
                        end
                    } else {
                        carried.extend(end);
                        whole = std::mem::take(&mut carried);
                        &whole
                    };
                    let string_start = (piece_end - 1) - string.len() as u64;
                    wanted.scan(string, |at, name| {
                        if names.len() < OFFSETS_CAP
                            && let Ok(offset) = u32::try_from(string_start + at as u64)
                        {
                            names.insert(offset, String::from_utf8_lossy(name).into_owned());
                        }
                    });
                } else {
                    carried.extend(piece);
                    let excess = carried.len().saturating_sub(NAME_MAX);
                    carried.drain(..excess);
                }
                piece_start = piece_end;
            }
            position += chunk.len() as u64;
        }
        Ok(names)
    }

    /// Streams a symbol table.
    fn each_symbol(
        &self,
        table: &Table,
        mut visit: impl FnMut(&RawSymbol) -> ControlFlow<()>,
    ) -> Result<(), ObjectError> {
        const ENTRY: u64 = ENTRY_SIZE as u64;
        const PIECE: u64 = CHUNK / ENTRY * ENTRY;
        let (start, size) = self.bounded(table.symbols, "the symbol table")?;
        let size = size / ENTRY * ENTRY;
        let mut position = 0;
        while position < size {
            let bytes = self.read_at(start + position, PIECE.min(size - position))?;
            for entry in bytes.chunks_exact(ENTRY_SIZE) {
                if visit(&RawSymbol::parse(entry)).is_break() {
                    return Ok(());
                }
            }
            position += bytes.len() as u64;
        }
        Ok(())
    }

    /// A range of the file that is small enough to stream.
    fn bounded(&self, (offset, size): (u64, u64), what: &str) -> Result<(u64, u64), ObjectError> {
        if size > TABLE_CAP {
            let (path, what) = (self.path.clone(), what.to_owned());
            return Err(ObjectError::TooLarge {
                path,
                what,
                size,
                cap: TABLE_CAP,
            });
        }
        if offset.checked_add(size).is_none_or(|end| end > self.length) {
            return Err(self.malformed("a symbol table lies behind the end of the file"));
        }
        Ok((offset, size))
    }

    /// Gives symbols without a size (assembly) the space up to the next symbol or segment end.
    fn fill_sizes(&self, tables: &[Table], found: &mut FoundSymbols) {
        let mut ends: HashMap<u64, u64> = HashMap::new();
        for symbol in found.symbols.iter().filter(|s| s.size == 0) {
            let segment = self.segments().find(|s| {
                symbol
                    .address
                    .checked_sub(s.address)
                    .is_some_and(|inside| inside < s.file_size)
            });
            let end = segment.and_then(|s| s.address.checked_add(s.file_size));
            ends.insert(symbol.address, end.unwrap_or(symbol.address));
        }
        if ends.is_empty() {
            return;
        }
        let mut starts: Vec<u64> = ends.keys().copied().collect();
        starts.sort_unstable();
        for table in tables {
            // A table that cannot be read leaves the segment's end.
            let _ = self.each_symbol(table, |symbol| {
                let value = symbol.value;
                let before = starts.partition_point(|s| *s < value);
                if symbol.section != elf::SHN_UNDEF
                    && let Some(start) = before.checked_sub(1).and_then(|i| starts.get(i))
                    && let Some(end) = ends.get_mut(start)
                {
                    *end = value.min(*end);
                }
                ControlFlow::Continue(())
            });
        }
        for symbol in found.symbols.iter_mut().filter(|s| s.size == 0) {
            symbol.size = ends
                .get(&symbol.address)
                .map_or(0, |end| end - symbol.address);
        }
    }
}
