//! Placeholder while the model is being written.
