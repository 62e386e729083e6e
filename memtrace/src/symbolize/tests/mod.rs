//! Tests of naming: this process's own stacks, stripped and compressed files, hostile ones.

mod files;
mod hostile;
mod own;
