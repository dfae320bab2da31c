//! The same results however a walk is cut.

use wgnorm::Tuning;

use super::setup::{Setup, check};
use super::shapes::setups;
use crate::support::{column_contexts, contexts, trusted_context};

#[test]
fn forced_plans() {
    for (name, context) in contexts().into_iter().chain(column_contexts()) {
        for setup in setups() {
            check(&context, name, &setup);
        }
    }
}

#[test]
fn windows() {
    let tuning = Tuning { window_bytes: Some(1024), ..Tuning::default() };
    for setup in setups() {
        check(&trusted_context().with_tuning(tuning), "windows", &Setup { sum: true, ..setup });
    }
}

#[test]
fn held_slices() {
    for (workgroup_size, team_size) in [(8, None), (64, Some(32)), (256, None)] {
        let tuning =
            Tuning { resident: Some(true), workgroup_size: Some(workgroup_size), team_size, ..Tuning::default() };
        for setup in setups() {
            check(&trusted_context().with_tuning(tuning), "held", &setup);
            check(&trusted_context().with_tuning(tuning), "held sum", &Setup { sum: true, ..setup });
        }
    }
}
