//! The kernels as operations of burn's backends: on cubecl's tensors, under fusion, with gradients. One pair for all norms: which one is data.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId};
use burn::backend::tensor::FloatTensor;
use burn::backend::{AutodiffBackend, Backend, backend_extension};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use wgnorm::{Context, GradientTargets};

use crate::device::context_of;
use crate::place::{Dense, Placed, place, room};
use crate::problem::{AnyNorm, Norm, Problem};

/// Norms, forward and backward.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait NormOps: Backend {
    /// y, and what backward needs. `statistics` are the running ones `[3, C]` of what is frozen; elsewhere gamma stands in their place.
    #[fusion(meta = |x, _gamma, _beta, _statistics, problem| (x.clone(), crate::ops::saved(x, problem)))]
    fn wgnorm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        problem: Problem,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// dx, dgamma, dbeta; of a parameter that there is none of, nothing that means anything.
    #[fusion(meta = |x, gamma, beta, _statistics, _saved, _dy, _problem| (x.clone(), gamma.clone(), beta.clone()))]
    fn wgnorm_backward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        problem: Problem,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;

#[cfg(feature = "fusion")]
pub(crate) fn saved(x: &TensorSpec, problem: &Problem) -> TensorSpec {
    let dims: Vec<usize> = x.shape.iter().copied().collect();
    TensorSpec::new(problem.norm.saved(&dims).into(), x.dtype)
}

/// What a pass is on: a device that was found to be shared before.
fn context(x: &CubeTensor) -> Context {
    context_of(&x.device).unwrap_or_else(|| panic!("{:?} is not shared: wgnorm_burn::init", x.device))
}

/// x as the kernels see it, with parameters where they lie.
struct Given {
    context: Context,
    problem: Problem,
    x: Dense,
    /// As burn has it.
    shape: Vec<usize>,
    dims: Vec<usize>,
    px: Placed,
    gamma: Placed,
    beta: Placed,
}

impl Given {
    fn new(x: CubeTensor, gamma: &CubeTensor, beta: &CubeTensor, problem: Problem) -> wgnorm::Result<Self> {
        let context = context(&x);
        let shape: Vec<usize> = x.meta.shape().iter().copied().collect();
        let x = Dense::of(x, problem.norm.has_channels());
        let dims = problem.norm.dims(x.memory_dims(), x.layout == wgnorm::Layout::ChannelsLast);
        let px = x.place(&context, &dims)?;
        let [gamma, beta] = [gamma, beta].map(|of| place(&context, of, &[of.meta.shape()[0]]));
        Ok(Self { context, problem, x, shape, dims, px, gamma: gamma?, beta: beta? })
    }

    fn channels(&self) -> usize {
        if self.problem.norm.has_channels() { self.shape[1] } else { self.shape[self.shape.len() - 1] }
    }

    /// The layer, with running statistics, or room for them that nobody uses.
    fn layer(&self, statistics: &CubeTensor, saved: &CubeTensor) -> wgnorm::Result<AnyNorm> {
        let channels = self.channels();
        let of = if self.problem.norm == Norm::Frozen { statistics } else { saved };
        let dims =
            if matches!(self.problem.norm, Norm::Batch | Norm::Frozen) { vec![3, channels] } else { vec![1] };
        let statistics = place(&self.context, of, &dims)?;
        self.problem.layer(&self.context, [&self.gamma, &self.beta], &statistics, channels)
    }

    fn saved(&self, saved: &CubeTensor) -> wgnorm::Result<Placed> {
        place(&self.context, saved, &self.problem.norm.saved(&self.shape))
    }
}

fn forward(
    x: CubeTensor,
    [gamma, beta, statistics]: [CubeTensor; 3],
    problem: Problem,
) -> wgnorm::Result<(CubeTensor, CubeTensor)> {
    let given = Given::new(x, &gamma, &beta, problem)?;
    let (y, saved) = (given.x.room(), room(&given.x.tensor, &problem.norm.saved(&given.shape)));
    let py = y.place(&given.context, &given.dims)?;
    let layer = given.layer(&statistics, &saved)?;
    let psaved = given.saved(&saved)?;
    given.context.block_on(async {
        let prepared = layer.forward(&given.context, &given.px, &py, &psaved).await?;
        given.context.submit(&[&prepared]).await
    })?;
    Ok((y.tensor, saved))
}

