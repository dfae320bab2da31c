//! Training over micro-batches as if they were one batch: statistics and gradient sums merged over all of them.

use super::batch::BatchNorm;
use super::composition::{Part, check_parts};
use crate::base::error::{Error, Result};
use crate::engine::prepared::Prepared;
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::engine::verdicts::together;
use crate::pass::input::Input;
use crate::pass::{GradientTargets, TrainForward};
use crate::plan::Op;
use crate::statistics::gradient_sums::GradientSums;
use crate::statistics::moments::Moments;
use crate::statistics::saved::Saved;

/// One of several batches that are trained as one: what forward takes and gives.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatch<'a> {
    /// x, with a residual perhaps.
    pub input: Input<'a>,
    /// Where y goes.
    pub y: &'a Tensor,
    /// What backward needs, [pooled](Saved::pooled).
    pub saved: &'a Saved,
}

/// One of several batches that are trained as one: what backward takes and gives.
#[derive(Clone, Copy, Debug)]
pub struct MicroBatchGradient<'a> {
    /// As in forward.
    pub input: Input<'a>,
    /// The gradient of y.
    pub dy: &'a Tensor,
    /// What forward saved.
    pub saved: &'a Saved,
    /// Where dx goes.
    pub dx: &'a Tensor,
    /// Where the gradient of the residual goes, if it is asked for.
    pub d_residual: Option<&'a Tensor>,
}

impl<'a> MicroBatch<'a> {
    fn part(&self) -> Part<'a> {
        let residual = self.input.residual.map(|residual| (Slot::Residual, residual));
        let reads = [(Slot::X, self.input.x)].into_iter().chain(residual).collect();
        Part { reads, writes: vec![(Slot::Y, self.y)] }
    }
}

impl<'a> MicroBatchGradient<'a> {
    fn part(&self) -> Part<'a> {
        let residual = self.input.residual.map(|residual| (Slot::Residual, residual));
        let reads = [(Slot::X, self.input.x), (Slot::Dy, self.dy)].into_iter().chain(residual).collect();
        let d_residual = self.d_residual.map(|d_residual| (Slot::DResidual, d_residual));
        Part { reads, writes: [(Slot::Dx, self.dx)].into_iter().chain(d_residual).collect() }
    }
}

/// The gradients of several batches that are trained as one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AccumulatedGradients {
    /// Gradient of x, of each batch.
    pub dx: Vec<Tensor>,
    /// Gradient of the residual, of each batch that has one. Without an activation and a mask it is its dy.
    pub d_residual: Vec<Option<Tensor>>,
    /// Gradient of gamma over all batches, `[C]`, if the layer has one.
    pub dgamma: Option<Tensor>,
    /// Gradient of beta over all batches, `[C]`, if the layer has one.
    pub dbeta: Option<Tensor>,
}

