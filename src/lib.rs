//! ecr-operator.