fn backward(
    x: CubeTensor,
    [gamma, beta, statistics, saved]: [CubeTensor; 4],
    dy: CubeTensor,
    problem: Problem,
) -> wgnorm::Result<(CubeTensor, CubeTensor, CubeTensor)> {
    let given = Given::new(x, &gamma, &beta, problem)?;
    let dy = Dense::in_layout(dy, given.x.layout);
    let dx = given.x.room();
    let [dgamma, dbeta] = [&gamma, &beta].map(|of| room(of, &[of.meta.shape()[0]]));
    let (pdy, pdx) = (dy.place(&given.context, &given.dims)?, dx.place(&given.context, &given.dims)?);
    let [pdgamma, pdbeta] = [&dgamma, &dbeta].map(|of| place(&given.context, of, &[of.meta.shape()[0]]));
    let (pdgamma, pdbeta) = (pdgamma?, pdbeta?);
    let [has_gamma, has_beta] = problem.affine;
    let targets = GradientTargets::default()
        .dx(&*pdx)
        .dgamma(has_gamma.then_some(&*pdgamma))
        .dbeta(has_beta.then_some(&*pdbeta));
    let layer = given.layer(&statistics, &saved)?;
    let psaved = given.saved(&saved)?;
    given.context.block_on(async {
        let prepared = layer.backward(&given.context, (&given.px, &pdy), &psaved, &targets).await?;
        given.context.submit(&[&prepared]).await
    })?;
    Ok((dx.tensor, dgamma, dbeta))
}

/// A pass that cannot be run ends as burn's own operations do: with what went wrong.
fn passed<T>(result: wgnorm::Result<T>, problem: Problem) -> T {
    result.unwrap_or_else(|error| panic!("wgnorm: {problem:?}: {error}"))
}

impl NormOps for CubeBackend {
    fn wgnorm_forward(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        statistics: CubeTensor,
        problem: Problem,
    ) -> (CubeTensor, CubeTensor) {
        passed(forward(x, [gamma, beta, statistics], problem), problem)
    }

    fn wgnorm_backward(
        x: CubeTensor,
        gamma: CubeTensor,
        beta: CubeTensor,
        statistics: CubeTensor,
        saved: CubeTensor,
        dy: CubeTensor,
        problem: Problem,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        passed(backward(x, [gamma, beta, statistics, saved], dy, problem), problem)
    }
}

impl<B: NormOps, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn wgnorm_forward(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        beta: FloatTensor<Self>,
        statistics: FloatTensor<Self>,
        problem: Problem,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        #[derive(Debug)]
        struct Normalized;

        impl<B: NormOps> Backward<B, 3> for Normalized {
            type State = ([NodeId; 3], FloatTensor<B>, FloatTensor<B>, Problem);

            fn backward(
                self,
                ops: Ops<Self::State, 3>,
                grads: &mut Gradients,
                checkpointer: &mut Checkpointer,
            ) {
                let dy = grads.consume::<B>(&ops.node);
                let (inputs, statistics, saved, problem) = ops.state;
                let [x, gamma, beta] =
                    inputs.map(|of| checkpointer.retrieve_node_output::<FloatTensor<B>>(of));
                let (dx, dgamma, dbeta) = B::wgnorm_backward(x, gamma, beta, statistics, saved, dy, problem);
                let [has_gamma, has_beta] = problem.affine;
                let all = [(true, dx), (has_gamma, dgamma), (has_beta, dbeta)];
                for (node, (is, gradient)) in ops.parents.into_iter().zip(all) {
                    if let Some(node) = node.filter(|_| is) {
                        grads.register::<B>(node.id, gradient);
                    }
                }
            }
        }

        let statistics = statistics.into_primitive();
        let forward = |x: FloatTensor<Self>, gamma: FloatTensor<Self>, beta: FloatTensor<Self>| {
            let [x, gamma, beta] = [x, gamma, beta].map(|of| of.into_primitive());
            B::wgnorm_forward(x, gamma, beta, statistics.clone(), problem)
        };
        let nodes = [x.node(), gamma.node(), beta.node()];
        let (y, saved) = match Normalized.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [prep.checkpoint(&x), prep.checkpoint(&gamma), prep.checkpoint(&beta)];
                let (y, saved) = forward(x, gamma, beta);
                (prep.finish((inputs, statistics.clone(), saved.clone(), problem), y), saved)
            }
            OpsKind::UnTracked(prep) => {
                let (y, saved) = forward(x, gamma, beta);
                (prep.finish(y), saved)
            }
        };
        (y, Self::from_inner(saved))
    }

    fn wgnorm_backward(
        _x: FloatTensor<Self>,
        _gamma: FloatTensor<Self>,
        _beta: FloatTensor<Self>,
        _statistics: FloatTensor<Self>,
        _saved: FloatTensor<Self>,
        _dy: FloatTensor<Self>,
        _problem: Problem,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        panic!("wgnorm has no gradients of gradients")
    }
}
