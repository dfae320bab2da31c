//! Which statistic and parameter elements have: by hand, and where two norms are one.

use super::*;

fn pairs(maps: &Maps) -> Vec<(usize, usize)> {
    maps.statistic_of.iter().copied().zip(maps.parameter_of.iter().copied()).collect()
}

#[test]
fn maps_by_hand() {
    let layer = Maps::layer(&[2, 1, 3], 2);
    assert_eq!((layer.statistics, layer.parameters), (2, 3));
    assert_eq!(pairs(&layer), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);

    let rows = Maps::rows(&[2, 3], 1);
    assert_eq!((rows.statistics, rows.parameters), (2, 2));
    assert_eq!(pairs(&rows), [(0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (1, 1)]);

    let scalar = Maps::scalar(&[2, 3], 1);
    assert_eq!((scalar.statistics, scalar.parameters), (2, 1));
    assert_eq!(pairs(&scalar), [(0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (1, 0)]);

    let first = Maps::instance(&[2, 2, 2], Layout::ChannelsFirst);
    assert_eq!((first.statistics, first.parameters), (4, 2));
    assert_eq!(pairs(&first), [(0, 0), (0, 0), (1, 1), (1, 1), (2, 0), (2, 0), (3, 1), (3, 1)]);
    let last = Maps::instance(&[2, 2, 2], Layout::ChannelsLast);
    assert_eq!(pairs(&last), [(0, 0), (1, 1), (0, 0), (1, 1), (2, 0), (3, 1), (2, 0), (3, 1)]);

    // One sample, four channels in two groups, two positions.
    let first = Maps::group(&[1, 4, 2], Layout::ChannelsFirst, 2);
    assert_eq!((first.statistics, first.parameters), (2, 4));
    assert_eq!(pairs(&first), [(0, 0), (0, 0), (0, 1), (0, 1), (1, 2), (1, 2), (1, 3), (1, 3)]);
    let last = Maps::group(&[1, 2, 4], Layout::ChannelsLast, 2);
    assert_eq!(pairs(&last), [(0, 0), (0, 1), (1, 2), (1, 3), (0, 0), (0, 1), (1, 2), (1, 3)]);
    // The second sample has groups of its own, with the same parameters.
    assert_eq!(pairs(&Maps::group(&[2, 2], Layout::ChannelsFirst, 1)), [(0, 0), (0, 1), (1, 0), (1, 1)]);

    // Over the middle axis: a statistic for each place on the first and the last.
    let axes = Maps::axes(&[2, 2, 3], &[1]);
    assert_eq!((axes.statistics, axes.parameters), (6, 1));
    assert_eq!(axes.statistic_of, [0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5]);
    assert_eq!(axes.parameter_of, [0; 12]);
    assert_eq!(Maps::axes(&[2, 2], &[]).statistic_of, [0, 1, 2, 3]);

    let modulated = Maps::layer(&[2, 2, 2], 1).modulated(2);
    assert_eq!((modulated.statistics, modulated.parameters), (4, 4));
    assert_eq!(pairs(&modulated), [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 2), (3, 3)]);
}

#[test]
fn maps_stay_in_their_ranges() {
    for (what, maps) in all_maps() {
        assert_eq!(maps.parameter_of.len(), maps.len(), "{what}");
        let reached = |bins: usize, of: &[usize]| (0..bins).all(|bin| of.contains(&bin));
        assert!(maps.statistic_of.iter().all(|&s| s < maps.statistics), "{what}");
        assert!(maps.parameter_of.iter().all(|&p| p < maps.parameters), "{what}");
        assert!(reached(maps.statistics, &maps.statistic_of), "{what}");
        // Parameters of a row are for each sample, too, but it is in one alone.
        let modulated = what.contains("modulated");
        assert!(modulated || reached(maps.parameters, &maps.parameter_of), "{what}");
    }
}

#[test]
fn norms_that_are_others() {
    for layout in LAYOUTS {
        let dims: &[usize] = if layout == Layout::ChannelsFirst { &[2, 6, 3, 5] } else { &[2, 3, 5, 6] };
        // Groups of one channel are instances; one group is a whole sample.
        assert_eq!(Maps::group(dims, layout, 6), Maps::instance(dims, layout));
        assert_eq!(Maps::group(dims, layout, 1).statistic_of, Maps::layer(dims, 3).statistic_of);
    }
    // Where channels come first, an instance is a row over the spatial axes.
    let instance = Maps::instance(&[2, 6, 3, 5], Layout::ChannelsFirst);
    assert_eq!(instance.statistic_of, Maps::layer(&[2, 6, 3, 5], 2).statistic_of);
    assert_eq!(instance.statistic_of, Maps::axes(&[2, 6, 3, 5], &[2, 3]).statistic_of);
    // A row per sample, and the samples' gammas: a gamma per element.
    let modulated = Maps::layer(&[2, 5], 1).modulated(2);
    assert_eq!(modulated.parameter_of, (0..10).collect::<Vec<_>>());
    // RMS norm is L2 normalization times sqrt(n).
    let (x, maps) = (values(1, 15), Maps::layer(&[3, 5], 1));
    let gamma = [5f64.sqrt(); 5];
    let scaled = forward(&x, &maps, &Scheme::length(0.0), Affine { gamma: Some(&gamma), beta: None }).0;
    assert_close("RMS norm", &forward(&x, &maps, &Scheme::rms(0.0), NONE).0, &scaled);
}
