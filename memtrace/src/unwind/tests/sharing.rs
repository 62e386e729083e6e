//! What is shared between processes, capped, and given back.

use std::fs::File;
use std::sync::Arc;

use super::program::Program;
use super::support::{SPACE, own_mappings, own_unwinder};
use crate::id::{SpaceId, StackId};
use crate::unwind::*;

fn stack(seed: u64, depth: u64) -> UnwoundStack {
    UnwoundStack {
        frames: (0..depth).map(|i| seed * 1000 + i).collect(),
        incomplete: None,
    }
}

/// A stack has one id; another ending of the same frames is another stack.
#[test]
fn stacks_are_interned() {
    let mut table = StackTable::default();
    let id = table.intern(&stack(1, 10)).unwrap();
    assert_eq!(table.intern(&stack(1, 10)), Some(id));
    let cut = UnwoundStack {
        incomplete: Some(Incomplete::CopyTooShort),
        ..stack(1, 10)
    };
    assert_ne!(table.intern(&cut), Some(id));
    assert_eq!(table.get(id), Some(&stack(1, 10)));
    assert_eq!((table.len(), table.frames()), (2, 20));
    assert_eq!(table.get(StackId(99)), None);
}

/// A full table refuses new stacks and counts them; known ones keep their ids.
#[test]
fn full_table_counts_what_it_refuses() {
    let mut table = StackTable::new(StackTableLimits {
        stacks: 3,
        frames: 100,
    });
    let ids: Vec<_> = (0..3)
        .map(|n| table.intern(&stack(n, 10)).unwrap())
        .collect();
    assert_eq!(table.intern(&stack(9, 1)), None);
    assert_eq!(table.intern(&stack(1, 10)), Some(ids[1]));
    assert_eq!(table.refused(), 1);
    let mut table = StackTable::new(StackTableLimits {
        stacks: 99,
        frames: 15,
    });
    assert!(table.intern(&stack(1, 10)).is_some());
    assert_eq!((table.intern(&stack(2, 10)), table.refused()), (None, 1));
}

/// What is no longer wanted makes room, and its id is not given to another stack.
#[test]
fn retain_gives_back() {
    let mut table = StackTable::new(StackTableLimits {
        stacks: 2,
        frames: 100,
    });
    let (old, kept) = (
        table.intern(&stack(1, 10)).unwrap(),
        table.intern(&stack(2, 10)).unwrap(),
    );
    table.retain(|id| id == kept);
    assert_eq!((table.len(), table.frames(), table.get(old)), (1, 10, None));
    let new = table.intern(&stack(1, 10)).unwrap();
    assert!(new != old && new != kept);
}

/// Thirty processes that map the same files cost one copy of the tables.
#[test]
fn tables_are_shared_by_identity() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer"]) else {
        return;
    };
    let run = program.run(&["1"]);
    let mut unwinder = Unwinder::default();
    let mut counters = None;
    for space in 0..30 {
        // Every process opens its own files: the store is not what shares them.
        unwinder.update_modules(SpaceId(space), &run.opened_again());
        let stack = unwinder.unwind(SpaceId(space), &run.captured.raw());
        assert_eq!(stack.incomplete, None);
        let now = unwinder.counters();
        assert_eq!(*counters.get_or_insert(now), now);
    }
    assert!(counters.unwrap().objects_loaded >= 2);
}

/// The cap on tables holds: objects take turns, and stacks are as before.
#[test]
fn tables_take_turns_under_the_cap() {
    let Some(program) = Program::chain("cc", &["-O2", "-fomit-frame-pointer"]) else {
        return;
    };
    let run = program.run(&["1"]);
    let whole = run.unwinder().unwind(SPACE, &run.captured.raw());
    // libc's tables are 150 KiB, the program's one KiB.
    let limits = UnwindLimits {
        table_bytes: 150 << 10,
        object_bytes: 150 << 10,
    };
    let mut unwinder = Unwinder::new(limits);
    unwinder.update_modules(SPACE, &run.mappings());
    unwinder.update_modules(SpaceId(2), &own_mappings());
    for _ in 0..3 {
        assert_eq!(unwinder.unwind(SPACE, &run.captured.raw()), whole);
        let own = super::own_stack::deep();
        unwinder.unwind(SpaceId(2), &own.raw());
        assert!(unwinder.counters().table_bytes <= limits.table_bytes);
    }
    let counters = unwinder.counters();
    assert!(
        counters.tables_evicted > 0 || counters.objects_too_large > 0,
        "{counters:?}"
    );
}

