/* A neighbour: another library of the process that handles SIGBUS and SIGSEGV. The program loads several copies of it. It counts
   what happens in memory that it shares with the parent process. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

enum style { CHAIN, REPLACE, RESTORE, JUMP, MEND, SKIP };

/* The counts, in shared memory. */
struct tally {
    volatile int calls, nested_most, interrupted, recovered, blocked_after, entered, go;
};

static struct tally *tally;
static enum style style;
static volatile int is_here, nested, is_waiting;
static struct sigaction previous[65];
static __thread sigjmp_buf escape;
static __thread volatile sig_atomic_t is_probing;
static char *own_page;

static void default_action(int sig, int is_fault) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    sigaction(sig, &action, NULL);
    if (!is_fault) {
        raise(sig);
    }
}

static void chain(int sig, siginfo_t *info, void *context, int is_fault) {
    struct sigaction *next = &previous[sig];
    if (next->sa_flags & SA_SIGINFO) {
        next->sa_sigaction(sig, info, context);
    } else if (next->sa_handler == SIG_DFL) {
        default_action(sig, is_fault);
    } else if (next->sa_handler != SIG_IGN) {
        next->sa_handler(sig);
    }
}

static void handle(int sig, siginfo_t *info, void *context) {
    int is_fault = info && info->si_code > 0;
    char *address = info ? info->si_addr : NULL;
    if (!is_here) {
        return; /* uninstalled: like faulthandler's, it then does nothing for handlers that still chain to it */
    }
    __atomic_add_fetch(&tally->calls, 1, __ATOMIC_SEQ_CST);
    if (++nested > tally->nested_most) {
        tally->nested_most = nested;
    }
    if (is_waiting) {
        tally->entered++;
        while (!tally->go) {
        }
    } else if (is_fault && is_probing && style == JUMP) {
        nested = 0;
        siglongjmp(escape, 1);
    } else if (is_fault && style == MEND && address == own_page) {
        mprotect(own_page, 4096, PROT_READ | PROT_WRITE);
#ifdef __x86_64__
    } else if (is_fault && style == SKIP && is_probing) {
        ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
#endif
    } else if (style == RESTORE) {
        sigaction(sig, &previous[sig], NULL);
        is_here = 0;
        if (!is_fault) {
            raise(sig);
        }
    } else if (style == REPLACE) {
        default_action(sig, is_fault);
    } else {
        chain(sig, info, context, is_fault);
    }
    nested--;
}

static void handle_plainly(int sig) { handle(sig, NULL, NULL); }

static void when_interrupted(int sig) {
    (void)sig;
    tally->interrupted += nested;
}

void neighbour_watch(struct tally *shared) { tally = shared; }

int neighbour_come(enum style how, int flags, int masks_usr1) {
    struct sigaction action;
    int result = 0;
    memset(&action, 0, sizeof action);
    if (flags & SA_SIGINFO) {
        action.sa_sigaction = handle;
    } else {
        action.sa_handler = handle_plainly;
    }
    action.sa_flags = flags;
    if (masks_usr1) {
        sigaddset(&action.sa_mask, SIGUSR1);
    }
    style = how;
    is_here = 1;
    result |= sigaction(SIGBUS, &action, &previous[SIGBUS]);
    result |= sigaction(SIGSEGV, &action, &previous[SIGSEGV]);
    return result;
}

int neighbour_leave(void) {
    is_here = 0;
    return sigaction(SIGBUS, &previous[SIGBUS], NULL) | sigaction(SIGSEGV, &previous[SIGSEGV], NULL);
}

/* Reads bad memory this many times, and counts how often the handler recovered. `saves`: whether its jump restores the mask. */
int neighbour_probe(char *address, int times, int saves) {
    sigset_t blocked;
    for (volatile int i = 0; i < times; i++) {
        if (sigsetjmp(escape, saves)) {
            tally->recovered++;
        } else {
            is_probing = 1;
#ifdef __x86_64__
            __asm__ volatile("mov (%0), %%al" : : "d"(address) : "rax"); /* two bytes long */
            tally->recovered += style == SKIP;
#else
            *(volatile char *)address;
#endif
        }
        is_probing = 0;
    }
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    tally->blocked_after = sigismember(&blocked, SIGBUS) * 2 + sigismember(&blocked, SIGSEGV);
    return 0;
}

/* A memory barrier as garbage collectors use it: the same store faults many times, and the handler permits it each time. */
int neighbour_store_through_barrier(int times) {
    own_page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < times; i++) {
        mprotect(own_page, 4096, PROT_NONE);
        *(volatile char *)own_page = 1;
        tally->recovered++;
    }
    return 0;
}

static volatile int depth;

__attribute__((noinline)) static int deeper(int n) {
    volatile char space[4096];
    space[0] = (char)n;
    return n > 1 << 20 ? 0 : deeper(n + 1) + space[0] + depth;
}

/* Overflows the stack, in a thread that has an alternate stack for signals. */
int neighbour_overflow(void) {
    stack_t stack;
    memset(&stack, 0, sizeof stack);
    stack.ss_size = 1 << 16;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, NULL);
    return deeper(1);
}

/* Another process sends three signals; it sends the last two, and a SIGUSR1, while the handler still runs for the first. `nests`:
   each is delivered at once. Otherwise they are blocked, and the last two are merged into one. */
int neighbour_is_sent_three(int sig, int how, int nests) {
    struct sigaction action;
    pid_t me = getpid();
    pid_t thread = (pid_t)syscall(SYS_gettid);
    union sigval value;
    memset(&action, 0, sizeof action);
    memset(&value, 0, sizeof value);
    action.sa_handler = when_interrupted;
    sigaction(SIGUSR1, &action, NULL);
    is_waiting = 1;
    if (fork() == 0) {
        for (int i = 0; i < 3; i++) {
            if (how == 0) {
                kill(me, sig);
            } else if (how == 1) {
                sigqueue(me, sig, value);
            } else {
                syscall(SYS_tgkill, me, thread, sig);
            }
            while (tally->entered < (nests ? i + 1 : 1)) {
                if (getppid() != me) {
                    _exit(0);
                }
            }
        }
        kill(me, SIGUSR1);
        usleep(1000); /* by now they have been delivered or are blocked */
        tally->go = 1;
        _exit(0);
    }
    while (!tally->go || nested) {
    }
    is_waiting = 0;
    return 0;
}
