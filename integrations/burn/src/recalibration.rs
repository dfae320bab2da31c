//! Running statistics of a trained model, computed anew: for weights that were averaged or changed since.

use std::cell::RefCell;
use std::fmt;

use burn::module::{Module, ParamId, RunningState};
use burn::tensor::Tensor;

use crate::batch_norm::synchronised;
use crate::moments::Moments;

type State = RunningState<Tensor<1>>;

struct Layer {
    gamma: ParamId,
    mean: State,
    var: State,
    moments: Moments,
}

thread_local! {
    static LAYERS: RefCell<Option<Vec<Layer>>> = const { RefCell::new(None) };
}

/// Nothing was recalibrated: no [`BatchNorm`](crate::BatchNorm) of the model was run that trains, or there was no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NothingToRecalibrate;

impl fmt::Display for NothingToRecalibrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a batch, and a wgnorm_burn::BatchNorm that trains (not a model of valid())")
    }
}

impl std::error::Error for NothingToRecalibrate {}

/// Replaces the running statistics of all [`BatchNorm`](crate::BatchNorm) layers that train by the moments of these batches together (Wu & Johnson 2021, "precise
/// BatchNorm"), and says how many layers these were. Each batch is normalized by its own statistics meanwhile, with autodiff or without; frozen layers stay as they are. The layers must run on the thread that calls this.
///
/// ```no_run
/// # use burn::tensor::Tensor;
/// # use wgnorm_burn::{BatchNorm, recalibrate};
/// # fn example(model: BatchNorm, batches: Vec<Tensor<4>>) {
/// recalibrate(&model, batches, |model, batch| model.forward(batch)).unwrap();
/// # }
/// ```
///
/// # Errors
/// [`NothingToRecalibrate`].
///
/// # Panics
/// Inside of another recalibration of the same thread; where `forward` does. Running statistics stay as they are then.
pub fn recalibrate<M: Module, I, O>(
    model: &M,
    batches: impl IntoIterator<Item = I>,
    mut forward: impl FnMut(&M, I) -> O,
) -> Result<usize, NothingToRecalibrate> {
    let scope = Scope::new();
    for batch in batches {
        forward(model, batch);
    }
    let layers = scope.finish();
    if layers.is_empty() {
        return Err(NothingToRecalibrate);
    }
    for Layer { mean, var, moments, .. } in &layers {
        // A channel of which a mask has left nothing keeps what it has.
        let nothing = moments.count.clone().equal_scalar(0.0);
        for (state, new) in [(mean, &moments.mean), (var, &moments.var)] {
            let old = synchronised(state);
            let new = new
                .clone()
                .mask_where(nothing.clone(), old.clone().to_device(&new.device()).cast(new.dtype()));
            state.update(new.to_device(&old.device()).cast(old.dtype()));
            state.value_sync();
        }
    }
    Ok(layers.len())
}

/// Whether this thread is in a recalibration.
pub(crate) fn is_underway() -> bool {
    LAYERS.with_borrow(Option::is_some)
}

/// Takes a batch of the layer with this gamma.
pub(crate) fn take(gamma: ParamId, [mean, var]: [&State; 2], moments: Moments) {
    LAYERS.with_borrow_mut(|layers| {
        let layers = layers.get_or_insert_default();
        match layers.iter_mut().find(|layer| layer.gamma == gamma) {
            Some(layer) => layer.moments = layer.moments.clone().merge(moments),
            None => layers.push(Layer { gamma, mean: mean.clone(), var: var.clone(), moments }),
        }
    });
}

/// A recalibration, which ends with this, in a panic too.
struct Scope;

impl Scope {
    fn new() -> Self {
        assert!(!is_underway(), "a recalibration inside of another");
        LAYERS.set(Some(Vec::new()));
        Self
    }

    fn finish(self) -> Vec<Layer> {
        LAYERS.take().unwrap_or_default()
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        LAYERS.set(None);
    }
}
