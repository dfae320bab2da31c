// Moments: count, mean and biased variance of a set of values, as a monoid.
//
// The mean is `shift + delta`, two f32, with `shift` the f32 nearest to it. Rust twins:
// `moments::MomentsRecord` (layout) and `reference::Moments` (formula).
// Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983, in
// mean-of-squares form, so that nothing overflows before the variance of some part does.

struct Moments {
    // 64-bit count: x holds the low half, y the high half.
    count: vec2<u32>,
    shift: f32,
    delta: f32,
    variance: f32,
    unused: u32,
}

// What `lib/tree.wgsl` reduces in kernels that include this file.
alias Partial = Moments;

fn identity() -> Moments {
    return Moments(vec2<u32>(0u), 0.0, 0.0, 0.0, 0u);
}

fn count_f32(count: vec2<u32>) -> f32 {
    return f32(count.y) * 4294967296.0 + f32(count.x);
}

fn count_sum(a: vec2<u32>, b: vec2<u32>) -> vec2<u32> {
    let low = a.x + b.x;
    return vec2<u32>(low, a.y + b.y + select(0u, 1u, low < a.x));
}

// `shift + delta` as the nearest f32 and what is left (two-sum, Knuth). A first element of 0 in a
// channel around 1e4 would otherwise keep the mean's digits in `delta` alone and lose them.
fn renormalised(count: vec2<u32>, shift: f32, delta: f32, variance: f32) -> Moments {
    let sum = opaque(shift + delta);
    let virtual_delta = opaque(sum - shift);
    let rest = (shift - (sum - virtual_delta)) + (delta - virtual_delta);
    return Moments(count, sum, rest, variance, 0u);
}

// Onto the side with the larger count, `a` on a tie. An empty side is the identity by selection.
fn merge(a: Moments, b: Moments) -> Moments {
    let count_a = count_f32(a.count);
    let count_b = count_f32(b.count);
    if (count_b == 0.0) {
        return a;
    }
    if (count_a == 0.0) {
        return b;
    }
    var large = a;
    var small = b;
    if (count_b > count_a) {
        large = b;
        small = a;
    }
    let w = min(count_a, count_b) / (count_a + count_b);
    let d = (small.shift - large.shift) + (small.delta - large.delta);
    let variance = (1.0 - w) * large.variance + w * small.variance + d * (d * (w * (1.0 - w)));
    return renormalised(count_sum(a.count, b.count), large.shift, large.delta + d * w, variance);
}

// The accumulator of one invocation scales differences by SCALE before it squares them, a power of
// two that fma applies for free: up to 64 squares of 8 standard deviations can be summed before
// the variance itself overflows.
const SCALE: f32 = 0.015625; // 2^-6
const UNSCALE: f32 = 64.0;

// Moments of `count` values with sum `sum` of e = (value − shift)·SCALE and sum `squares` of e². The
// subtraction loses log2(1 + z²) bits where the shift lies z standard deviations from the mean.
fn moments_of_sums(count: u32, shift: f32, sum: f32, squares: f32) -> Moments {
    let n = f32(count);
    let mean = sum / n;
    let variance = (squares - sum * mean) / n;
    return renormalised(
        vec2<u32>(count, 0u),
        shift,
        mean * UNSCALE,
        variance * UNSCALE * UNSCALE,
    );
}
