use super::*;
use proptest::prelude::*;

fn x86(function: Function, code: &[u8]) -> Placement {
    place(Machine::X86_64, function, code, 0x1000)
}

fn arm(function: Function, words: &[u32]) -> Placement {
    let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    place(Machine::Aarch64, function, &code, 0x1000)
}

/// glibc 2.36 malloc: `push r12` first.
#[test]
fn glibc_malloc() {
    let code = [
        0x41, 0x54, 0x55, 0x53, 0x48, 0x89, 0xfb, 0x48, 0x83, 0xec, 0x10,
    ];
    let p = x86(Function::Size0, &code);
    assert_eq!(
        (p.offset, p.emulated, p.instruction.as_str()),
        (0, true, "push r12")
    );
}

/// glibc 2.36 free: `test rdi,rdi` is single-stepped, the `je` behind it is not.
#[test]
fn glibc_free() {
    let code = [
        0x48, 0x85, 0xff, 0x0f, 0x84, 0xbf, 0, 0, 0, 0x55, 0x48, 0x8d, 0x77, 0xf0, 0x53, 0xc3,
    ];
    let p = x86(Function::Free0, &code);
    assert_eq!((p.offset, p.emulated), (3, true));
    assert!(p.instruction.starts_with("je "), "{}", p.instruction);
}

/// glibc 2.36 memalign: `cmp byte [rip+x],0` then `je`.
#[test]
fn glibc_memalign() {
    let code = [
        0x80, 0x3d, 0x71, 0x0e, 0x14, 0, 0, 0x74, 0x05, 0xe9, 0x32, 0xf6, 0xff, 0xff,
    ];
    assert_eq!(x86(Function::Size1, &code).offset, 7);
}

/// glibc 2.36 reallocarray: `mul rdx` and a `mov` change arguments before any jump.
#[test]
fn glibc_reallocarray_stays_at_the_entry() {
    let code = [
        0x48, 0x89, 0xf0, 0x48, 0xf7, 0xe2, 0x48, 0x89, 0xc6, 0x70, 0x05, 0xc3,
    ];
    let p = x86(Function::ReallocArray, &code);
    assert_eq!((p.offset, p.emulated), (0, false));
    assert!(p.reason.contains("rsi changes"), "{}", p.reason);
}

/// With CET: `endbr64` is single-stepped, the `push` behind it is the place.
#[test]
fn endbr64_is_passed_over() {
    let p = x86(Function::Size0, &[0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0xc3]);
    assert_eq!((p.offset, p.instruction.as_str()), (4, "push rbp"));
}

/// jemalloc 5.3 malloc: `cmp rdi,0x1000`, `ja`.
#[test]
fn jemalloc_malloc() {
    let code = [
        0x48, 0x81, 0xff, 0, 0x10, 0, 0, 0x0f, 0x87, 0x93, 0, 0, 0, 0xc3,
    ];
    assert_eq!(x86(Function::Size0, &code).offset, 7);
}

/// jemalloc 5.3 free: 48 bytes of straight-line code change rdx, rcx and rax but not rdi.
#[test]
fn jemalloc_free() {
    let code = [
        0x48, 0x89, 0xf8, 0x48, 0x8b, 0x15, 0x0e, 0x53, 0x0a, 0, 0x48, 0x89, 0xf9, 0x48, 0xc1,
        0xe8, 0x1a, 0x48, 0x81, 0xe1, 0, 0, 0, 0xc0, 0x25, 0xf0, 0, 0, 0, 0x64, 0x48, 0x03, 0x04,
        0x25, 0, 0, 0, 0, 0x48, 0x01, 0xd0, 0x48, 0x3b, 0x88, 0xb0, 0x01, 0, 0, 0x0f, 0x85, 0x8a,
        0, 0, 0, 0xc3,
    ];
    assert_eq!(x86(Function::Free0, &code).offset, 48);
    // A function that is asked for its third argument, rdx, has no place there.
    assert!(!x86(Function::Free2, &code).emulated);
}

