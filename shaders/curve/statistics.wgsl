// What a map needs to know of a channel whose x̂ is a function of x alone, the twin of lib/statistics.wgsl:
//
//   x̂ = f(u), u = alpha·x + shift        y = x̂·gamma + beta
//
// alpha and shift are the same for all channels.

struct Statistics {
    alpha: f32,
    shift: f32,
    gamma: Stat,
    beta: Stat,
}

// The same of one channel in memory. Its size in Rust: `ops::curve::FOLDED_BYTES`.
struct FoldedRecord {
    alpha: f32,
    shift: f32,
    gamma: f32,
    beta: f32,
}
