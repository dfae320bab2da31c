//! Cases whose statistics are not those of a tensor alone: of what a mask leaves of it, or of the shards of several ranks.

use wgnorm::reference::bounds::{self, Magnitudes};
use wgnorm::reference::{self, masked, reduce};
use wgnorm::{Channels, DType, Momentum};

use super::Task;
use super::layer::{Layer, Setup, channel};
use crate::check::case::{Batch, Case, Content, Expected, Work};
use crate::check::data::{Data, bell, narrow, uniform, view, widen, x_of};
use crate::check::expect::expected;

/// Training with a mask in which `run` positions in a row count, or do not. What does not is NaN, or infinite.
pub fn masked(setup: Setup, run: usize) -> Case {
    let (layer, view, eps) = (Layer::new(&setup), view(&setup.dims), setup.options.eps);
    let positions = view.count() as usize;
    let draws = uniform(&format!("{}/mask", setup.name), positions.div_ceil(run));
    let keep: Vec<bool> = (0..positions).map(|i| draws[i / run] > -0.3).collect();
    let mut x32 = x_of(&setup.name, &setup.dims, setup.data);
    let mut dy32 = narrow(bell(&format!("{}/dy", setup.name), x32.len()));
    for i in (0..x32.len()).filter(|&i| !masked::counts(view, &keep, i)) {
        x32[i] = [f32::NAN, f32::INFINITY][i % 2];
        dy32[i] = [f32::NEG_INFINITY, f32::NAN, 3.0][i % 3];
    }
    let (x, dy) = (widen(&x32), widen(&dy32));
    let (gamma, beta) = layer.affine();
    let forward = masked::train_forward(&x, view, &keep, Some(&gamma), Some(&beta), eps);
    let backward = masked::backward(&x, &dy, view, &keep, &forward, Some(&gamma));
    let s = &forward.statistics;
    let sums = masked::gradient_sums(&x, &dy, view, &keep, s);
    let mut m = vec![Magnitudes::default(); s.len()];
    for i in (0..x.len()).filter(|&i| masked::counts(view, &keep, i)) {
        let c = channel(view, i);
        m[c].dy += dy[i].abs();
        m[c].dy_xhat += (dy[i] * s[c].normalize(x[i])).abs();
    }
    let y_bound =
        |i: usize| bounds::y(&s[channel(view, i)], x[i], gamma[channel(view, i)], beta[channel(view, i)]);
    let dx_bound = |i: usize| {
        let c = channel(view, i);
        // As many values as count.
        let counted = Channels { samples: forward.moments[c].count, inner: 1, ..view };
        match masked::counts(view, &keep, i) {
            true => bounds::dx(&s[c], &m[c], &sums[c], counted, x[i], dy[i], gamma[c]),
            false => 0.0,
        }
    };
    let mut expectations = vec![
        expected("y", forward.y.clone(), y_bound),
        expected("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
        expected("save_var", s.iter().map(|s| s.var).collect(), |c| bounds::var(&s[c])),
        expected("dx", backward.dx, dx_bound),
        expected("dweight", backward.dgamma, |c| bounds::dgamma(&m[c])),
        expected("dbias", backward.dbeta, |c| bounds::dbeta(&m[c])),
    ];
    expectations.extend(expected_running(&setup, &layer, &forward.moments));
    let task = Task::Train { x: x32, dy: Some(dy32) };
    let mut case = layer.case("masked", setup, task, None, expectations);
    if let Content::Problem(problem) = &mut case.content
        && let Work::Batch(work) = &mut problem.work
    {
        work.mask = Some(keep);
    }
    case
}

/// Training over shards of so many samples, whose means and scales differ by orders of magnitude.
pub fn synchronised(setup: Setup, samples: &[usize]) -> Case {
    let mut dims = setup.dims.clone();
    dims[0] = samples.iter().sum();
    let setup = Setup { dims: dims.clone(), dtype: DType::F32, ..setup };
    let (layer, view, eps) = (Layer::new(&setup), view(&dims), setup.options.eps);
    let shards: Vec<[Batch; 2]> = samples
        .iter()
        .zip([Data::LargeMean, Data::Normal, Data::ShiftedMean, Data::LargeMean])
        .enumerate()
        .map(|(rank, (&n, data))| {
            let mut dims = dims.clone();
            dims[0] = n;
            let (name, elements) = (format!("{}/{rank}", setup.name), dims.iter().product());
            let values = x_of(&name, &dims, data);
            let dy = narrow(bell(&format!("{name}/dy"), elements));
            [Batch { dims: dims.clone(), values }, Batch { dims, values: dy }]
        })
        .collect();
    let whole = |k: usize| -> Vec<f64> { shards.iter().flat_map(|shard| widen(&shard[k].values)).collect() };
    let (x, dy) = (whole(0), whole(1));
    let (gamma, beta) = layer.affine();
    let forward = reference::batch::train_forward(&x, view, Some(&gamma), Some(&beta), eps);
    let s = &forward.statistics;
    let backward = reference::batch::backward(&x, &dy, view, s, Some(&gamma));
    let sums = reduce::gradient_sums(&x, &dy, view, s);
    let m = bounds::magnitudes(&x, &dy, view, s);
    let mut expectations = vec![
        expected("save_mean", s.iter().map(|s| s.mean).collect(), |c| bounds::mean(&s[c], eps)),
        expected("save_invstd", s.iter().map(|s| s.inv_std).collect(), |c| bounds::inv_std(&s[c])),
        expected("dweight", backward.dgamma, |c| bounds::dgamma(&m[c])),
        expected("dbias", backward.dbeta, |c| bounds::dbeta(&m[c])),
    ];
    expectations.extend(expected_running(&setup, &layer, &forward.moments));
    let mut first = 0;
    for (rank, [shard, _]) in shards.iter().enumerate() {
        let at = first..first + shard.values.len();
        first = at.end;
        expectations.push(expected(&format!("y_{rank}"), forward.y[at.clone()].to_vec(), |i| {
            let (i, c) = (at.start + i, channel(view, at.start + i));
            bounds::y(&s[c], x[i], gamma[c], beta[c])
        }));
        expectations.push(expected(&format!("dx_{rank}"), backward.dx[at.clone()].to_vec(), |i| {
            let (i, c) = (at.start + i, channel(view, at.start + i));
            bounds::dx(&s[c], &m[c], &sums[c], view, x[i], dy[i], gamma[c])
        }));
    }
    layer.case("sync", setup, Task::Sync { shards }, None, expectations)
}

fn expected_running(setup: &Setup, layer: &Layer, moments: &[reference::Moments]) -> [Expected; 2] {
    let momentum: Momentum = setup.options.momentum;
    let running: Vec<_> = moments
        .iter()
        .enumerate()
        .map(|(c, batch)| match batch.count {
            0 => layer.running(c),
            _ => layer.running(c).update(*batch, momentum, setup.options.running_variance),
        })
        .collect();
    let bound = |value: f64| 64.0 * bounds::U * (1.0 + value.abs());
    [
        expected("running_mean", running.iter().map(|r| r.mean).collect(), |c| bound(running[c].mean)),
        expected("running_var", running.iter().map(|r| r.var).collect(), |c| bound(running[c].var)),
    ]
}