/// musl: `malloc` is one `jmp`.
#[test]
fn musl_malloc() {
    let p = x86(Function::Size0, &[0xe9, 0x6b, 0x19, 0, 0]);
    assert_eq!(
        (p.offset, p.emulated, p.jumps_to),
        (0, true, Some(0x1000 + 5 + 0x196b))
    );
    // A conditional jump goes elsewhere only sometimes.
    assert_eq!(x86(Function::Size0, &[0x74, 0x00]).jumps_to, None);
    // aarch64: nop; b .-4
    assert_eq!(
        arm(Function::Size0, &[0xd503_201f, 0x17ff_ffff]).jumps_to,
        Some(0x1000)
    );
    assert_eq!(arm(Function::Size0, &[0x1400_0004]).jumps_to, Some(0x1010));
}

/// The stack pointer must not have moved.
#[test]
fn a_moved_stack_pointer_ends_the_search() {
    let p = x86(Function::Size0, &[0x48, 0x83, 0xec, 0x18, 0x55, 0xc3]);
    assert_eq!((p.offset, p.emulated), (0, false));
    assert!(p.reason.contains("stack pointer moves"), "{}", p.reason);
}

/// A 32-bit write changes the whole register, a write to another register does not matter.
#[test]
fn partial_writes_count() {
    // mov edi,1; push rbp
    assert!(!x86(Function::Size0, &[0xbf, 1, 0, 0, 0, 0x55]).emulated);
    assert_eq!(x86(Function::Size1, &[0xbf, 1, 0, 0, 0, 0x55]).offset, 5);
    // mov dil,1; push rbp
    assert!(!x86(Function::Size0, &[0x40, 0xb7, 1, 0x55]).emulated);
}

/// A loop back between the entry and the place makes the place hit twice: not taken.
#[test]
fn a_place_inside_a_loop_is_refused() {
    // mov rax,rdi; L: inc rax; jne L
    let p = x86(
        Function::Size0,
        &[0x48, 0x89, 0xf8, 0x48, 0xff, 0xc0, 0x75, 0xfb, 0xc3],
    );
    assert_eq!((p.offset, p.emulated), (0, false));
    assert!(
        p.reason.contains("reached by a jump at +0x6"),
        "{}",
        p.reason
    );
}

/// A jump back to the entry itself is a call again and does not matter.
#[test]
fn a_jump_to_the_entry_is_fine() {
    // test rdi,rdi; je entry
    assert_eq!(
        x86(Function::Size0, &[0x48, 0x85, 0xff, 0x74, 0xfb]).offset,
        3
    );
}

/// Forms of branches and pushes that the kernel does not emulate are passed over or end it.
#[test]
fn forms_that_are_not_emulated() {
    // push imm8 moves the stack pointer; ff /6 push [mem] too; jmp rax, ret and syscall leave.
    for code in [
        &[0x6a, 1][..],
        &[0xff, 0x30],
        &[0xff, 0xe0],
        &[0xc3],
        &[0x0f, 0x05],
    ] {
        assert!(!x86(Function::Size0, code).emulated, "{code:x?}");
    }
    // REX.W push is more than the kernel takes; xchg r8,rax (41 90) is not a nop.
    assert!(!x86(Function::Size0, &[0x48, 0x55]).emulated);
    assert_eq!(x86(Function::Size0, &[0x41, 0x90, 0x55]).offset, 2);
    // A branch with a segment prefix is refused by the kernel.
    assert!(!x86(Function::Size0, &[0x3e, 0x74, 0x00, 0x55]).emulated);
    // bnd jmp is taken.
    assert!(x86(Function::Size0, &[0xf2, 0xe9, 0, 0, 0, 0]).emulated);
}

/// An atomic operation ends the search: another thread may have seen what it did.
#[test]
fn atomics_end_the_search() {
    let p = x86(Function::Free0, &[0xf0, 0x48, 0xff, 0x07, 0x55]);
    assert!(p.reason.contains("atomic"), "{}", p.reason);
}

