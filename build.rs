//! The templates are embedded: a change of one rebuilds the binary.
fn main() {
    for folder in ["assets", "bootstrap-manifests", "manifests"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
