// Moments: count, mean and biased variance of a set of values, as a monoid, for each of the
// statistics that an invocation keeps.
//
// The mean is `shift + delta`, two f32, with `shift` the f32 nearest to it. Rust twins:
// `moments::MomentsRecord` (layout) and `reference::Moments` (formula).
// Source: Chan, Golub & LeVeque, "Algorithms for computing the sample variance", 1983, in
// mean-of-squares form, so that nothing overflows before the variance of some part does.

struct Moments {
    // 64-bit count: low and high half.
    count: StatU,
    count_high: StatU,
    shift: Stat,
    delta: Stat,
    variance: Stat,
}

// Moments of one slice in memory.
struct MomentsRecord {
    count: vec2<u32>,
    shift: f32,
    delta: f32,
    variance: f32,
    unused: u32,
}

// What `lib/tree.wgsl` and the folds reduce in kernels that include this file.
alias Partial = Moments;
alias Record = MomentsRecord;
alias Total = MomentsRecord;

fn identity() -> Moments {
    return Moments(StatU(0u), StatU(0u), Stat(0.0), Stat(0.0), Stat(0.0));
}

fn record_of_component(m: Moments, k: u32) -> MomentsRecord {
    return MomentsRecord(
        vec2<u32>(component_u(m.count, k), component_u(m.count_high, k)),
        component(m.shift, k),
        component(m.delta, k),
        component(m.variance, k),
        0u,
    );
}

fn with_record(m: Moments, k: u32, record: MomentsRecord) -> Moments {
    return Moments(
        with_component_u(m.count, k, record.count.x),
        with_component_u(m.count_high, k, record.count.y),
        with_component(m.shift, k, record.shift),
        with_component(m.delta, k, record.delta),
        with_component(m.variance, k, record.variance),
    );
}

fn count_of(m: Moments) -> Stat {
    return Stat(m.count_high) * 4294967296.0 + Stat(m.count);
}

// The same value, by a way that no compiler can see through. WGSL lets compilers reassociate, and
// Mesa's does: it folds the two-sum of `renormalised` to zero unless intermediate results are hidden
// like this.
fn opaque(value: Stat) -> Stat {
    return bitcast<Stat>(bitcast<StatU>(value) ^ StatU(params.zero));
}

// `shift + delta` as the nearest f32 and what is left (two-sum, Knuth). A first element of 0 in a
// channel around 1e4 would otherwise keep the mean's digits in `delta` alone and lose them.
fn renormalised(count: StatU, count_high: StatU, shift: Stat, delta: Stat, variance: Stat) -> Moments {
    let sum = opaque(shift + delta);
    let virtual_delta = opaque(sum - shift);
    let rest = (shift - (sum - virtual_delta)) + (delta - virtual_delta);
    return Moments(count, count_high, sum, rest, variance);
}

// Onto the side with the larger count, `a` on a tie. An empty side is the identity by selection.
fn merge(a: Moments, b: Moments) -> Moments {
    let count_a = count_of(a);
    let count_b = count_of(b);
    let swap = count_b > count_a;
    let shift = select(a.shift, b.shift, swap);
    let delta = select(a.delta, b.delta, swap);
    let variance = select(a.variance, b.variance, swap);
    let small = min(count_a, count_b);
    let w = small / (count_a + count_b);
    let d = (select(b.shift, a.shift, swap) - shift) + (select(b.delta, a.delta, swap) - delta);
    let small_variance = select(b.variance, a.variance, swap);
    let between = d * (d * (w * (1.0 - w)));
    let count = a.count + b.count;
    let carry = select(StatU(0u), StatU(1u), count < a.count);
    let merged = renormalised(
        count,
        a.count_high + b.count_high + carry,
        shift,
        delta + d * w,
        (1.0 - w) * variance + w * small_variance + between,
    );
    let alone = small == Stat(0.0);
    return Moments(
        merged.count,
        merged.count_high,
        select(merged.shift, shift, alone),
        select(merged.delta, delta, alone),
        select(merged.variance, variance, alone),
    );
}
