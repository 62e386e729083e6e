//! What the unwind table says about one code address, found before framehop is asked.
//!
//! framehop walks by frame pointers wherever it finds no usable information, silently; it cannot
//! follow expressions that read memory (signal frames, OpenSSL's assembly), and it evaluates
//! expressions without a limit, so that four bytes in a hostile file hang it. So each address is
//! looked at once with gimli: rows that hold only offsets go to framehop, which caches them;
//! everything else is stepped here.

use gimli::{
    CfaRule, DebugFrame, EhFrame, Encoding, Evaluation, EvaluationResult, Expression, LittleEndian,
    Location, RegisterRule, UnwindContext, UnwindSection, UnwindTableRow, Value,
};

use super::arch::{self, PlainRow, Registers};
use super::cfi::{Cfi, Slice};

/// Steps of one expression; real ones have at most ten.
const MAX_EXPRESSION_STEPS: u32 = 256;
/// Bytes of one entry; the largest in real programs are some 100 KiB.
const MAX_ENTRY: usize = 512 << 10;

/// How to leave a function at one of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// The outermost function: it has no return address.
    Root,
    /// Offsets only: framehop's.
    Plain,
    /// Anything else the table says.
    Evaluate,
    /// The table says nothing about this address.
    Uncovered,
    /// The table is broken here.
    Broken,
}

/// Why a step failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepError {
    /// A read of the stack failed (the reader knows where).
    Read,
    /// The table asks for something unknown or impossible.
    Rule,
}

/// One evaluated step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub registers: Registers,
    /// The frame was interrupted, not called: the next address is exact.
    pub signal: bool,
}

type Row = UnwindTableRow<usize>;

/// Finds and evaluates rows; holds gimli's working memory.
#[derive(Default)]
pub(super) struct Rules {
    context: UnwindContext<usize>,
}

impl Rules {
    /// What the tables say about a stated address.
    pub fn classify(&mut self, cfi: &Cfi, address: u64) -> Rule {
        let found = self.with_row(cfi, address, |found| classify(found.row, found.signal));
        match found {
            // framehop is only given .eh_frame.
            Ok((Rule::Plain, false)) => Rule::Evaluate,
            Ok((rule, _)) | Err(rule) => rule,
        }
    }

    /// Leaves the function at a stated address by evaluating its row.
    pub fn step(
        &mut self,
        cfi: &Cfi,
        address: u64,
        registers: &Registers,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
    ) -> Result<Step, StepError> {
        self.with_row(cfi, address, |found| found.step(registers, read))
            .unwrap_or((Err(StepError::Rule), false))
            .0
    }

    /// Runs `use_row` on the row that covers an address; also says whether it is of `.eh_frame`.
    fn with_row<T>(
        &mut self,
        cfi: &Cfi,
        address: u64,
        use_row: impl FnOnce(Found<'_, '_>) -> T,
    ) -> Result<(T, bool), Rule> {
        if let Some(tables) = &cfi.eh
            && let Some(offset) = eh_entry(tables, address)
        {
            let mut section = EhFrame::new(&tables.eh_frame, LittleEndian);
            section.set_address_size(8);
            match self.row_in(&section, &tables.bases, offset, address) {
                Err(Rule::Uncovered) => {}
                Err(rule) => return Err(rule),
                Ok(found) => return Ok((use_row(found), true)),
            }
        }
        let tables = cfi.debug.as_ref().ok_or(Rule::Uncovered)?;
        let after = tables.index.partition_point(|(start, _)| *start <= address);
        let entry = after
            .checked_sub(1)
            .and_then(|i| tables.index.get(i))
            .ok_or(Rule::Uncovered)?;
        let mut section = DebugFrame::new(&tables.data, LittleEndian);
        section.set_address_size(8);
        let found = self.row_in(&section, &tables.bases, entry.1 as usize, address)?;
        Ok((use_row(found), false))
    }

    fn row_in<'c, 'd, S: UnwindSection<Slice<'d>>>(
        &'c mut self,
        section: &S,
        bases: &gimli::BaseAddresses,
        offset: usize,
        address: u64,
    ) -> Result<Found<'c, 'd>, Rule> {
        let fde = section
            .fde_from_offset(bases, S::Offset::from(offset), S::cie_from_offset)
            .map_err(|_| Rule::Broken)?;
        if !fde.contains(address) {
            return Err(Rule::Uncovered);
        }
        if fde.entry_len() > MAX_ENTRY || fde.cie().entry_len() > MAX_ENTRY {
            return Err(Rule::Broken);
        }
        let encoding = fde.cie().encoding();
        let signal = fde.is_signal_trampoline();
        let row = fde
            .unwind_info_for_address(section, bases, &mut self.context, address)
            .map_err(|_| Rule::Broken)?;
        Ok(Found {
            row,
            section: *section.section(),
            encoding,
            signal,
        })
    }
}

/// The offset in `.eh_frame` of the entry that the search table gives for an address.
fn eh_entry(tables: &super::cfi::EhTables, address: u64) -> Option<usize> {
    let header = gimli::EhFrameHdr::new(&tables.header, LittleEndian);
    let header = header.parse(&tables.bases, 8).ok()?;
    let table = header.table()?;
    let pointer = table.lookup(address, &tables.bases).ok()?;
    table.pointer_to_offset(pointer).ok().map(|offset| offset.0)
}

