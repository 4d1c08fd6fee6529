//! Migrations are compiled into the binary; a change of them must rebuild it.

fn main() {
    println!("cargo:rerun-if-changed=../migrations");
}