/// Nothing to decode is the entry, with the reason.
#[test]
fn no_code() {
    let p = x86(Function::Size0, &[]);
    assert_eq!((p.offset, p.emulated), (0, false));
    assert!(p.reason.contains("cannot be read"), "{}", p.reason);
    assert!(arm(Function::Size0, &[]).reason.contains("cannot be read"));
}

/// aarch64: `bti c`, `cbz x0` (free); the probe is on the `cbz`.
#[test]
fn arm_free() {
    let p = arm(Function::Free0, &[0xd503_245f, 0xb400_0300, 0xa9bd_7bfd]);
    assert_eq!(
        (p.offset, p.emulated, p.instruction.as_str()),
        (4, true, "cbz 0x1064")
    );
}

/// aarch64: `stp x29,x30,[sp,#-48]!` moves the stack pointer: the entry.
#[test]
fn arm_stack_frame_first() {
    let p = arm(Function::Size0, &[0xa9bd_7bfd, 0x9100_03fd, 0x9000_0001]);
    assert_eq!((p.offset, p.emulated), (0, false));
    assert!(p.reason.contains("stack pointer moves"), "{}", p.reason);
}

/// aarch64: `adrp` may overwrite an argument: the probe runs before it does.
#[test]
fn arm_adrp() {
    // cmp x0,#0; mrs x2,tpidr_el0; ldr x3,[x0,#8]; adrp x0
    let p = arm(
        Function::Size0,
        &[0xf100_001f, 0xd53b_d042, 0xf940_0403, 0x9000_0000],
    );
    assert_eq!((p.offset, p.instruction.as_str()), (12, "adrp x0"));
}

/// aarch64: a signed link register is no place for a return probe.
#[test]
fn arm_pointer_authentication() {
    let p = arm(Function::Size0, &[0xd503_233f, 0xb400_0300]);
    assert_eq!((p.offset, p.emulated), (0, false));
    assert!(p.reason.contains("return address"), "{}", p.reason);
}

/// aarch64: each way to overwrite x1, the stack pointer or the link register ends the search.
#[test]
fn arm_overwritten_registers() {
    let adrp = 0x9000_0003;
    for (word, what) in [
        (0xaa02_03e1_u32, "x1"),         // mov x1,x2
        (0x5280_0021, "x1"),             // mov w1,#1
        (0xf940_0401, "x1"),             // ldr x1,[x0,#8]
        (0xa940_0402, "x1"),             // ldp x2,x1,[x0]
        (0x5800_0041, "x1"),             // ldr x1,literal
        (0xf840_8422, "x1"),             // ldr x2,[x1],#8
        (0x9e66_0001, "x1"),             // fmov x1,d0
        (0xd100_83ff, "stack pointer"),  // sub sp,sp,#32
        (0xcb2_363ff, "stack pointer"),  // sub sp,sp,x3
        (0x9240_ec1f, "stack pointer"),  // and sp,x0,#…
        (0xf81f_0ffe, "stack pointer"),  // str x30,[sp,#-16]!
        (0xf940_041e, "return address"), // ldr x30,[x0,#8]
        (0xd400_0001, "straight line"),  // svc
        (0xc85f_7c02, "atomic"),         // ldxr x2,[x0]
        (0x0000_0000, "not understood"), // udf
    ] {
        let p = arm(Function::Size1, &[word, adrp]);
        assert!(
            !p.emulated && p.reason.contains(what),
            "{word:#x}: {}",
            p.reason
        );
    }
    // What leaves x1 alone does not end it: str x1,[x0]; stp; cmp sp-like; ccmp; prfm aside.
    for word in [
        0xf900_0001,
        0xa900_0401,
        0xeb01_001f,
        0xfa41_0801,
        0x910_003fd,
        0x3d80_0001,
    ] {
        assert_eq!(arm(Function::Size1, &[word, adrp]).offset, 4, "{word:#x}");
    }
}

