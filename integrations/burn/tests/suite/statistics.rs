//! Statistics that are not the batch's alone, and what comes of them.

use std::time::Duration;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use wgnorm_burn::wgnorm::collective::LocalRank;
use wgnorm_burn::{
    Activation, BatchNorm, BatchNormConfig, CrossIteration, Input, Moments, Rank, Statistics, recalibrate,
};

use crate::support::*;

fn running(layer: &BatchNorm) -> [Vec<f32>; 2] {
    [&layer.running_mean, &layer.running_var].map(|state| host(state.value_sync()))
}

/// y, dx, dgamma and dbeta of a loss of y·dy.
fn step(layer: &BatchNorm, x: Tensor<4>, dy: Tensor<4>) -> [Vec<f32>; 4] {
    let x = x.require_grad();
    let y = layer.forward(x.clone());
    let gradients = (y.clone() * dy).sum().backward();
    let [dgamma, dbeta] = [&layer.gamma, &layer.beta].map(|of| host(of.val().grad(&gradients).unwrap()));
    [host(y), host(x.grad(&gradients).unwrap()), dgamma, dbeta]
}

fn samples(tensor: &Tensor<4>, from: usize, to: usize) -> Tensor<4> {
    tensor.clone().narrow(0, from, to - from)
}

#[test]
fn parts_of_a_ghost_batch_are_batches() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let (x, dy): (Tensor<4>, Tensor<4>) = (tensor([5, 6, 4, 3], 1, &train), tensor([5, 6, 4, 3], 2, &train));
    let ghost = BatchNormConfig::new(6).with_momentum(1.0).init(&train).with_statistics(Statistics::Ghost(2));
    let [y, dx, dgamma, dbeta] = step(&ghost, x.clone(), dy.clone());
    let mut sums = [vec![0.0; 6], vec![0.0; 6]];
    for (from, to) in [(0, 2), (2, 4), (4, 5)] {
        let plain = BatchNormConfig::new(6).init(&train);
        let [part_y, part_dx, part_dgamma, part_dbeta] =
            step(&plain, samples(&x, from, to), samples(&dy, from, to));
        let at = from * 72..to * 72;
        assert_close("y", &y[at.clone()], &wide(part_y), 1e-5);
        assert_close("dx", &dx[at], &wide(part_dx), 1e-4);
        for (sum, part) in sums.iter_mut().zip([part_dgamma, part_dbeta]) {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += f64::from(part));
        }
    }
    assert_close("dgamma", &dgamma, &sums[0], 1e-5);
    assert_close("dbeta", &dbeta, &sums[1], 1e-5);
    // With a momentum of 1 the running statistics are those of all samples.
    let whole = BatchNormConfig::new(6).with_momentum(1.0).init(&train);
    whole.forward(x.clone());
    for (ghost, whole) in running(&ghost).into_iter().zip(running(&whole)) {
        assert_close("running", &ghost, &wide(whole), 1e-5);
    }
    // So are its moments.
    let (_, of_ghost) = ghost.forward_with_moments(x.clone());
    let (_, of_whole) = whole.forward_with_moments(x);
    for (ghost, whole) in tensors(of_ghost).into_iter().zip(tensors(of_whole)) {
        assert_close("moments", &ghost, &wide(whole), 1e-5);
    }
    let layer = BatchNormConfig::new(6).init(&train);
    for statistics in [Statistics::Ghost(0), Statistics::Renorm { r_max: 0.5, d_max: 1.0 }] {
        let message = panics(|| layer.clone().with_statistics(statistics));
        assert!(message.contains("at least"), "{message}");
    }
}

fn tensors(Moments { count, mean, var }: Moments) -> [Vec<f32>; 3] {
    [count, mean, var].map(host)
}

