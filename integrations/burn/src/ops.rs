//! The kernels as operations of burn's backends: on cubecl's tensors, under fusion, with gradients. One pair for all norms: which one is data.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::autodiff::{Autodiff, NodeId, grads};
use burn::backend::tensor::FloatTensor;
use burn::backend::{AutodiffBackend, Backend, ExtensionType, backend_extension};
#[cfg(feature = "fusion")]
use burn::{backend::fusion::custom::TensorSpec, tensor::DType};
use burn_cubecl::CubeBackend;
use cubecl::client::Client;

use crate::passes;
#[cfg(feature = "fusion")]
use crate::problem::Norm;
use crate::problem::{Problem, Wanted};
use crate::rank::Turn;
use crate::stats;

/// A tensor, or none.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub enum Maybe<B: Backend> {
    No,
    Yes(FloatTensor<B>),
}

/// What a norm is given.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Operands<B: Backend> {
    pub x: FloatTensor<B>,
    #[extension_type]
    pub gamma: Maybe<B>,
    #[extension_type]
    pub beta: Maybe<B>,
    #[extension_type]
    pub alpha: Maybe<B>,
    #[extension_type]
    pub residual: Maybe<B>,
    /// The running mean, of f32.
    #[extension_type]
    pub mean: Maybe<B>,
    #[extension_type]
    pub var: Maybe<B>,
}

/// What forward gives.
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Outputs<B: Backend> {
    pub y: FloatTensor<B>,
    /// What backward needs: [`Problem::saved`].
    #[extension_type]
    pub saved: Maybe<B>,
    /// The running mean after the batch.
    #[extension_type]
    pub mean: Maybe<B>,
    #[extension_type]
    pub var: Maybe<B>,
}

/// What backward gives, as far as it is [wanted](Wanted).
#[derive(Clone, Debug, ExtensionType)]
#[extension_type(fusion: cfg(feature = "fusion"))]
pub struct Gradients<B: Backend> {
    #[extension_type]
    pub x: Maybe<B>,
    #[extension_type]
    pub gamma: Maybe<B>,
    #[extension_type]
    pub beta: Maybe<B>,
    #[extension_type]
    pub alpha: Maybe<B>,
    #[extension_type]
    pub residual: Maybe<B>,
}

/// Norms, forward and backward.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait NormOps: Backend {
    #[fusion(meta = crate::ops::outputs)]
    fn wgnorm_forward(#[extension_type] operands: Operands<Self>, problem: Problem) -> Outputs<Self>;

    #[fusion(meta = crate::ops::gradients)]
    fn wgnorm_backward(
        #[extension_type] operands: Operands<Self>,
        #[extension_type] saved: Maybe<Self>,
        dy: FloatTensor<Self>,
        wanted: Wanted,
        problem: Problem,
    ) -> Gradients<Self>;
}

impl<B: Backend> Maybe<B> {
    pub fn of(tensor: Option<FloatTensor<B>>) -> Self {
        tensor.map_or(Self::No, Self::Yes)
    }

    pub fn get(self) -> Option<FloatTensor<B>> {
        match self {
            Self::No => None,
            Self::Yes(tensor) => Some(tensor),
        }
    }
}

#[cfg(feature = "fusion")]
fn outputs(given: &OperandsMetadata, problem: &Problem) -> OutputsMetadata {
    let dims: Vec<usize> = given.x.shape.iter().copied().collect();
    let of = |dims: Vec<usize>| MaybeMetadata::Yes(TensorSpec::new(dims.into(), DType::F32));
    let running = || match problem.norm {
        Norm::Batch { .. } => of(vec![dims[1]]),
        _ => MaybeMetadata::No,
    };
    let saved = problem.saved(&dims).map_or(MaybeMetadata::No, of);
    OutputsMetadata { y: given.x.clone(), saved, mean: running(), var: running() }
}