/// An object whose tables are too large is walked without them and counted, with the reason.
#[test]
fn too_large_an_object() {
    let mut unwinder = Unwinder::new(UnwindLimits {
        table_bytes: 1 << 20,
        object_bytes: 1000,
    });
    unwinder.update_modules(SPACE, &own_mappings());
    let captured = super::own_stack::deep();
    let stack = unwinder.unwind(SPACE, &captured.raw());
    assert_eq!(stack.incomplete, Some(Incomplete::NoUnwindInfo));
    let (module, _) = unwinder.resolve(SPACE, captured.ip).unwrap();
    assert_eq!(unwinder.missing_tables(&module), Some(NoCfi::TooLarge));
    assert_eq!(unwinder.counters().objects_too_large, 1);
}

/// A library that was unloaded still has its name; what was mapped over it has its own.
#[test]
fn unloaded_libraries_are_remembered() {
    let mut unwinder = own_unwinder();
    let all = own_mappings();
    let gone = all.iter().find(|m| is_file(m, "libc.so")).unwrap().clone();
    let left: Vec<_> = all
        .iter()
        .filter(|m| m.start != gone.start)
        .cloned()
        .collect();
    unwinder.update_modules(SPACE, &left);
    let (module, offset) = unwinder.resolve(SPACE, gone.start + 16).unwrap();
    assert!(module.path().contains("libc.so"));
    assert_eq!(offset, gone.file_offset + 16);
    let over = ModuleMapping {
        backing: left[0].backing.clone(),
        file_offset: 0,
        ..gone.clone()
    };
    unwinder.update_modules(SPACE, &[over]);
    let (module, offset) = unwinder.resolve(SPACE, gone.start + 16).unwrap();
    assert!(!module.path().contains("libc.so"));
    assert_eq!(offset, 16);
}

fn is_file(mapping: &ModuleMapping, name: &str) -> bool {
    matches!(&mapping.backing, Backing::File(m) if m.path().contains(name))
}

/// A forked space has its parent's mappings, a removed one has none; stacks of unknown spaces are
/// one frame that says that its address is unknown.
#[test]
fn spaces_come_and_go() {
    let captured = super::own_stack::deep();
    let mut unwinder = own_unwinder();
    let whole = unwinder.unwind(SPACE, &captured.raw());
    unwinder.fork_space(SPACE, SpaceId(2));
    unwinder.remove_space(SPACE);
    assert_eq!(unwinder.unwind(SpaceId(2), &captured.raw()), whole);
    assert_eq!(unwinder.unknown_address(), None);
    assert!(unwinder.knows(SpaceId(2)) && !unwinder.knows(SPACE));
    let stack = unwinder.unwind(SPACE, &captured.raw());
    assert_eq!(stack.frames[..], [captured.ip]);
    assert_eq!(stack.incomplete, Some(Incomplete::NoUnwindInfo));
    assert_eq!(unwinder.unknown_address(), Some(captured.ip));
}

/// Objects of processes that are gone are closed, but for a few.
#[test]
fn unused_objects_are_closed() {
    let dir = tempfile::tempdir().unwrap();
    let mut unwinder = Unwinder::default();
    let mut modules = Vec::new();
    for n in 0..1000u64 {
        let path = dir.path().join(n.to_string());
        std::fs::write(&path, b"no code").unwrap();
        let module = ModuleFile::new("f", File::open(&path).unwrap()).unwrap();
        modules.push(Arc::downgrade(&module));
        let mapping = ModuleMapping {
            start: 0x1000,
            end: 0x2000,
            file_offset: 0,
            backing: Backing::File(module),
        };
        unwinder.update_modules(SpaceId(n), &[mapping]);
        unwinder.remove_space(SpaceId(n));
    }
    let open = modules.iter().filter(|m| m.strong_count() > 0).count();
    assert!(open <= 200, "{open} files are open");
}

/// One module for all openings of a file, while anyone holds it.
#[test]
fn the_store_shares_modules() {
    let mut store = ModuleStore::default();
    let open = || File::open("/proc/self/exe").unwrap();
    let first = store.intern("/a", open()).unwrap();
    let second = store.intern("/b", open()).unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    let identity = first.identity();
    assert!(store.get(identity).is_some());
    drop((first, second));
    assert!(store.get(identity).is_none());
    let vdso = store.intern_bytes("[vdso]", vec![1, 2, 3]);
    assert!(Arc::ptr_eq(
        &vdso,
        &store.intern_bytes("[vdso]", vec![1, 2, 3])
    ));
}

/// The unwinder and its results can go to another thread.
#[test]
fn can_be_sent() {
    fn sent<T: Send>() {}
    sent::<Unwinder>();
    sent::<StackTable>();
    sent::<CapturedFrame>();
    sent::<crate::symbolize::Symbolizer>();
}
