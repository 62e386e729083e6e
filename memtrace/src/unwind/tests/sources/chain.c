// A chain of calls: main, outer, middle, leaf; what middle does is said by a macro.
#include "capture.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>

volatile int sink;

NOINLINE void leaf(int depth) {
    volatile char room[200];
    room[depth & 63] = 1;
#ifdef AT_ENTRY
    // As a probe at the first instruction of a function without unwind information would.
    extern void probed(void (*save)(uint64_t, uint64_t, uint64_t, uint64_t));
    probed(save); // leaf calls
#else
    CAPTURE();
#endif
    NOT_A_TAIL_CALL();
}

#ifdef AT_ENTRY
__asm__(".text\n.globl probed\nprobed:\n"
        " mov %rdi, %rax\n lea probed(%rip), %rdi\n mov %rsp, %rsi\n mov %rbp, %rdx\n xor %ecx, %ecx\n"
        " jmp *%rax\n");
#endif

#ifdef HOSTILE_EXPRESSION
// Its frame address is an expression that jumps to itself for ever.
void hostile(void);
__asm__(".text\n.globl hostile\nhostile:\n.cfi_startproc\n"
        ".cfi_escape 0x0f, 0x03, 0x2f, 0xfd, 0xff\n"
        " sub $8, %rsp\n call go_on\n add $8, %rsp\n ret\n.cfi_endproc\n");
void go_on(void) { leaf(1); NOT_A_TAIL_CALL(); }
#endif

static void handler(int signal) {
    leaf(signal); // handler calls
    NOT_A_TAIL_CALL();
}

NOINLINE void middle(int depth) {
#if defined SIGNAL
    struct sigaction action = {.sa_handler = handler};
#ifdef ALTSTACK
    static char other[65536];
    stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
    sigaltstack(&stack, 0);
    action.sa_flags = SA_ONSTACK;
#endif
    sigaction(SIGUSR1, &action, 0);
    raise(SIGUSR1); // middle raises
#elif defined JIT
    unsigned char *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#if defined __x86_64__
    // push rbp; mov rbp, rsp; mov rax, rdi; mov edi, esi; call rax; pop rbp; ret
    static const unsigned char made[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x89, 0xf7, 0xff, 0xd0, 0x5d, 0xc3};
#else
    // stp x29, x30, [sp, #-16]!; mov x29, sp; mov x2, x0; mov w0, w1; blr x2; ldp x29, x30, [sp], #16; ret
    static const uint32_t made[] = {0xa9bf7bfd, 0x910003fd, 0xaa0003e2, 0x2a0103e0, 0xd63f0040, 0xa8c17bfd, 0xd65f03c0};
#endif
    memcpy(code, made, sizeof made);
    __builtin___clear_cache((char *)code, (char *)code + sizeof made);
    ((void (*)(void (*)(int), int))code)(leaf, depth); // middle calls made code
#elif defined HOSTILE_EXPRESSION
    hostile();
#else
    if (depth > 0) middle(depth - 1); // middle calls itself
    else leaf(depth); // middle calls
#endif
    NOT_A_TAIL_CALL();
    (void)handler;
}

static inline __attribute__((always_inline)) void inlined(int depth) {
    middle(depth); // inlined calls
}

NOINLINE void outer(int depth) {
    volatile char room[depth + 16];
    room[depth] = 1;
    inlined(depth); // outer calls
    NOT_A_TAIL_CALL();
}

int main(int argc, char **argv) {
    paths = argv;
    outer(argc > 3 ? atoi(argv[3]) : 0); // main calls
    return sink;
}