#[cfg(feature = "fusion")]
fn gradients(
    given: &OperandsMetadata,
    _saved: &MaybeMetadata,
    _dy: &TensorSpec,
    wanted: &Wanted,
    _problem: &Problem,
) -> GradientsMetadata {
    let of = |wanted: bool, of: &MaybeMetadata| if wanted { of.clone() } else { MaybeMetadata::No };
    GradientsMetadata {
        x: of(wanted.x, &MaybeMetadata::Yes(given.x.clone())),
        gamma: of(wanted.gamma, &given.gamma),
        beta: of(wanted.beta, &given.beta),
        alpha: of(wanted.alpha, &given.alpha),
        residual: of(wanted.residual, &given.residual),
    }
}

/// Runs a pass on the thread that has burn's device: from another every question where a tensor lies would be a message there and back. One that cannot be run ends
/// as burn's own operations do: with what went wrong.
fn run<T: Send + 'static>(
    client: &Client,
    problem: &Problem,
    pass: impl FnOnce() -> wgnorm::Result<T> + Send,
) -> T {
    // Ranks that wait for this one are told if it does not come, whatever the reason.
    let mut unfinished = Unfinished(problem.turn());
    assert!(
        !client.is_capturing(),
        "wgnorm's kernels cannot be a part of a captured graph: they are not cubecl's"
    );
    let result = client.exclusive(pass).unwrap_or_else(|error| panic!("burn's device: {error:?}"));
    let result = result.unwrap_or_else(|error| panic!("wgnorm: {:?}: {error}", problem.norm));
    unfinished.0 = None;
    result
}

struct Unfinished<'p>(Option<&'p Turn>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(turn) = self.0 {
            turn.fail("its pass ended in an error");
        }
    }
}

impl NormOps for CubeBackend {
    fn wgnorm_forward(operands: Operands<Self>, problem: Problem) -> Outputs<Self> {
        let client = operands.x.client.clone();
        run(&client, &problem, || stats::in_forward(|| passes::forward(operands, &problem)))
    }

    fn wgnorm_backward(
        operands: Operands<Self>,
        saved: Maybe<Self>,
        dy: FloatTensor<Self>,
        wanted: Wanted,
        problem: Problem,
    ) -> Gradients<Self> {
        let client = operands.x.client.clone();
        let pass = || stats::in_backward(|| passes::backward(operands, saved, dy, wanted, &problem));
        run(&client, &problem, pass)
    }
}

/// Of which operands there are gradients, in the order of a graph's parents.
const DIFFERENTIABLE: usize = 5;

/// What the graph keeps: tensors as its nodes, so that it may compute them again.
#[derive(Clone, Debug)]
struct Kept<B: Backend> {
    nodes: [Option<NodeId>; DIFFERENTIABLE],
    has_residual: bool,
    mean: Maybe<B>,
    var: Maybe<B>,
    saved: Maybe<B>,
    problem: Problem,
}

#[derive(Debug)]
struct Normalized;

impl<B: NormOps> Backward<B, DIFFERENTIABLE> for Normalized {
    type State = Kept<B>;

