//! ecr-operator: see the README.
fn main() {}
