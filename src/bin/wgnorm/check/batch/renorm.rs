//! Batch renorm: cases whose running statistics are so far off that both limits act, and some where they do not.

use wgnorm::reference::{Statistics, bounds, reduce, renorm};
use wgnorm::{Activation, BatchNormOptions, Renorm};

use super::Task;
use super::layer::{Layer, Setup, channel};
use crate::check::case::Case;
use crate::check::data::{bell, narrow, view, widen, x_of};
use crate::check::expect::expected;

/// Training forward and backward, with limits that are open from the first batch.
pub fn train(setup: Setup, r_max: f64, d_max: f64) -> Case {
    let options: BatchNormOptions = setup.options.renorm(Renorm::fixed(r_max, d_max));
    assert_eq!(options.activation, Activation::None, "the bounds here are those of z");
    let setup = Setup { options, ..setup };
    let (layer, view, eps) = (Layer::new(&setup), view(&setup.dims), setup.options.eps);
    let x32 = x_of(&setup.name, &setup.dims, setup.data);
    let dy32 = narrow(bell(&format!("{}/dy", setup.name), x32.len()));
    let (x, dy) = (widen(&x32), widen(&dy32));
    let (gamma, beta) = layer.affine();
    let c = view.channels as usize;
    let running: Vec<_> = (0..c).map(|c| layer.running(c)).collect();
    let limits = (r_max, d_max);
    let forward = renorm::train_forward(&x, view, &running, limits, Some(&gamma), Some(&beta), eps);
    let backward = renorm::backward(&x, &dy, view, &forward);
    let s = &forward.statistics;
    let sums = reduce::gradient_sums(&x, &dy, view, s);
    let m = bounds::magnitudes(&x, &dy, view, s);
    let corrections = &forward.corrections;
    let errors: Vec<_> = (0..c)
        .map(|c| bounds::renorm(&s[c], &Statistics::new(running[c].mean, running[c].var, eps), limits))
        .collect();
    let y_bound = |i: usize| {
        let c = channel(view, i);
        bounds::y(&s[c], x[i], forward.gamma[c], forward.beta[c])
            + bounds::renorm_y(&s[c], x[i], gamma[c], beta[c], &corrections[c], errors[c])
    };
    let dx_bound = |i: usize| {
        let c = channel(view, i);
        let of_gamma = (errors[c].0 / corrections[c].r + bounds::U) * backward.dx[i].abs();
        bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], forward.gamma[c]) + of_gamma
    };
    let expectations = vec![
        expected("y", forward.y.clone(), y_bound),
        expected("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
        expected("dx", backward.dx.clone(), dx_bound),
        expected("dweight", backward.dgamma.clone(), |c| {
            bounds::renorm_dgamma(&m[c], &sums[c], &corrections[c], errors[c])
        }),
        expected("dbias", backward.dbeta.clone(), |c| bounds::dbeta(&m[c])),
    ];
    let task = Task::Train { x: x32, dy: Some(dy32) };
    layer.case("renorm", setup, task, None, expectations)
}