impl BatchNorm {
    /// Prepares y of several batches from the statistics of all of them together, as if they were one batch: moments of each,
    /// merged, then mapped. Running statistics are updated once. Moves 3 tensors of each.
    ///
    /// For batches that do not fit into memory as one, with activations recomputed layer by layer; they may differ in the number of
    /// samples and in shape, and be empty.
    ///
    /// # Errors
    /// [`Error::Empty`] for no batches, [`Error::EmptyBatch`] if all are empty, [`Error::SingleValue`], [`Error::Overlap`] also between
    /// batches, and those of [`prepare_train_forward`](Self::prepare_train_forward).
    pub async fn prepare_train_forward_accumulated(
        &mut self,
        batches: &[MicroBatch<'_>],
    ) -> Result<TrainForward> {
        let context = &self.parts.context;
        let first = batches.first().ok_or(Error::Empty { what: "training over micro-batches" })?;
        let mut count = 0;
        for batch in batches {
            count += self.check_composed(batch.input)?.cut.view().count();
        }
        self.parts.check_count(count, first.input.x.shape())?;
        check_parts(&batches.iter().map(MicroBatch::part).collect::<Vec<_>>())?;
        let mut steps = Vec::new();
        let mut moments = Vec::new();
        // Empty ones add nothing, and no dispatch would rewrite theirs before the next merge.
        for batch in batches.iter().filter(|batch| batch.input.x.shape().len() > 0) {
            let (of_batch, reduce) = Moments::prepare(context, batch.input).await?;
            steps.push(reduce);
            moments.push(of_batch);
        }
        steps.push(Moments::prepare_merge_all(context, &mut moments).await?);
        let pooled = &moments[0];
        for MicroBatch { input, y, saved } in batches {
            steps.push(self.prepare_batch(input.with_moments(pooled), y, Some(saved), false).await?);
        }
        steps.push(self.prepare_update(pooled).await?);
        batches.iter().for_each(|batch| batch.saved.note(self.noted(batch.input)));
        let prepared = Prepared::sequence(context, Op::TrainForward, steps);
        Ok(TrainForward::of(self.parts.id, prepared))
    }

    /// Prepares the gradients of several batches that were trained as one. `parameters` says where dgamma and dbeta over all of
    /// them go. Moves 5 tensors of each.
    ///
    /// # Errors
    /// [`Error::Empty`] for no batches, [`Error::NotHere`] for dx or d_residual in `parameters`, [`Error::Overlap`] also between batches, and those of
    /// [`prepare_gradient_sums`](Self::prepare_gradient_sums) and [`prepare_backward_from`](Self::prepare_backward_from).
    pub async fn prepare_backward_accumulated(
        &self,
        batches: &[MicroBatchGradient<'_>],
        parameters: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        let context = &self.parts.context;
        parameters.check_without(&[Slot::Dx, Slot::DResidual], "each micro-batch")?;
        if batches.is_empty() {
            return Err(Error::Empty { what: "training over micro-batches" });
        }
        check_parts(&batches.iter().map(MicroBatchGradient::part).collect::<Vec<_>>())?;
        let mut steps = Vec::new();
        let (mut sums, mut of_any) = (Vec::new(), None);
        for MicroBatchGradient { input, dy, saved, d_residual, .. } in batches {
            let targets = GradientTargets { d_residual: *d_residual, ..GradientTargets::default() };
            let (of_batch, reduce) = self.prepare_gradient_sums(*input, dy, saved, &targets).await?;
            // As in forward: no dispatch would rewrite those of an empty one.
            if input.x.shape().len() > 0 {
                steps.push(reduce);
                sums.push(of_batch);
                of_any = Some((*input, *saved));
            }
        }
        let Some((input, saved)) = of_any else {
            let first = batches[0].input;
            let (spec, dtype) = (self.check(first)?, first.x.dtype());
            spec.check_parameter_targets(dtype, parameters)?;
            return spec.prepare_empty_sums(Op::TrainBackward, dtype, parameters).await;
        };
        steps.push(GradientSums::prepare_merge_all(context, &mut sums).await?);
        // Once, from what all have together: 16-bit gradients are rounded once.
        steps.push(self.prepare_parameter_gradients(&sums[0], input, saved, parameters).await?);
        for MicroBatchGradient { input, dy, saved, dx, .. } in batches {
            let targets = GradientTargets { dx: Some(dx), ..GradientTargets::default() };
            steps.push(self.prepare_backward_from(&sums[0], *input, dy, saved, &targets).await?);
        }
        Ok(Prepared::sequence(context, Op::TrainBackward, steps))
    }

    /// y of several batches from the statistics of all of them together, and what backward needs of each. Submitted at once.
    ///
    /// ```
    /// use wgnorm::{BatchNorm, BatchNormOptions, Context};
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let a = context.upload(&[1, 1, 2], &[1.0, 3.0]).await?;
    ///     let b = context.upload(&[2, 1, 2], &[5.0, 7.0, 9.0, 11.0]).await?;
    ///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch()).await?;
    ///     let outputs = layer.train_forward_accumulated(&[(&a).into(), (&b).into()]).await?;
    ///     // As of one batch 1, 3, … 11: mean 6, variance 35/3.
    ///     let y = context.download(&outputs[1].0).await?;
    ///     assert!((y[0] + 1.0 / (35.0_f32 / 3.0).sqrt()).abs() < 1e-5);
    ///     assert_eq!(layer.running().download(&context).await?.batches, 1);
    ///
    ///     let gradients = layer
    ///         .backward_accumulated(&[(&a).into(), (&b).into()], &[&outputs[0].0, &outputs[1].0], &[&outputs[0].1, &outputs[1].1])
    ///         .await?;
    ///     assert!((context.download(&gradients.dgamma.unwrap()).await?[0] - 6.0).abs() < 1e-4);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`prepare_train_forward_accumulated`](Self::prepare_train_forward_accumulated).
    pub async fn train_forward_accumulated(&mut self, inputs: &[Input<'_>]) -> Result<Vec<(Tensor, Saved)>> {
        together(async {
            let mut outputs = Vec::new();
            for input in inputs {
                let (y, saved) = self.forward_outputs(*input).await?;
                outputs.push((y, saved.pooled()));
            }
            let batches: Vec<_> = inputs
                .iter()
                .zip(&outputs)
                .map(|(&input, (y, saved))| MicroBatch { input, y, saved })
                .collect();
            let forward = self.prepare_train_forward_accumulated(&batches).await?;
            self.submit(&forward).await?;
            Ok(outputs)
        })
        .await
    }

    /// All gradients of several batches that were trained as one. Submitted at once.
    ///
    /// # Errors
    /// [`Error::Number`] if there are not as many dy and saved as inputs, and those of
    /// [`prepare_backward_accumulated`](Self::prepare_backward_accumulated).
    pub async fn backward_accumulated(
        &self,
        inputs: &[Input<'_>],
        dys: &[&Tensor],
        saved: &[&Saved],
    ) -> Result<AccumulatedGradients> {
        together(async {
            for (what, got) in [("dy", dys.len()), ("saved statistics", saved.len())] {
                if got != inputs.len() {
                    return Err(Error::Number { what, expected: inputs.len(), got });
                }
            }
            let mut each = Vec::new();
            for (input, dy) in inputs.iter().zip(dys) {
                each.push(self.check(*input)?.allocate(*input, dy).await?);
            }
            let batches: Vec<_> = each
                .iter()
                .enumerate()
                .map(|(i, gradients)| MicroBatchGradient {
                    input: inputs[i],
                    dy: dys[i],
                    saved: saved[i],
                    dx: &gradients.dx,
                    d_residual: gradients.computed(dys[i]).d_residual,
                })
                .collect();
            let first = each.first().ok_or(Error::Empty { what: "training over micro-batches" })?;
            let parameters = GradientTargets { dx: None, d_residual: None, ..first.targets() };
            let backward = self.prepare_backward_accumulated(&batches, &parameters).await?;
            self.parts.context.submit(&[&backward]).await?;
            let (dgamma, dbeta) = (first.dgamma.clone(), first.dbeta.clone());
            let (dx, d_residual) = each.into_iter().map(|each| (each.dx, each.d_residual)).unzip();
            Ok(AccumulatedGradients { dx, d_residual, dgamma, dbeta })
        })
        .await
    }
}
