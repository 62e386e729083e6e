use super::headers::{SECTION_SIZE, SEGMENT_SIZE};
use super::*;
use crate::id::Tgid;
use crate::target::maps::Maps;
use crate::target::process::ProcFs;

/// The C library this test process has mapped.
fn libc_path() -> PathBuf {
    let maps = Maps::read(&ProcFs::default(), Tgid(std::process::id())).unwrap();
    let is_libc = |p: &Path| {
        p.file_name()
            .is_some_and(|n| n.as_bytes().starts_with(b"libc.so") || n == "libc-2.31.so")
    };
    maps.mappings
        .iter()
        .find(|m| is_libc(&m.path))
        .unwrap()
        .path
        .clone()
}

/// The machine's own C library is read whole: headers, notes, sections, symbols.
#[test]
fn reads_the_c_library() {
    let libc = Object::open(&libc_path()).unwrap();
    assert_eq!(Some(libc.machine()), Machine::host());
    assert!(libc.build_id_text().unwrap().len() >= 16);
    assert_eq!(libc.soname(), Some("libc.so.6"));
    assert!(!libc.is_go() && !libc.has_fixed_address());
    assert!(libc.section_data(".eh_frame_hdr").unwrap().unwrap().len() > 1000);
    assert!(libc.section_data(".bss").unwrap().is_none());
    assert!(libc.program_header(elf::PT_GNU_EH_FRAME).is_some());
    let found = libc
        .find_symbols(&Wanted::names(["malloc", "free", "no_such_name"]))
        .unwrap();
    assert!(found.has_dynsym);
    let malloc = found.symbols.iter().find(|s| s.name == "malloc").unwrap();
    assert!(malloc.size > 16 && malloc.kind == SymbolKind::Function && malloc.dynamic);
    let offset = libc.offset_of(malloc.address).unwrap();
    assert_eq!(libc.address_of(offset), Some(malloc.address));
    assert!(libc.is_code(malloc.address));
    assert_eq!(
        libc.read_at(offset, 16).unwrap(),
        libc.read_address(malloc.address, 16).unwrap()
    );
    assert!(found.symbols.iter().all(|s| s.name != "no_such_name"));
}

/// The load bias turns a symbol's address into the one the dynamic linker uses.
#[test]
fn load_bias_of_the_c_library() {
    let maps = Maps::read(&ProcFs::default(), Tgid(std::process::id())).unwrap();
    let address = libc::malloc as *const () as u64;
    let mapping = maps.find(address).unwrap();
    let object = Object::open(&mapping.path).unwrap();
    let found = object.find_symbols(&Wanted::names(["malloc"])).unwrap();
    let bias = object
        .load_bias(mapping.start, mapping.offset, mapping.len())
        .unwrap();
    assert_eq!(bias.wrapping_add(found.symbols[0].address), address);
    assert_eq!(object.load_bias(0, u64::MAX, 2), None);
}

/// Without section headers, symbols, soname and build id are found by the program headers.
#[test]
fn works_without_section_headers() {
    let mut bytes = std::fs::read(libc_path()).unwrap();
    bytes[40..48].fill(0);
    let object = from_bytes(&bytes).unwrap();
    assert!(object.sections().is_empty());
    assert_eq!(object.soname(), Some("libc.so.6"));
    assert!(object.build_id().is_some());
    let found = object.find_symbols(&Wanted::names(["malloc"])).unwrap();
    assert_eq!(found.symbols.len(), 1);
}

/// This test's own binary, a Rust program, has its functions in `.symtab`, found by their ending.
#[test]
fn finds_names_by_ending() {
    let own = Object::open(Path::new("/proc/self/exe")).unwrap();
    let mut wanted = Wanted::default();
    wanted.add_ending("_unwind_backtrace_that_is_not_there");
    wanted.add_ending("ust_begin_unwind");
    let found = own.find_symbols(&wanted).unwrap();
    assert!(found.has_symtab);
    assert!(
        found
            .symbols
            .iter()
            .any(|s| s.name.ends_with("ust_begin_unwind")),
        "{found:?}"
    );
    assert!(own.needed().iter().any(|n| n.starts_with("libc.so")));
}

fn from_bytes(bytes: &[u8]) -> Result<Object, ObjectError> {
    use std::io::Write;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Object::from_file(file, "test-object".into())
}