#[test]
fn renorm_corrects_towards_the_running_statistics() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let renorm = Statistics::Renorm { r_max: 1e4, d_max: 1e4 };
    let layer = BatchNormConfig::new(6).init(&train).with_statistics(renorm);
    let x: Tensor<4> = tensor([5, 6, 4, 3], 1, &train) * 3.0 + 1.0;
    // Without a limit that binds, y is what inference gives by the running statistics from before: (x − 0) / sqrt(1 + eps).
    let expected = host(x.clone() / (1.0_f32 + 1e-5).sqrt());
    assert_close("y", &host(layer.forward(x.clone())), &wide(expected), 1e-4);
    // Its gradient is batch norm's, r times.
    let (y, moments) = BatchNormConfig::new(6).init(&train).forward_with_moments(x.clone());
    assert_eq!(y.dims(), [5, 6, 4, 3]);
    let r = host((moments.var + 1e-5).sqrt() / (1.0_f32 + 1e-5).sqrt());
    let dy: Tensor<4> = tensor([5, 6, 4, 3], 2, &train);
    let open =
        BatchNormConfig::new(6).init(&train).with_statistics(Statistics::Renorm { r_max: 1e4, d_max: 1e4 });
    let dx = step(&open, x.clone(), dy.clone())[1].clone();
    let plain = step(&BatchNormConfig::new(6).init(&train), x.clone(), dy)[1].clone();
    let expected: Vec<f64> =
        plain.iter().enumerate().map(|(i, dx)| f64::from(*dx) * f64::from(r[i / 12 % 6])).collect();
    assert_close("dx", &dx, &expected, 1e-4);
    // With r of 1 and d of 0 it is batch norm.
    let closed =
        BatchNormConfig::new(6).init(&train).with_statistics(Statistics::Renorm { r_max: 1.0, d_max: 0.0 });
    let plain = BatchNormConfig::new(6).init(&train);
    let dy: Tensor<4> = tensor([5, 6, 4, 3], 2, &train);
    for (got, expected) in step(&closed, x.clone(), dy.clone()).into_iter().zip(step(&plain, x, dy)) {
        assert_close("closed", &got, &wide(expected), 1e-5);
    }
}

#[test]
fn statistics_of_the_last_steps_are_merged() {
    let (device, _turn) = device();
    let train = device.autodiff();
    let last = CrossIteration::new(2).unwrap();
    let layer =
        BatchNormConfig::new(6).init(&train).with_statistics(Statistics::CrossIteration(last.clone()));
    let batches: Vec<Tensor<4>> =
        (1..4).map(|seed| tensor([3, 6, 4, 3], seed, &train) * seed as f32).collect();
    let dy: Tensor<4> = tensor([3, 6, 4, 3], 9, &train);
    let outputs: Vec<_> = batches.iter().map(|x| step(&layer, x.clone(), dy.clone())).collect();
    // The first step is the batch's own; the third is normalized with the second.
    let plain = BatchNormConfig::new(6).init(&train);
    for (got, expected) in outputs[0].iter().zip(step(&plain, batches[0].clone(), dy.clone())) {
        assert_close("first", got, &wide(expected), 1e-5);
    }
    let both = plain.forward(Tensor::cat(batches[1..].to_vec(), 0));
    assert_close("third", &outputs[2][0], &wide(host(samples(&both, 3, 6))), 1e-5);
    // In backward the second step is a constant.
    let x = batches[2].clone().require_grad();
    let y = BatchNormConfig::new(6).init(&train).forward(Tensor::cat(vec![batches[1].clone(), x.clone()], 0));
    let gradients = (samples(&y, 3, 6) * dy.clone()).sum().backward();
    assert_close("dx", &outputs[2][1], &wide(host(x.grad(&gradients).unwrap())), 1e-5);
    last.clear();
    let again = step(&layer, batches[2].clone(), dy.clone());
    let alone = step(&BatchNormConfig::new(6).init(&train), batches[2].clone(), dy);
    assert_close("after clear", &again[0], &wide(alone[0].clone()), 1e-5);
    assert!(CrossIteration::new(0).is_err());
    // Cleared between two calls that burn may both run later.
    let last = CrossIteration::new(2).unwrap();
    let layer =
        BatchNormConfig::new(6).init(&train).with_statistics(Statistics::CrossIteration(last.clone()));
    let first = layer.forward(batches[0].clone());
    last.clear();
    let second = layer.forward(batches[2].clone());
    assert_close("after clear", &host(second), &wide(alone[0].clone()), 1e-5);
    drop(first);
    let other = BatchNormConfig::new(6).init(&train).with_statistics(Statistics::CrossIteration(last));
    assert!(panics(|| other.forward(batches[0].clone())).contains("two layers"));
}

