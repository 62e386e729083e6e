//! The user's own allocators.

use memtrace_common::Function;

/// Why a custom function cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CustomError {
    /// There are six argument registers.
    #[error(
        "{name}: argument {argument} does not exist or is not passed in a register; count from 0 to 5"
    )]
    Argument {
        /// Function.
        name: String,
        /// Number given.
        argument: u8,
    },
    /// Not a possible symbol name.
    #[error("{name:?} is not a symbol name: give the name that `nm` prints, 2 to 255 bytes long")]
    Name {
        /// Name given.
        name: String,
    },
}

/// The user's own allocators (R17), looked for in every object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CustomFunctions {
    pub(super) functions: Vec<(String, Function)>,
    prefixes: Vec<String>,
}

impl CustomFunctions {
    /// A function that allocates: argument `size_argument`, counted from 0, is the size in bytes,
    /// and the result is the block.
    pub fn add_alloc(&mut self, name: &str, size_argument: u8) -> Result<(), CustomError> {
        let function = match size_argument {
            0 => Function::Size0,
            1 => Function::Size1,
            2 => Function::Size2,
            3 => Function::Size3,
            4 => Function::Size4,
            5 => Function::Size5,
            argument => {
                return Err(CustomError::Argument {
                    name: name.into(),
                    argument,
                });
            }
        };
        self.add(name, function)
    }

    /// A function that frees: argument `pointer_argument`, counted from 0, is the block.
    pub fn add_free(&mut self, name: &str, pointer_argument: u8) -> Result<(), CustomError> {
        let function = match pointer_argument {
            0 => Function::Free0,
            1 => Function::Free1,
            2 => Function::Free2,
            3 => Function::Free3,
            4 => Function::Free4,
            5 => Function::Free5,
            argument => {
                return Err(CustomError::Argument {
                    name: name.into(),
                    argument,
                });
            }
        };
        self.add(name, function)
    }

    /// A prefix of the standard names: `je_` finds `je_malloc`, `je_free` and so on.
    pub fn add_prefix(&mut self, prefix: &str) -> Result<(), CustomError> {
        if prefix.is_empty() || prefix.len() > 200 || prefix.contains('\0') {
            return Err(CustomError::Name {
                name: prefix.into(),
            });
        }
        self.prefixes.push(prefix.to_owned());
        Ok(())
    }

    /// The functions' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.functions.iter().map(|(name, _)| name.as_str())
    }

    /// The prefixes.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(String::as_str)
    }

    fn add(&mut self, name: &str, function: Function) -> Result<(), CustomError> {
        if name.len() < 2 || name.len() > 255 || name.contains('\0') {
            return Err(CustomError::Name { name: name.into() });
        }
        self.functions.push((name.to_owned(), function));
        Ok(())
    }
}
