/* An extension module that takes signals away with as little around it as Python allows. */
#include <Python.h>
#include <signal.h>

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

static PyMethodDef methods[] = {
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
