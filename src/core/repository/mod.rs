//! One ECR repository: what is declared, what is there, and the steps from the one to the other.

mod desired;
mod digest;
#[cfg(test)]
mod digest_tests;
mod doomed;
mod observed;
#[cfg(test)]
mod parse_tests;
mod patience;
mod plan;
mod schedule;
mod step;
#[cfg(test)]
mod tests;

pub use desired::{Context, Desired, Wanted};
pub use digest::{Aspect, Digests};
pub use doomed::{Doomed, stays};
pub use observed::{Core, Encryption, Mutability, Observed, Reading};
pub use patience::{Refusals, patient};
pub use plan::{Guard, Plan, core_steps, deletes, missing_tags, plan, policies_differ, policy_step, standing_problems};
pub use schedule::{check_every, next_check};
pub use step::{Creation, Step};