fn classify(row: &Row, signal: bool) -> Rule {
    let ra = row.register(arch::RA);
    if !signal && is_root(ra.as_ref()) {
        return Rule::Root;
    }
    let plain = plain_row(row).filter(arch::is_cacheable);
    if plain.is_some() && !signal {
        Rule::Plain
    } else {
        Rule::Evaluate
    }
}

/// Start routines (`_start`, `clone`) declare their return address undefined. On aarch64 a missing
/// rule means "still in the link register".
fn is_root(ra: Option<&RegisterRule<usize>>) -> bool {
    match ra {
        Some(rule) => *rule == RegisterRule::Undefined,
        None => cfg!(target_arch = "x86_64"),
    }
}

fn plain_row(row: &Row) -> Option<PlainRow> {
    let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
        return None;
    };
    let saved = |register| match row.register(register) {
        None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => Some(None),
        Some(RegisterRule::Offset(offset)) => Some(Some(offset)),
        Some(_) => None,
    };
    Some(PlainRow {
        cfa_register: *register,
        // Nothing near these exists; the limit keeps sums of two from overflowing.
        cfa_offset: (offset.unsigned_abs() < 1 << 40).then_some(*offset)?,
        fp: within_limit(saved(arch::FP)?)?,
        ra: within_limit(saved(arch::RA)?)?,
    })
}

fn within_limit(offset: Option<i64>) -> Option<Option<i64>> {
    offset
        .is_none_or(|o| o.unsigned_abs() < 1 << 40)
        .then_some(offset)
}

/// A row and what is needed to evaluate its expressions.
struct Found<'c, 'd> {
    row: &'c Row,
    section: Slice<'d>,
    encoding: Encoding,
    signal: bool,
}

type Reading<'r> = &'r mut dyn FnMut(u64) -> Result<u64, ()>;

impl<'d> Found<'_, 'd> {
    fn step(&self, from: &Registers, read: Reading<'_>) -> Result<Step, StepError> {
        let cfa = match self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => from
                .by_number(*register)
                .ok_or(StepError::Rule)?
                .wrapping_add(offset.cast_unsigned()),
            CfaRule::Expression(expression) => self.evaluate(expression, None, from, read)?,
        };
        let mut value = |register, unchanged| match self.row.register(register) {
            None => Ok(unchanged),
            Some(rule) => self.register(&rule, cfa, unchanged, from, read),
        };
        let sp = value(arch::SP, cfa)?;
        let fp = value(arch::FP, from.fp)?;
        let ra = value(arch::RA, from.lr)?;
        Ok(Step {
            registers: Registers {
                ip: ra,
                sp,
                fp,
                lr: ra,
            },
            signal: self.signal,
        })
    }

    fn register(
        &self,
        rule: &RegisterRule<usize>,
        cfa: u64,
        unchanged: u64,
        from: &Registers,
        read: Reading<'_>,
    ) -> Result<u64, StepError> {
        let load = |address, read: Reading<'_>| read(address).map_err(|()| StepError::Read);
        match rule {
            RegisterRule::Undefined | RegisterRule::SameValue => Ok(unchanged),
            RegisterRule::Offset(offset) => load(cfa.wrapping_add(offset.cast_unsigned()), read),
            RegisterRule::ValOffset(offset) => Ok(cfa.wrapping_add(offset.cast_unsigned())),
            RegisterRule::Register(other) => from.by_number(*other).ok_or(StepError::Rule),
            RegisterRule::Expression(expression) => {
                let address = self.evaluate(expression, Some(cfa), from, read)?;
                load(address, read)
            }
            RegisterRule::ValExpression(expression) => {
                self.evaluate(expression, Some(cfa), from, read)
            }
            RegisterRule::Constant(value) => Ok(*value),
            _ => Err(StepError::Rule),
        }
    }

    /// Runs an expression; a register's starts with the CFA on its stack.
    fn evaluate(
        &self,
        expression: &gimli::UnwindExpression<usize>,
        initial: Option<u64>,
        registers: &Registers,
        read: Reading<'_>,
    ) -> Result<u64, StepError> {
        let end = expression
            .offset
            .checked_add(expression.length)
            .ok_or(StepError::Rule)?;
        let bytes = self
            .section
            .slice()
            .get(expression.offset..end)
            .ok_or(StepError::Rule)?;
        let code = Expression(Slice::new(bytes, LittleEndian));
        let mut evaluation = Evaluation::new(code.0, self.encoding);
        evaluation.set_max_iterations(MAX_EXPRESSION_STEPS);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut state = evaluation.evaluate().map_err(|_| StepError::Rule)?;
        loop {
            let next = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = registers.by_number(register).ok_or(StepError::Rule)?;
                    evaluation.resume_with_register(Value::Generic(value))
                }
                EvaluationResult::RequiresMemory {
                    address, size: 8, ..
                } => {
                    let value = read(address).map_err(|()| StepError::Read)?;
                    evaluation.resume_with_memory(Value::Generic(value))
                }
                _ => return Err(StepError::Rule),
            };
            state = next.map_err(|_| StepError::Rule)?;
        }
        match evaluation.as_result().last().map(|piece| &piece.location) {
            Some(Location::Address { address }) => Ok(*address),
            _ => Err(StepError::Rule),
        }
    }
}
