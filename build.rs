//! Link options of the extension module, and what sort of interpreter it is built for.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A signal handler of ours may be installed: its code must never be unmapped, whoever closes the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    // `Py_GIL_DISABLED`, among others: PyO3 builds for a free-threaded interpreter where it finds one.
    #[cfg(feature = "python")]
    pyo3_build_config::use_pyo3_cfgs();
}
