//! A norm of the family on the GPU.

use wgnorm::{
    Affine, GroupNorm, Input, InstanceNorm, Kind, L2Norm, LayerNorm, MeanVarianceNorm, Modulation, Norm,
    Result, RmsNorm, RunningStatistics, SavedSlices, ScaleNorm, SliceStatistics, Tensor, TrackedInstanceNorm,
    WeightNorm, WeightStandardization,
};

use super::{Of, Tracked, Work};
use crate::check::arena::Role;
use crate::check::run::{Run, Upstream};

pub async fn run(run: &mut Run<'_>, work: &Work) -> Result<()> {
    let (context, dims) = (run.context, &run.problem.dims);
    let placed = run.put_parameters(&work.of.parameter_dims(dims, work.modulated)).await?;
    let modulated = work.modulated.then(|| placed.clone());
    let ([gamma, beta], options) = match modulated {
        Some(_) => ([None, None], work.options.affine(Affine::None)),
        None => (placed, work.options),
    };
    let pass = Pass { work, modulated };
    let trailing = |axes: usize| &dims[dims.len() - axes..];
    match &work.of {
        Of::Layer(axes) => {
            pass.of(run, &LayerNorm::from_parts(context, trailing(*axes), options, gamma, beta)?).await
        }
        Of::Rms(axes) => {
            pass.of(run, &RmsNorm::from_parts(context, trailing(*axes), options, gamma, beta)?).await
        }
        Of::Group(groups) => {
            pass.of(run, &GroupNorm::from_parts(context, *groups, dims[1], options, gamma, beta)?).await
        }
        Of::Instance => match &work.tracked {
            Some(Tracked { options, running }) => {
                let running = RunningStatistics::upload(context, running).await?;
                let layer = TrackedInstanceNorm::from_parts(context, *options, gamma, beta, running)?;
                pass.of_tracked(run, layer).await
            }
            None => pass.of(run, &InstanceNorm::from_parts(context, dims[1], options, gamma, beta)?).await,
        },
        Of::MeanVariance(axes) => pass.of(run, &MeanVarianceNorm::new(context, axes, options).await?).await,
        Of::L2(axes) => pass.of(run, &L2Norm::new(context, axes, options).await?).await,
        Of::Scale => {
            let places = dims.last().copied().unwrap_or(0);
            pass.of(run, &ScaleNorm::from_parts(context, places, options, gamma, beta)?).await
        }
        Of::Weight => pass.of(run, &WeightNorm::from_parts(context, dims[0], options, gamma)?).await,
        Of::Standardization => {
            pass.of(run, &WeightStandardization::from_parts(context, dims[0], options, gamma)?).await
        }
    }
}

/// Both passes of a layer.
struct Pass<'w> {
    work: &'w Work,
    /// gamma and beta of each sample.
    modulated: Option<[Option<Tensor>; 2]>,
}

impl Pass<'_> {
    fn input<'t>(&'t self, x: &'t Tensor, residual: Option<&'t Tensor>) -> Input<'t> {
        let of = |[gamma, beta]: &'t [Option<Tensor>; 2]| Modulation {
            gamma: gamma.as_ref(),
            beta: beta.as_ref(),
        };
        Input { residual, modulation: self.modulated.as_ref().map(of), ..Input::from(x) }
    }

    async fn of<K: Kind>(&self, run: &mut Run<'_>, layer: &Norm<K>) -> Result<()> {
        let Self { work, .. } = self;
        let x = run.put(&work.x, Role::Read).await?;
        let residual = run.put_residual().await?;
        let saved = layer.room_for(&x).await?;
        let x = self.forward(run, layer, x, residual.as_ref(), Some(&saved), "").await?;
        push_statistics(run, &saved).await?;
        if run.problem.expects("y_alone") {
            let role = if run.problem.in_place { Role::Written } else { Role::Read };
            let x = run.put(&work.x, role).await?;
            self.forward(run, layer, x, residual.as_ref(), None, "_alone").await?;
        }
        let Some(dy) = &work.dy else { return Ok(()) };
        let upstream = Upstream { dy, d_sum: work.sum.as_ref().map(|sum| &sum.d_sum[..]) };
        let parameters = work.of.parameter_dims(&run.problem.dims, work.modulated);
        run.backward(upstream, &parameters, async |dy, d_sum, targets| {
            let input = self.input(&x, residual.as_ref());
            match d_sum {
                Some(d_sum) => layer.prepare_backward_of_sum(input, dy, d_sum, &saved, targets).await,
                None => layer.prepare_backward(input, dy, &saved, targets).await,
            }
        })
        .await
    }

    /// Runs a forward pass and returns what was normalized. Where nothing is saved, x is of no more use, and is written over in place.
    async fn forward<K: Kind>(
        &self,
        run: &mut Run<'_>,
        layer: &Norm<K>,
        x: Tensor,
        residual: Option<&Tensor>,
        saved: Option<&SavedSlices>,
        suffix: &str,
    ) -> Result<Tensor> {
        let in_place = run.problem.in_place;
        let over_x = in_place && saved.is_none();
        let input = self.input(&x, residual);
        let Some(sum) = &self.work.sum else {
            let y = if over_x { x.clone() } else { run.output().await? };
            let forward = layer.prepare_forward(input, &y, saved).await?;
            run.submit(&forward).await?;
            run.push_batch(&format!("y{suffix}"), &y).await?;
            return Ok(x);
        };
        let over_addend = in_place && !over_x;
        let addend = run.put(&sum.addend, if over_addend { Role::Written } else { Role::Read }).await?;
        let (sum, y) = match in_place {
            true if over_x => (x.clone(), run.output().await?),
            true => (addend.clone(), run.output().await?),
            false => (run.output().await?, run.output().await?),
        };
        let forward = layer.prepare_forward_of_sum(input, &addend, &sum, &y, saved).await?;
        run.submit(&forward).await?;
        run.push_batch(&format!("sum{suffix}"), &sum).await?;
        run.push_batch(&format!("y{suffix}"), &y).await?;
        Ok(sum)
    }

    async fn of_tracked(&self, run: &mut Run<'_>, mut layer: TrackedInstanceNorm) -> Result<()> {
        let Self { work, .. } = self;
        let (x, residual, y) = run.put_forward(&work.x, false).await?;
        let input = self.input(&x, residual.as_ref());
        let saved = layer.room_for(&x).await?;
        let forward = layer.prepare_train_forward(input, &y, &saved).await?;
        run.took(forward.kernels());
        layer.submit(&forward).await?;
        run.push_batch("y", &y).await?;
        push_statistics(run, &saved).await?;
        run.push_running("", layer.running().download(run.context).await?);
        let Some(dy) = &work.dy else { return Ok(()) };
        let channels = &run.problem.dims[1..2];
        run.backward(Upstream { dy, d_sum: None }, channels, async |dy, _, targets| {
            layer.prepare_backward(input, dy, &saved, targets).await
        })
        .await
    }
}

/// The statistics of all slices.
async fn push_statistics(run: &mut Run<'_>, saved: &SavedSlices) -> Result<()> {
    let statistics = saved.download(run.context).await?;
    let column = |f: fn(&SliceStatistics) -> f32| statistics.iter().map(f).collect();
    run.push("save_mean", column(|s| s.mean() as f32));
    run.push("save_var", column(|s| s.var));
    run.push("save_invstd", column(|s| s.inv_std));
    Ok(())
}
