//! What a measured plan is a plan for.

use std::fmt;

use crate::base::activation::Activation;
use crate::base::error::Result;
use crate::base::shape::Channels;
use crate::engine::adapter::ShaderChecks;
use crate::engine::context::Context;
use crate::plan::{Capabilities, Op, Tuning, Walk, candidates, plan_walk};

/// An operation with everything that its speed depends on.
///
/// As text it is the key of a pinned plan, for people to read:
/// `train_forward f32 channels_first 8x64x3136 relu residual`, the numbers being samples, channels and positions.
pub(crate) struct Problem {
    op: Op,
    view: Channels,
    walk: Walk,
    activation: Activation,
    /// What else the operation does, a word each.
    words: Vec<&'static str>,
    /// Neighbouring slices that share a statistic.
    merged: u64,
    checked: bool,
}

impl Problem {
    pub fn new(
        context: &Context,
        op: Op,
        view: Channels,
        walk: Walk,
        activation: Activation,
        words: &[(bool, &'static str)],
    ) -> Self {
        let words = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        let checked = context.shader_checks() == ShaderChecks::Checked;
        Self { op, view, walk, activation, words, merged: 1, checked }
    }

    /// The same, where so many neighbouring slices share a statistic.
    pub fn merging(self, merged: u64) -> Self {
        Self { merged, ..self }
    }

    /// What to force for each plan that is worth measuring; the first is the policy's.
    pub fn candidates(&self, capabilities: &Capabilities) -> Result<Vec<Tuning>> {
        candidates(&self.walk, capabilities)
    }

    /// Whether there is a plan that is forced so.
    pub fn allows(&self, capabilities: &Capabilities, tuning: &Tuning) -> bool {
        plan_walk(&self.walk, capabilities, tuning).is_ok()
    }

    /// Whether the policy's plan walks the tensors in several dispatches per pass.
    pub fn is_windowed(&self, capabilities: &Capabilities) -> bool {
        plan_walk(&self.walk, capabilities, &Tuning::default())
            .is_ok_and(|plan| plan.windows.len() > 1 && !plan.grouped)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Channels { samples, channels, inner, layout } = self.view;
        let place = self.walk.place();
        write!(f, "{} {} {}", self.op.name(), self.walk.dtype.short(), layout.name())?;
        write!(f, " {samples}x{channels}x{inner}")?;
        if self.activation != Activation::None {
            write!(f, " {}", self.activation.key())?;
        }
        if self.merged > 1 {
            write!(f, " by {}", self.merged)?;
        }
        let checked = self.checked.then_some("checked");
        for word in self.words.iter().copied().chain(checked) {
            write!(f, " {word}")?;
        }
        if !place.is_empty() {
            write!(f, " {place}")?;
        }
        Ok(())
    }
}
