//! Nothing: the crate has tests alone, and cargo wants a target.
