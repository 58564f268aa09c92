//! Link options of the extension module.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A signal handler of ours may be installed: its code must never be unmapped, whoever closes the library.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
