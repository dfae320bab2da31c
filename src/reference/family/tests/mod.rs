//! By hand, by finite differences, and against each other; here, what the tests share.

mod accuracy;
mod indices;
mod mismatches;
mod results;
mod second;

use super::*;
use crate::base::shape::{Channels, Layout};

const LAYOUTS: [Layout; 2] = [Layout::ChannelsFirst, Layout::ChannelsLast];

const NONE: Affine<'static> = Affine { gamma: None, beta: None };

/// Values without structure.
fn values(seed: u64, len: usize) -> Vec<f64> {
    (0..len as u64).map(|i| (((i + 1) * 7919 + seed * 104_729) % 1009) as f64 / 300.0 - 1.5).collect()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (g, e) in got.iter().zip(expected) {
        assert!((g - e).abs() <= 1e-7 * (1.0 + e.abs()), "{what}: {got:?} is not {expected:?}");
    }
}

/// Every way of choosing the two maps, with odd lengths.
fn all_maps() -> Vec<(String, Maps)> {
    let mut all = Vec::new();
    for axes in 1..=3 {
        all.push((format!("layer {axes}"), Maps::layer(&[2, 3, 5], axes)));
        all.push((format!("rows {axes}"), Maps::rows(&[2, 3, 5], axes)));
        all.push((format!("scalar {axes}"), Maps::scalar(&[2, 3, 5], axes)));
    }
    for layout in LAYOUTS {
        let dims: &[usize] = if layout == Layout::ChannelsFirst { &[2, 6, 3] } else { &[2, 3, 6] };
        all.push((format!("instance {layout}"), Maps::instance(dims, layout)));
        for groups in [1, 2, 3, 6] {
            all.push((format!("group {groups} {layout}"), Maps::group(dims, layout, groups)));
        }
    }
    for axes in [&[0, 2][..], &[1], &[2, 0, 1]] {
        all.push((format!("axes {axes:?}"), Maps::axes(&[2, 3, 5], axes)));
    }
    let modulated = |(what, maps): &(String, Maps)| (format!("{what} modulated"), maps.clone().modulated(2));
    all.iter().map(modulated).collect::<Vec<_>>().into_iter().chain(all).collect()
}

/// Every scheme, with an eps that matters; lengths are far above it or clamped.
fn all_schemes() -> Vec<Scheme> {
    let mut all = Vec::new();
    for (spread, eps) in
        [(Spread::Variance, 0.1), (Spread::Deviation, 0.3), (Spread::Length, 1e-3), (Spread::Length, 1e3)]
    {
        for centred in [true, false] {
            for unit_offset in [true, false] {
                all.push(Scheme { centred, spread, eps, unit_offset });
            }
        }
    }
    all
}

/// Batch norm as one of the family: a statistic and a parameter per channel.
fn batch_maps(dims: &[usize], layout: Layout) -> (Maps, Channels) {
    let (channel, inner) = match layout {
        Layout::ChannelsFirst => (1, dims[2] * dims[3]),
        Layout::ChannelsLast => (3, dims[1] * dims[2]),
    };
    let others: Vec<usize> = (0..4).filter(|&axis| axis != channel).collect();
    let maps = Maps::axes(dims, &others);
    let maps = Maps { parameters: maps.statistics, parameter_of: maps.statistic_of.clone(), ..maps };
    let (samples, channels) = (dims[0] as u64, dims[channel] as u64);
    (maps, Channels { samples, channels, inner: inner as u64, layout })
}