#[test]
fn ranks_on_two_devices_are_one_batch() {
    let (device, _turn) = device();
    let devices = [device.clone().autodiff(), other_device().autodiff()];
    let plain = BatchNormConfig::new(6).init(&devices[0]).with_activation(Activation::Silu);
    let (x, dy): (Tensor<4>, Tensor<4>) =
        (tensor([5, 6, 4, 3], 1, &devices[0]), tensor([5, 6, 4, 3], 2, &devices[0]));
    let [y, dx, dgamma, dbeta] = step(&plain, x, dy);
    let ranks = LocalRank::group(2, Duration::from_secs(60)).unwrap();
    // Three samples and two.
    let parts = ranks.into_iter().zip(devices).zip([(0, 3), (3, 5)]);
    let threads: Vec<_> = parts
        .map(|((rank, device), (from, to))| {
            std::thread::spawn(move || {
                let layer = BatchNormConfig::new(6).init(&device).with_activation(Activation::Silu);
                let layer = layer.with_statistics(Statistics::Synchronised(Rank::of(rank)));
                let (x, dy) = (tensor([5, 6, 4, 3], 1, &device), tensor([5, 6, 4, 3], 2, &device));
                let outputs = step(&layer, samples(&x, from, to), samples(&dy, from, to));
                (outputs, running(&layer))
            })
        })
        .collect();
    let outputs: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    let joined =
        |at: usize| outputs.iter().flat_map(|(outputs, _)| outputs[at].clone()).collect::<Vec<f32>>();
    assert_close("y", &joined(0), &wide(y), 1e-5);
    assert_close("dx", &joined(1), &wide(dx), 1e-5);
    for (at, whole) in [(2, dgamma), (3, dbeta)] {
        let sum: Vec<f32> = (0..6).map(|i| outputs.iter().map(|(outputs, _)| outputs[at][i]).sum()).collect();
        assert_close("parameters", &sum, &wide(whole), 1e-5);
    }
    assert_eq!(outputs[0].1, outputs[1].1);
    for (ranks, plain) in outputs[0].1.clone().into_iter().zip(running(&plain)) {
        assert_close("running", &ranks, &wide(plain), 1e-6);
    }
}

#[test]
fn a_recalibrated_model_has_the_moments_of_all_batches() {
    let (device, _turn) = device();
    let train = device.clone().autodiff();
    let layer = BatchNormConfig::new(6).init(&train);
    let frozen = BatchNormConfig::new(6).init(&train).freeze();
    let model = vec![layer, frozen];
    let all: Tensor<4> = tensor([7, 6, 4, 3], 1, &train) * 2.0 + 1.0;
    let before = running(&model[1]);
    let batches = [(0, 3), (3, 5), (5, 7)].map(|(from, to)| samples(&all, from, to));
    let forward = |model: &Vec<BatchNorm>, batch: Tensor<4>| model[1].forward(model[0].forward(batch));
    assert_eq!(recalibrate(&model, batches.clone(), forward), Ok(1));
    let whole = BatchNormConfig::new(6).with_momentum(1.0).init(&train);
    whole.forward(all);
    for (got, expected) in running(&model[0]).into_iter().zip(running(&whole)) {
        assert_close("running", &got, &wide(expected), 1e-5);
    }
    assert_eq!(running(&model[1]), before);
    let valid = model.valid();
    assert!(recalibrate(&valid, batches.map(|batch| batch.without_autodiff()), forward).is_err());
    // A batch that panics ends it.
    assert_eq!(panics(|| recalibrate(&model, [0], |_, _| panic!("as {}", "asked"))), "as asked");
    // What another thread's training has left does not come back.
    std::thread::scope(|scope| {
        scope.spawn(|| model[0].forward(tensor::<4>([2, 6, 4, 3], 8, &train) * 9.0));
    });
    let batch: Tensor<4> = tensor([2, 6, 4, 3], 3, &train);
    recalibrate(&model, [batch.clone()], forward).unwrap();
    let whole = BatchNormConfig::new(6).with_momentum(1.0).init(&train);
    whole.forward(batch);
    for (got, expected) in running(&model[0]).into_iter().zip(running(&whole)) {
        assert_close("after a thread", &got, &wide(expected), 1e-5);
    }
    assert_eq!(recalibrate(&model, [tensor::<4>([2, 6, 4, 3], 3, &train)], forward), Ok(1));
}

#[test]
fn what_only_the_kernels_have_is_refused_elsewhere() {
    let (_device, _turn) = device();
    let other = Device::flex().autodiff();
    let layer = BatchNormConfig::new(6).init(&other).with_statistics(Statistics::Ghost(2));
    let message = panics(|| layer.forward(Input::new(tensor::<4>([5, 6, 4, 3], 1, &other))));
    assert!(message.contains("needs wgnorm's kernels") && message.contains("not shared"), "{message}");
    let message = panics(|| layer.forward(Tensor::<4>::empty([0, 6, 4, 3], &other)));
    assert!(message.contains("statistics other than the batch's"), "{message}");
    let plain = BatchNormConfig::new(6).init(&other);
    let message = panics(|| plain.forward_with_moments(tensor::<4>([5, 6, 4, 3], 1, &other)));
    assert!(message.contains("moments"), "{message}");
}