/// Two overlays that share a layer give its file one identity: the kernel puts a probe on the one
/// inode below, so attaching for both would count twice. Needs root; else it checks nothing.
#[test]
fn overlays_share_the_identity_of_their_layer() {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    for name in ["low", "up1", "work1", "one", "up2", "work2", "two"] {
        std::fs::create_dir(path.join(name)).unwrap();
    }
    std::fs::write(path.join("low/lib"), "layer").unwrap();
    std::fs::write(path.join("low/other"), "layer").unwrap();
    // The mounts live in a mount namespace of this thread and go with it.
    let check = move || -> Option<()> {
        let flags = rustix::thread::UnshareFlags::NEWNS | rustix::thread::UnshareFlags::FS;
        // SAFETY: a new mount namespace for this thread alone, which shares no file system state
        // (working directory, root) with others from here on; nothing else is unshared.
        unsafe { rustix::thread::unshare_unsafe(flags) }.ok()?;
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).ok()?;
        for n in ["1", "2"] {
            let target = path.join(if n == "1" { "one" } else { "two" });
            let options = format!(
                "lowerdir={0}/low,upperdir={0}/up{n},workdir={0}/work{n}",
                path.display()
            );
            let options = std::ffi::CString::new(options).ok()?;
            mount(
                "overlay",
                &target,
                "overlay",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .ok()?;
        }
        let id = |name: &str| ObjectId::of(&File::open(path.join(name)).unwrap()).unwrap();
        assert_eq!(id("one/lib"), id("two/lib"));
        assert_ne!(id("one/lib"), id("one/other"));
        assert_eq!(id("low/lib"), id("low/lib"));
        Some(())
    };
    let _ = std::thread::spawn(check).join().unwrap();
}

/// Files that are not ELF, 32-bit or for another machine are refused by name.
#[test]
fn refuses_other_files_by_name() {
    assert!(matches!(from_bytes(b""), Err(ObjectError::NotElf { .. })));
    assert!(matches!(
        from_bytes(&[b'#'; 4096]),
        Err(ObjectError::NotElf { .. })
    ));
    let libc = std::fs::read(libc_path()).unwrap();
    let mut narrow = libc[..4096].to_vec();
    narrow[4] = 1;
    let error = from_bytes(&narrow).unwrap_err().to_string();
    assert!(error.contains("test-object is a 32-bit object"), "{error}");
    let mut other = libc[..4096].to_vec();
    other[18] = 243;
    assert!(
        from_bytes(&other)
            .unwrap_err()
            .to_string()
            .contains("machine number 243")
    );
}

/// Headers that point behind the end of the file give an error and take no memory.
#[test]
fn truncated_files_are_errors() {
    let libc = std::fs::read(libc_path()).unwrap();
    let object = from_bytes(&libc[..libc.len() / 8]).unwrap();
    assert!(object.sections().is_empty());
    assert!(matches!(
        object.read_at(0, u64::MAX),
        Err(ObjectError::TooLarge { .. })
    ));
    assert!(matches!(
        object.read_at(object.file_length(), 1),
        Err(ObjectError::Malformed { .. })
    ));
    assert!(matches!(
        object.read_at(u64::MAX, 2),
        Err(ObjectError::Malformed { .. })
    ));
    let _ = object.find_symbols(&Wanted::names(["malloc"]));
}

/// A file truncated after it was opened is an error, not a signal.
#[test]
fn truncation_while_open_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lib");
    std::fs::copy(libc_path(), &path).unwrap();
    let object = Object::open(&path).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(8192)
        .unwrap();
    let error = object.find_symbols(&Wanted::names(["malloc"])).unwrap_err();
    assert!(error.to_string().contains("truncated"), "{error}");
}

