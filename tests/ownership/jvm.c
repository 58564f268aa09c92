/* Starts a JVM in the process, and makes it fault. */
#include <dlfcn.h>
#include <jni.h>
#include <stddef.h>

static JNIEnv *env;
static jclass trips;

int jvm_start(const char *library, char *class_path) {
    JavaVM *vm;
    JavaVMOption options[] = {{class_path, NULL}, {"-Xcomp", NULL}, {"-XX:-CreateCoredumpOnCrash", NULL}};
    JavaVMInitArgs arguments = {JNI_VERSION_1_8, 3, options, JNI_FALSE};
    void *handle = dlopen(library, RTLD_NOW);
    jint (*create)(JavaVM **, void **, void *);
    if (!handle) {
        return -1;
    }
    *(void **)&create = dlsym(handle, "JNI_CreateJavaVM");
    if (create(&vm, (void **)&env, &arguments) != JNI_OK) {
        return -2;
    }
    trips = (*env)->FindClass(env, "Trips");
    return trips ? 0 : -3;
}

int jvm_null_pointers(int times) {
    jmethodID method = (*env)->GetStaticMethodID(env, trips, "nullPointers", "(I)I");
    return (*env)->CallStaticIntMethod(env, trips, method, times);
}

int jvm_cut_file(const char *path) {
    jmethodID method = (*env)->GetStaticMethodID(env, trips, "cutFile", "(Ljava/lang/String;)I");
    jstring name = (*env)->NewStringUTF(env, path);
    int result = (*env)->CallStaticIntMethod(env, trips, method, name);
    return (*env)->ExceptionCheck(env) ? -1 : result;
}
