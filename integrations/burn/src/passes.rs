//! Passes of wgnorm over cubecl's tensors, where they lie.

use burn::tensor::DType;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use wgnorm::family::{self, Kind};
use wgnorm::norm::{CrossIteration, GhostSaved};
use wgnorm::{
    Affine, BatchNorm, Context, DynamicTanh, FrozenBatchNorm, GradientTargets, GroupNorm, Input, LayerNorm,
    Layout, Prepared, Result, RmsNorm, RunningStatistics, Saved, Tensor, wgpu,
};

use crate::device::{Shared, find};
use crate::ops::{Gradients, Maybe, Operands, Outputs};
use crate::place::{Dense, Placed, place, room};
use crate::problem::{Norm, Problem, Wanted, ghost_records};
use crate::statistics::Source;

/// What is given, where it lies and as the kernels see it.
struct Given<'p> {
    shared: Shared,
    problem: &'p Problem,
    x: Dense,
    /// As burn has it.
    shape: Vec<usize>,
    dims: Vec<usize>,
    px: Placed,
    residual: Option<Placed>,
    gamma: Option<Placed>,
    beta: Option<Placed>,
    alpha: Option<Placed>,
    /// Mean and variance.
    running: Option<[Placed; 2]>,
}

impl<'p> Given<'p> {
    fn new(operands: &Operands<CubeBackend>, problem: &'p Problem) -> Result<Self> {
        let Operands { x, gamma, beta, alpha, residual, mean, var } = operands;
        let shared =
            find(&x.device).unwrap_or_else(|| panic!("{:?} is not shared: wgnorm_burn::init", x.device));
        let context = &shared.context;
        let shape: Vec<usize> = x.meta.shape().iter().copied().collect();
        let x = Dense::of(x.clone(), problem.norm.has_channels());
        let dims = problem.norm.dims(x.memory_dims(), x.layout == Layout::ChannelsLast);
        let px = x.place(context, &dims)?;
        let residual = residual.clone().get().map(|of| Dense::in_layout(of, x.layout).place(context, &dims));
        let [gamma, beta, alpha, mean, var] = [gamma, beta, alpha, mean, var].map(|of| vector(context, of));
        let running = mean?.zip(var?).map(|(mean, var)| [mean, var]);
        let (gamma, beta, alpha) = (gamma?, beta?, alpha?);
        Ok(Self {
            residual: residual.transpose()?,
            shape,
            dims,
            px,
            gamma,
            beta,
            alpha,
            running,
            x,
            problem,
            shared,
        })
    }

    fn context(&self) -> &Context {
        &self.shared.context
    }

    fn channels(&self) -> usize {
        if self.problem.norm.has_channels() { self.shape[1] } else { self.shape[self.shape.len() - 1] }
    }

    fn affine(&self) -> (Option<Tensor>, Option<Tensor>, Affine) {
        let [gamma, beta] = [&self.gamma, &self.beta].map(|of| of.as_deref().cloned());
        let affine = match (&gamma, &beta) {
            (Some(_), Some(_)) => Affine::Both,
            (Some(_), None) => Affine::Weight,
            (None, Some(_)) => Affine::Bias,
            (None, None) => Affine::None,
        };
        (gamma, beta, affine)
    }