    fn backward(
        self,
        ops: Ops<Self::State, DIFFERENTIABLE>,
        grads: &mut grads::Gradients,
        checkpointer: &mut Checkpointer,
    ) {
        let dy = grads.consume::<B>(&ops.node);
        let Kept { nodes, has_residual, mean, var, saved, problem } = ops.state;
        let [x, gamma, beta, alpha, residual] =
            nodes.map(|node| node.map(|node| checkpointer.retrieve_node_output::<FloatTensor<B>>(node)));
        let [of_x, of_gamma, of_beta, of_alpha, of_residual] = ops.parents;
        // What is added after the norm has dy itself, where nothing comes after.
        if let (Some(node), true, false) = (&of_residual, has_residual, problem.reads_residual()) {
            grads.register::<B>(node.id, dy.clone());
        }
        let wanted = Wanted {
            x: of_x.is_some(),
            gamma: of_gamma.is_some() && gamma.is_some(),
            beta: of_beta.is_some() && beta.is_some(),
            alpha: of_alpha.is_some() && alpha.is_some(),
            residual: of_residual.is_some() && residual.is_some(),
        };
        if !(wanted.x || wanted.gamma || wanted.beta || wanted.alpha || wanted.residual) {
            return;
        }
        let x = x.unwrap_or_else(|| unreachable!("every graph keeps x"));
        let [gamma, beta, alpha, residual] = [gamma, beta, alpha, residual].map(Maybe::of);
        let operands = Operands { x, gamma, beta, alpha, residual, mean, var };
        let all = B::wgnorm_backward(operands, saved, dy, wanted, problem);
        let all = [
            (of_x, all.x),
            (of_gamma, all.gamma),
            (of_beta, all.beta),
            (of_alpha, all.alpha),
            (of_residual, all.residual),
        ];
        for (node, gradient) in all {
            if let (Some(node), Maybe::Yes(gradient)) = (node, gradient) {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: NormOps, C: CheckpointStrategy> NormOps for Autodiff<B, C> {
    fn wgnorm_forward(operands: Operands<Self>, problem: Problem) -> Outputs<Self> {
        let Operands { x, gamma, beta, alpha, residual, mean, var } = operands;
        let [mean, var] = [mean, var].map(|of| Maybe::<B>::of(of.get().map(|of| of.into_primitive())));
        let others = [gamma, beta, alpha, residual].map(Maybe::get);
        // What there is none of has no gradient: x stands in its place among the parents.
        let [gamma_node, beta_node, alpha_node, residual_node] =
            [0, 1, 2, 3].map(|i| others[i].as_ref().unwrap_or(&x).node());
        let parents = [x.node(), gamma_node, beta_node, alpha_node, residual_node];
        let [has_gamma, has_beta, has_alpha, has_residual] = [0, 1, 2, 3].map(|i| others[i].is_some());
        let operands = |x: FloatTensor<Self>, others: [Option<FloatTensor<Self>>; 4]| {
            let [gamma, beta, alpha, residual] =
                others.map(|of| Maybe::<B>::of(of.map(|of| of.into_primitive())));
            let (mean, var) = (mean.clone(), var.clone());
            Operands { x: x.into_primitive(), gamma, beta, alpha, residual, mean, var }
        };
        let (y, saved, mean, var) = match Normalized.prepare::<C>(parents).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let reads = [has_gamma, has_beta, has_alpha, has_residual && problem.reads_residual()];
                let mut nodes = [Some(prep.checkpoint(&x)), None, None, None, None];
                for (i, other) in others.iter().enumerate().filter(|(i, _)| reads[*i]) {
                    nodes[i + 1] = other.as_ref().map(|other| prep.checkpoint(other));
                }
                let outputs = B::wgnorm_forward(operands(x, others), problem.clone());
                let saved = outputs.saved.clone();
                let kept = Kept { nodes, has_residual, mean: mean.clone(), var: var.clone(), saved, problem };
                (prep.finish(kept, outputs.y), outputs.saved, outputs.mean, outputs.var)
            }
            OpsKind::UnTracked(prep) => {
                let outputs = B::wgnorm_forward(operands(x, others), problem);
                (prep.finish(outputs.y), outputs.saved, outputs.mean, outputs.var)
            }
        };
        let [saved, mean, var] = [saved, mean, var].map(|of| Maybe::of(of.get().map(Self::from_inner)));
        Outputs { y, saved, mean, var }
    }

    fn wgnorm_backward(
        _operands: Operands<Self>,
        _saved: Maybe<Self>,
        _dy: FloatTensor<Self>,
        _wanted: Wanted,
        _problem: Problem,
    ) -> Gradients<Self> {
        panic!("wgnorm has no gradients of gradients")
    }
}
