// From the sums of a chunk to its moments.

// Differences are scaled by SCALE before they are squared, a power of two that fma applies for
// free: up to 64 squares of 8 standard deviations can be summed before the variance itself
// overflows.
const SCALE: f32 = 0.015625; // 2^-6
const UNSCALE: f32 = 64.0;

// Moments of `count` values with sum `sum` of e = (value − shift)·SCALE and sum `squares` of e². The
// subtraction loses log2(1 + z²) bits where the shift lies z standard deviations from the mean.
// Where there are no values, the result is meaningless and `merge` does not look at it.
fn moments_of_sums(count: StatU, shift: Stat, sum: Stat, squares: Stat) -> Moments {
    let n = Stat(count);
    let mean = sum / n;
    let variance = (squares - sum * mean) / n;
    return renormalised(count, StatU(0u), shift, mean * UNSCALE, variance * UNSCALE * UNSCALE);
}
