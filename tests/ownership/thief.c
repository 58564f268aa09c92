/* An extension module that changes the actions of signals as quickly as Python can call it. */
#include <Python.h>
#include <signal.h>
#include <sys/syscall.h>

static PyObject *take(PyObject *module, PyObject *none) {
    struct sigaction action = {0};
    (void)module, (void)none;
    sigaction(SIGBUS, &action, NULL);
    Py_RETURN_NONE;
}

static sigset_t set;

static PyObject *block(PyObject *module, PyObject *none) {
    (void)module, (void)none;
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    Py_RETURN_NONE;
}

static PyObject *unblock(PyObject *module, PyObject *none) {
    (void)module, (void)none;
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    Py_RETURN_NONE;
}

/* A system call with nothing around it: the C library turns arguments over first. */
static long call(long number, long first, long second, long third) {
    register long size __asm__("r10") = 8;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third), "r"(size)
                     : "rcx", "r11", "memory");
    return result;
}

/* The kernel's sigaction: the default for all. */
static const long by_default[4];

static const unsigned long mask = 1UL << (SIGBUS - 1);

/* between(copy, good, before, bad, after, how): copy(good, before), a change of the signals, copy(bad, after), with no
   interpreter in between. Returns what the second copy does. */
static PyObject *between(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module, (void)count;
    int takes = PyObject_IsTrue(args[5]);
    PyObject *first = PyObject_Vectorcall(args[0], args + 1, 2, NULL);
    if (takes)
        call(SYS_rt_sigaction, SIGBUS, (long)by_default, 0);
    else
        call(SYS_rt_sigprocmask, SIG_BLOCK, (long)&mask, 0);
    PyObject *second = PyObject_Vectorcall(args[0], args + 3, 2, NULL);
    Py_XDECREF(first);
    return second;
}

static PyMethodDef methods[] = {
    {"between", (PyCFunction)(void (*)(void))between, METH_FASTCALL, NULL},
    {"take", take, METH_NOARGS, NULL},
    {"block", block, METH_NOARGS, NULL},
    {"unblock", unblock, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef thief = {PyModuleDef_HEAD_INIT, "thief", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit_thief(void) {
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    return PyModule_Create(&thief);
}
