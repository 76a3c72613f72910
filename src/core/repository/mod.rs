//! One ECR repository: what is declared, what is there, and the steps from the one to the other.

mod desired;
mod observed;
mod plan;
mod step;
#[cfg(test)]
mod tests;

pub use desired::{Context, Desired, Wanted, digest};
pub use observed::{Encryption, Mutability, Observed, Reading};
pub use plan::{Guard, Plan, deletes, plan};
pub use step::{Creation, Step};