    fn input(&self) -> Input<'_> {
        Input::from(&*self.px).with_residual(self.residual.as_deref()).masked(self.problem.mask.as_ref())
    }

    /// A tensor of x's shape and layout.
    fn place(&self, like_x: &Dense) -> Result<Placed> {
        like_x.place(self.context(), &self.dims)
    }

    /// Where the statistics of an update are: a copy of burn's.
    async fn running(&self) -> Result<Tensor> {
        match self.problem.norm {
            // Between submissions another thread's might be written.
            Norm::Batch { statistics: Source::Synchronised(_) | Source::CrossIteration(_), .. } => {
                self.context().zeros(&[3, self.channels()]).await
            }
            _ => self.shared.running(self.channels()).await,
        }
    }

    fn batch(&self, running: &Tensor) -> Result<BatchNorm> {
        let (gamma, beta, affine) = self.affine();
        let running = RunningStatistics::from_tensor(self.context(), running)?;
        BatchNorm::from_parts(self.context(), self.problem.batch_options(affine), gamma, beta, running)
    }

    fn frozen(&self, running: &Tensor) -> Result<FrozenBatchNorm> {
        let (gamma, beta, affine) = self.affine();
        let running = RunningStatistics::from_tensor(self.context(), running)?;
        FrozenBatchNorm::from_parts(self.context(), self.problem.batch_options(affine), gamma, beta, running)
    }

    fn layer(&self) -> Result<LayerNorm> {
        let (gamma, beta, affine) = self.affine();
        let options = self.problem.norm_options(affine);
        LayerNorm::from_parts(self.context(), &[self.channels()], options, gamma, beta)
    }

    fn rms(&self) -> Result<RmsNorm> {
        let (gamma, beta, affine) = self.affine();
        let options = self.problem.norm_options(affine);
        RmsNorm::from_parts(self.context(), &[self.channels()], options, gamma, beta)
    }

    fn group(&self, groups: usize) -> Result<GroupNorm> {
        let (gamma, beta, affine) = self.affine();
        let options = self.problem.norm_options(affine);
        GroupNorm::from_parts(self.context(), groups, self.channels(), options, gamma, beta)
    }

    fn tanh(&self) -> Result<DynamicTanh> {
        let (gamma, beta, _) = self.affine();
        let alpha = self.alpha.as_deref().cloned();
        let alpha = alpha.unwrap_or_else(|| unreachable!("every layer of this kind has an alpha"));
        DynamicTanh::from_parts(self.context(), self.problem.curve_options(), alpha, gamma, beta)
    }

    /// A forward pass of a norm of the family.
    async fn forward<K: Kind>(
        &self,
        layer: &family::Norm<K>,
        y: &Tensor,
        saved: Option<&Tensor>,
    ) -> Result<Prepared> {
        let saved = saved.map(|saved| layer.room_in(self.input(), saved)).transpose()?;
        layer.prepare_forward(self.input(), y, saved.as_ref()).await
    }

    /// Its backward pass.
    async fn backward<K: Kind>(
        &self,
        layer: &family::Norm<K>,
        dy: &Tensor,
        saved: &Tensor,
        targets: &GradientTargets<'_>,
    ) -> Result<Prepared> {
        layer.prepare_backward(self.input(), dy, &layer.room_in(self.input(), saved)?, targets).await
    }

    /// What a pass over a ghost batch saves, part by part.
    fn ghost(&self, size: usize, all: &Tensor) -> Result<GhostSaved> {
        let context = self.context();
        let samples = self.shape[0];
        let record = all.shape().dims()[1];
        let part = |first: usize| {
            let x = self.px.slice_samples(first..samples.min(first + size))?;
            let from =
                all.byte_offset() + (first / size * ghost_records(self.channels()) * record * 4) as u64;
            let dims = [self.channels(), record];
            let records = Tensor::from_buffer(context, all.buffer().clone(), from, &dims)?;
            Saved::from_tensor(context, &x, &records)
        };
        let parts: Result<_> = (0..samples).step_by(size).map(part).collect();
        GhostSaved::from_parts(&self.px, size, parts?)
    }

    /// Copies burn's running statistics to where a pass has them.
    fn taking(&self, running: &Tensor) -> impl FnOnce(&mut wgpu::CommandEncoder) {
        move |encoder| {
            for (row, of) in self.running.iter().flatten().enumerate() {
                copy(encoder, of, 0, running, row as u64);
            }
        }
    }
}

/// Copies a row of values to a row of others.
fn copy(encoder: &mut wgpu::CommandEncoder, from: &Tensor, from_row: u64, to: &Tensor, to_row: u64) {
    let len = from.byte_len().min(to.byte_len());
    let [from_offset, to_offset] =
        [(from, from_row), (to, to_row)].map(|(of, row)| of.byte_offset() + row * len);
    encoder.copy_buffer_to_buffer(from.buffer(), from_offset, to.buffer(), to_offset, len);
}

/// A parameter where it lies.
fn vector(context: &Context, of: &Maybe<CubeBackend>) -> Result<Option<Placed>> {
    let Maybe::Yes(of) = of else { return Ok(None) };
    let of = Dense::in_layout(of.clone(), Layout::ChannelsFirst);
    of.place(context, &of.memory_dims()).map(Some)
}