/// aarch64: a backward branch between the entry and the place.
#[test]
fn arm_loop() {
    // mov x2,x0; L: add x2,x2,#1; cbnz x2,L
    let p = arm(Function::Size0, &[0xaa00_03e2, 0x9100_0442, 0xb5ff_ffe2]);
    assert!(
        p.reason.contains("reached by a jump at +0x8"),
        "{}",
        p.reason
    );
}

/// Every argument of a calling convention that the kernel side reads is guarded: a function that
/// overwrites it before its first emulated instruction gets its probe at the entry.
#[test]
fn arguments_of_each_convention() {
    // xor edi,edi / esi / edx / ecx / r8d / r9d, then push rbp.
    let overwrites: [&[u8]; 6] = [
        &[0x31, 0xff, 0x55],
        &[0x31, 0xf6, 0x55],
        &[0x31, 0xd2, 0x55],
        &[0x31, 0xc9, 0x55],
        &[0x45, 0x31, 0xc0, 0x55],
        &[0x45, 0x31, 0xc9, 0x55],
    ];
    for (index, code) in (0_usize..).zip(overwrites) {
        for (convention, needed) in [
            (SIZES[index], true),
            (FREES[index], true),
            (SIZES[(index + 1) % 6], false),
            (Function::Calloc, index < 2),
            (Function::Realloc, index < 2),
            (Function::ReallocArray, index < 3),
            (Function::PosixMemalign, index < 3),
            (Function::Xallocx, index < 3),
        ] {
            let p = x86(convention, code);
            assert_eq!(
                p.emulated, !needed,
                "{convention:?} {code:x?}: {}",
                p.reason
            );
            assert_eq!(p.function, convention);
        }
    }
}

/// mimalloc 2.0 malloc: the size is moved to rsi before the first jump, so the probe reads it there.
#[test]
fn moved_arguments_are_followed() {
    // mov rax,[rip+x]; mov rsi,rdi; mov rdi,fs:[rax]; cmp rsi,0x400; ja
    let code = [
        0x48, 0x8b, 0x05, 0xb9, 0xb4, 0, 0, 0x48, 0x89, 0xfe, 0x64, 0x48, 0x8b, 0x38, 0x48, 0x81,
        0xfe, 0, 4, 0, 0, 0x77, 0x20, 0xc3,
    ];
    let p = x86(Function::Size0, &code);
    assert_eq!(
        (p.offset, p.emulated, p.function),
        (21, true, Function::Size1)
    );
    assert_eq!(x86(Function::Free0, &code).function, Function::Free1);
    // Two arguments cannot be followed.
    assert!(!x86(Function::Calloc, &code).emulated);
    // In a register that is no argument's it is out of reach: mov rax,rdi; xor edi,edi; push rbp.
    assert!(!x86(Function::Size0, &[0x48, 0x89, 0xf8, 0x31, 0xff, 0x55]).emulated);
    // Half a register is not a copy: mov esi,edi; xor edi,edi; push rbp.
    assert!(!x86(Function::Size0, &[0x89, 0xfe, 0x31, 0xff, 0x55]).emulated);
    // aarch64: mov x1,x0; mov w0,#1; cbz x3.
    let p = arm(Function::Size0, &[0xaa00_03e1, 0x5280_0020, 0xb400_0303]);
    assert_eq!((p.offset, p.function), (8, Function::Size1));
}

proptest! {
    /// Any bytes give a place inside of the code, and an emulated one only where the kernel's own
    /// rule holds.
    #[test]
    fn any_code_is_survived(code in proptest::collection::vec(any::<u8>(), 0..300)) {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            for function in [Function::Size0, Function::ReallocArray, Function::Free5] {
                let p = place(machine, function, &code, u64::MAX - 7);
                prop_assert!(p.offset == 0 || (p.emulated && p.offset < code.len() as u64));
            }
        }
    }
}