/// A huge sparse file with huge claims costs no memory: the caps answer.
#[test]
fn sparse_giants_are_bounded() {
    let mut bytes = std::fs::read(libc_path()).unwrap();
    let sections = u64_at(&bytes, 40) as usize;
    let count = usize::from(u16_at(&bytes, 60));
    for header in 1..count {
        let at = sections + header * SECTION_SIZE;
        if matches!(u32_at(&bytes, at + 4), elf::SHT_STRTAB | elf::SHT_DYNSYM) {
            bytes[at + 32..at + 40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    std::fs::write(&path, &bytes).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(1 << 41)
        .unwrap();
    let object = Object::open(&path).unwrap();
    let error = object.find_symbols(&Wanted::names(["malloc"])).unwrap_err();
    assert!(matches!(error, ObjectError::TooLarge { .. }), "{error}");
}

/// The tail of a longer string is a name too: linkers merge strings.
#[test]
fn finds_names_inside_merged_strings() {
    let strings = b"\0xmalloc\0free\0";
    let object = synthetic(strings, &[(2, 0x1000, 8), (9, 0x1010, 0), (1, 0x1040, 4)]);
    let found = object
        .find_symbols(&Wanted::names(["malloc", "free"]))
        .unwrap();
    let names: Vec<_> = found
        .symbols
        .iter()
        .map(|s| (s.name.as_str(), s.address, s.size))
        .collect();
    // free has no size of its own: it ends where the next symbol starts.
    assert_eq!(names, [("malloc", 0x1000, 8), ("free", 0x1010, 0x30)]);
}

/// Names are found across the pieces that a large string table is read in.
#[test]
fn finds_names_across_chunks() {
    let mut strings = vec![0];
    strings.resize((1 << 20) - 3, b'y');
    strings.extend(b"\0malloc\0");
    let object = synthetic(&strings, &[((1 << 20) - 2, 0x1000, 8)]);
    let found = object.find_symbols(&Wanted::names(["malloc"])).unwrap();
    assert_eq!(found.symbols.len(), 1);
}

/// An object made of one code segment, a symbol table (name offset, address, size) and strings.
pub(in crate::target) fn synthetic(strings: &[u8], symbols: &[(u32, u64, u64)]) -> Object {
    from_bytes(&synthetic_bytes(strings, symbols, &[0x90; 0x100])).unwrap()
}

/// The bytes of [`synthetic`], with the code at address 0x1000.
pub(in crate::target) fn synthetic_bytes(
    strings: &[u8],
    symbols: &[(u32, u64, u64)],
    code: &[u8],
) -> Vec<u8> {
    let mut table = vec![0; 24];
    for (name, address, size) in symbols {
        table.extend(name.to_le_bytes());
        table.extend([0x12, 0, 1, 0]);
        table.extend(address.to_le_bytes());
        table.extend(size.to_le_bytes());
    }
    let code_at = 64 + SEGMENT_SIZE;
    let table_at = code_at + code.len();
    let strings_at = table_at + table.len();
    let sections_at = strings_at + strings.len();
    let mut bytes = vec![0; 64];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(16, &3_u16.to_le_bytes());
    put(18, &elf::EM_X86_64.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(40, &(sections_at as u64).to_le_bytes());
    put(54, &(SEGMENT_SIZE as u16).to_le_bytes());
    put(56, &1_u16.to_le_bytes());
    put(58, &(SECTION_SIZE as u16).to_le_bytes());
    put(60, &4_u16.to_le_bytes());
    for word in [elf::PT_LOAD, elf::PF_R | elf::PF_X] {
        bytes.extend(word.to_le_bytes());
    }
    let length = code.len() as u64;
    for word in [code_at as u64, 0x1000, 0x1000, length, length, 16] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(code);
    bytes.extend(&table);
    bytes.extend(strings);
    let sections = [
        (elf::SHT_NULL, 0, 0, 0),
        (elf::SHT_PROGBITS, code_at, code.len(), 0),
        (elf::SHT_SYMTAB, table_at, table.len(), 3),
        (elf::SHT_STRTAB, strings_at, strings.len(), 0),
    ];
    for (kind, offset, size, link) in sections {
        let mut header = vec![0; SECTION_SIZE];
        header[4..8].copy_from_slice(&kind.to_le_bytes());
        header[24..32].copy_from_slice(&(offset as u64).to_le_bytes());
        header[32..40].copy_from_slice(&(size as u64).to_le_bytes());
        header[40..44].copy_from_slice(&(link as u32).to_le_bytes());
        bytes.extend(header);
    }
    bytes
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(64))]
    /// A small object with some bytes changed is read or refused, and nothing panics.
    #[test]
    fn corrupt_objects_are_survived(changes in proptest::collection::vec((0_usize..700, 0_u8..), 1..12)) {
        let mut bytes = synthetic_bytes(b"\0malloc\0free\0", &[(1, 0x1000, 8), (8, 0x1010, 0)], &[0x90; 256]);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(object) = from_bytes(&bytes) {
            let _ = object.find_symbols(&Wanted::names(["malloc", "free"]));
            for section in object.sections() {
                let _ = object.section_data(&section.name);
            }
            let _ = object.read_address(0x1000, 16);
        }
    }
}

/// An object that defines these functions, sixteen bytes apart.
pub(in crate::target) fn synthetic_named(names: &[&str]) -> Object {
    let mut strings = vec![0];
    let mut symbols = Vec::new();
    for (address, name) in (0x1000..).step_by(16).zip(names) {
        symbols.push((strings.len() as u32, address, 16));
        strings.extend(name.as_bytes());
        strings.push(0);
    }
    from_bytes(&synthetic_bytes(
        &strings,
        &symbols,
        &vec![0x90; names.len() * 16],
    ))
    .unwrap()
}