pub fn forward(operands: Operands<CubeBackend>, problem: &Problem) -> Result<Outputs<CubeBackend>> {
    let given = Given::new(&operands, problem)?;
    let context = given.context();
    let y = given.x.room();
    let py = given.place(&y)?;
    let saved = problem.saved(&given.shape).map(|dims| (room(&operands.x, &dims, DType::F32), dims));
    let psaved = saved.as_ref().map(|(saved, dims)| place(context, saved, dims)).transpose()?;
    let (input, psaved) = (given.input(), psaved.as_deref());
    let (mut mean, mut var) = (Maybe::No, Maybe::No);
    context.block_on(async {
        let prepared: Prepared = match &problem.norm {
            Norm::Batch { statistics, .. } => {
                let [new_mean, new_var] = [0, 1].map(|_| room(&operands.x, &[given.channels()], DType::F32));
                let ghost = match (statistics, psaved) {
                    (Source::Ghost(size), Some(saved)) => Some(given.ghost(*size, saved)?),
                    _ => None,
                };
                let saved = psaved.filter(|_| ghost.is_none());
                let saved = saved.map(|saved| Saved::from_tensor(context, &given.px, saved)).transpose()?;
                update(&given, statistics, (&py, saved, ghost), [&new_mean, &new_var]).await?;
                (mean, var) = (Maybe::Yes(new_mean), Maybe::Yes(new_var));
                return Ok(());
            }
            Norm::Frozen => {
                let running = given.running().await?;
                let prepared = given.frozen(&running)?.prepare_infer(input, &py).await?;
                return context.submit_between(given.taking(&running), &[&prepared], |_| {}).await;
            }
            Norm::Layer => given.forward(&given.layer()?, &py, psaved).await?,
            Norm::Rms => given.forward(&given.rms()?, &py, psaved).await?,
            Norm::Group(groups) => given.forward(&given.group(*groups)?, &py, psaved).await?,
            Norm::Tanh => given.tanh()?.prepare_forward(input, &py).await?,
        };
        context.submit(&[&prepared]).await
    })?;
    Ok(Outputs { y: y.tensor, saved: Maybe::of(saved.map(|(saved, _)| saved)), mean, var })
}

/// A training pass of batch norm, and the running statistics that come of it.
async fn update(
    given: &Given<'_>,
    statistics: &Source,
    (y, saved, ghost): (&Tensor, Option<Saved>, Option<GhostSaved>),
    results: [&CubeTensor; 2],
) -> Result<()> {
    let (context, input) = (given.context(), given.input());
    let running = given.running().await?;
    let mut layer = given.batch(&running)?;
    let [mean, var] = results.map(|of| place(context, of, &[given.channels()]));
    let results = [mean?, var?];
    let giving = |encoder: &mut wgpu::CommandEncoder| {
        for (row, to) in results.iter().enumerate() {
            copy(encoder, &running, row as u64, to, 0);
        }
    };
    let pass = match (statistics, &ghost) {
        (Source::Ghost(_), Some(saved)) => layer.prepare_train_forward_ghost(input, y, saved).await?,
        (Source::CrossIteration(last), _) => {
            context.submit_between(given.taking(&running), &[], |_| {}).await?;
            let saved = saved.map(Saved::pooled);
            let step = |last: &mut CrossIteration| {
                context.block_on(last.train_forward_into(&mut layer, input, y, saved.as_ref()))
            };
            last.on(&given.x.tensor.device, step)?;
            return context.submit_between(|_| {}, &[], giving).await;
        }
        (Source::Synchronised(turn), _) => {
            let exchange = turn.forward();
            context.submit_between(given.taking(&running), &[], |_| {}).await?;
            let saved = saved.map(Saved::pooled);
            let mut layer = layer.synchronised(&exchange);
            let mut pass = layer.prepare_train_forward(input, y, saved.as_ref()).await?;
            layer.submit_forward(&mut pass).await?;
            return context.submit_between(|_| {}, &[], giving).await;
        }
        _ => layer.prepare_train_forward(input, y, saved.as_ref()).await?,
    };
    context.submit_between(given.taking(&running), &[pass.operation(&mut layer)?], giving).await
}

