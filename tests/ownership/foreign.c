/* The stranger: a library with handlers that recover from its own faults or pass them on, and with seccomp filters. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static __thread sigjmp_buf escape;
static __thread volatile sig_atomic_t probing;
static struct sigaction previous[65];
volatile int seen, seen_code;
void *volatile seen_address;

static void pass_on(int sig, siginfo_t *info, void *context) {
    struct sigaction *next = &previous[sig];
    if (next->sa_flags & SA_SIGINFO) {
        next->sa_sigaction(sig, info, context);
    } else if (next->sa_handler != SIG_DFL && next->sa_handler != SIG_IGN) {
        next->sa_handler(sig);
    } else {
        signal(sig, SIG_DFL);
    }
}

static void recovering(int sig, siginfo_t *info, void *context) {
    seen++;
    seen_code = info->si_code;
    seen_address = info->si_addr;
    if (probing) {
        siglongjmp(escape, 1);
    }
    pass_on(sig, info, context);
}

/* Installs the recovering handler for `sig`; it remembers the handler that was there before. */
int foreign_install(int sig) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = recovering;
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART;
    sigaddset(&action.sa_mask, SIGUSR2);
    return sigaction(sig, &action, &previous[sig]);
}

/* Reads one byte. Returns 1 if that faulted and the handler recovered it. */
int foreign_probe(const volatile char *address) {
    if (sigsetjmp(escape, 1)) {
        probing = 0;
        return 1;
    }
    probing = 1;
    (void)*address;
    probing = 0;
    return 0;
}

/* Reads one byte at each of several stack depths, each deeper than the last. Returns how many faults were recovered. */
int foreign_probe_deeper(const volatile char *address, int depths) {
    volatile char frame[512];
    frame[0] = 0;
    return depths == 0 ? frame[0] : foreign_probe(address) + foreign_probe_deeper(address, depths - 1) + frame[0];
}

/* Raises `sig` at this stack depth. */
void foreign_raise_deeper(int sig, int depths) {
    volatile char frame[512];
    memset((void *)frame, depths, sizeof frame);
    if (depths == 0) {
        raise(sig);
    } else {
        foreign_raise_deeper(sig, depths - 1);
    }
    frame[0] = 0;
}

static void counting(int sig, siginfo_t *info, void *context) {
    (void)sig, (void)info, (void)context;
    seen++;
    if (probing) {
        siglongjmp(escape, 1);
    }
}

/* Installs a handler for `sig` that counts the signals that no probe of ours caused. */
int foreign_count(int sig) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = counting;
    action.sa_flags = SA_SIGINFO;
    return sigaction(sig, &action, &previous[sig]);
}

/* The action of `sig`: the handler's address (0 is the default, 1 is ignore) and its flags. */
int disposition(int sig, unsigned long *handler, unsigned long *flags) {
    struct sigaction action;
    int result = sigaction(sig, NULL, &action);
    *handler = (unsigned long)action.sa_handler;
    *flags = (unsigned long)(unsigned)action.sa_flags;
    return result;
}

unsigned long recovering_address(void) { return (unsigned long)recovering; }

/* Installs a filter by which this thread can read the actions of SIGBUS and SIGSEGV, but not change them. */
int refuse_sigaction(void) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigaction, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIGBUS, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SIGSEGV, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
        return -1;
    }
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static volatile int forged_code;
volatile int forged;

static void forge_one(int sig) {
    siginfo_t info;
    int before = errno;
    (void)sig;
    memset(&info, 0, sizeof info);
    info.si_signo = SIGBUS;
    info.si_code = forged_code;
    if (syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info) == 0) {
        forged++;
    }
    errno = before;
}

/* From now on each SIGALRM makes this thread send itself a SIGBUS of this code: only a thread itself may send itself a signal
   that claims to be the kernel's. The signal is blocked until the handler returns, so it arrives at the instruction that SIGALRM
   interrupted. */
int forge_from_alarms(int code) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    forged_code = code;
    action.sa_handler = forge_one;
    action.sa_flags = SA_RESTART;
    sigaddset(&action.sa_mask, SIGBUS);
    return sigaction(SIGALRM, &action, NULL);
}
