//! What a norm can be asked for, in all pairs of choices: each pair of values of two factors occurs in some case, and of a smaller product,
//! for the full table, all.

mod batch;
mod slices;

use super::{Case, name_of};
use crate::base::shape::Layout;
use crate::eval::variant::{self, Variants};
use crate::spec::Spec;

pub(super) use batch::{all as all_of_batch, pairs as batch};
pub(super) use slices::{all as all_of_slices, pairs as slices};

/// The case of a row: a spec in one layout and one variant, whose name has what it is made of.
fn case(
    what: &str,
    spec: Spec,
    draw: impl FnOnce(&mut Case),
    parts: &[(bool, &str)],
    layout: Layout,
    variant: &'static str,
) -> Case {
    let mut name = vec![format!("matrix.{what}.{}", name_of(&spec.shape))];
    name.extend(parts.iter().filter(|(is, _)| *is).map(|(_, part)| (*part).to_owned()));
    name.extend((layout == Layout::ChannelsLast).then(|| "last".to_owned()));
    name.push(variant::label(variant));
    let mut case = Case::of(&name.join("."), spec, Default::default(), Variants::One(variant));
    draw(&mut case);
    case.in_layout(layout)
}

/// The index of what an application gets.
fn policy() -> usize {
    variant::all().iter().position(|variant| variant.name == "policy").unwrap_or(0)
}

/// The row of a product with this index, over the first factors; the others are the first of their values.
fn row(levels: &[usize], factors: usize, mut index: usize) -> Vec<usize> {
    let mut row = vec![0; levels.len()];
    for factor in 0..factors {
        row[factor] = index % levels[factor];
        index /= levels[factor];
    }
    row
}