pub fn backward(
    operands: Operands<CubeBackend>,
    saved: Maybe<CubeBackend>,
    dy: CubeTensor,
    wanted: Wanted,
    problem: &Problem,
) -> Result<Gradients<CubeBackend>> {
    let given = Given::new(&operands, problem)?;
    let context = given.context();
    let dy = given.place(&Dense::in_layout(dy, given.x.layout))?;
    let [dx, d_residual] = [wanted.x, wanted.residual].map(|wanted| wanted.then(|| given.x.room()));
    let of = |wanted: bool, of: &Maybe<CubeBackend>| match of {
        Maybe::Yes(of) if wanted => Some(room(of, &[of.meta.shape()[0]], of.dtype)),
        _ => None,
    };
    let dgamma = of(wanted.gamma, &operands.gamma);
    let dbeta = of(wanted.beta, &operands.beta);
    let dalpha = of(wanted.alpha, &operands.alpha);
    let walked = [&dx, &d_residual].map(|of| of.as_ref().map(|of| given.place(of)).transpose());
    let [pdx, pd_residual] = walked;
    let (pdx, pd_residual) = (pdx?, pd_residual?);
    let [pdgamma, pdbeta, pdalpha] =
        [&dgamma, &dbeta, &dalpha].map(|of| vector(context, &Maybe::of(of.clone())));
    let (pdgamma, pdbeta, pdalpha) = (pdgamma?, pdbeta?, pdalpha?);
    let targets = GradientTargets::default()
        .dx(pdx.as_deref())
        .d_residual(pd_residual.as_deref())
        .dgamma(pdgamma.as_deref())
        .dbeta(pdbeta.as_deref())
        .dalpha(pdalpha.as_deref());
    let psaved = saved.get().zip(problem.saved(&given.shape));
    let psaved = psaved.map(|(saved, dims)| place(context, &saved, &dims)).transpose()?;
    let saved = || psaved.as_deref().unwrap_or_else(|| unreachable!("what is tracked is kept"));
    let (input, x) = (given.input(), &*given.px);
    context.block_on(async {
        let prepared = match &problem.norm {
            Norm::Batch { statistics, .. } => {
                let layer = given.batch(&given.shared.running(given.channels()).await?)?;
                let of_batch = || Saved::from_tensor(context, x, saved());
                match statistics {
                    Source::Ghost(size) => {
                        let saved = given.ghost(*size, saved())?;
                        layer.prepare_backward_ghost(input, &dy, &saved, &targets).await?
                    }
                    Source::CrossIteration(_) => {
                        return CrossIteration::backward_into(
                            &layer,
                            input,
                            &dy,
                            &of_batch()?.pooled(),
                            &targets,
                        )
                        .await;
                    }
                    Source::Synchronised(turn) => {
                        let exchange = turn.backward();
                        let layer = layer.synchronised(&exchange);
                        let saved = of_batch()?.pooled();
                        let mut pass = layer.prepare_backward(input, &dy, &saved, &targets).await?;
                        return layer.submit_backward(&mut pass).await;
                    }
                    _ => layer.prepare_backward(input, &dy, &of_batch()?, &targets).await?,
                }
            }
            Norm::Frozen => {
                let running = given.running().await?;
                let prepared = given.frozen(&running)?.prepare_backward(input, &dy, &targets).await?;
                return context.submit_between(given.taking(&running), &[&prepared], |_| {}).await;
            }
            Norm::Layer => given.backward(&given.layer()?, &dy, saved(), &targets).await?,
            Norm::Rms => given.backward(&given.rms()?, &dy, saved(), &targets).await?,
            Norm::Group(groups) => given.backward(&given.group(*groups)?, &dy, saved(), &targets).await?,
            Norm::Tanh => given.tanh()?.prepare_backward(input, &dy, &targets).await?,
        };
        context.submit(&[&prepared]).await
    })?;
    let [x, residual] = [dx, d_residual].map(|of| Maybe::of(of.map(|of| of.tensor)));
    let [gamma, beta, alpha] = [dgamma, dbeta, dalpha].map(Maybe::of);
    Ok(Gradients { x, gamma, beta, alpha, residual })
}
