// Parameters of one recorded operation, shared by all of its dispatches.
//
// Written once by the host when the operation is prepared and never changed. The Rust twin is
// `gpu::params::Params`; a unit test asserts that both have the same layout. A "word" is one
// element of the arrays that a kernel walks: four f32 (`lib/word_f32x4.wgsl`) or one
// (`lib/word_f32x1.wgsl`). Offsets of x, dy, y, dx count words, all others elements.

struct Params {
    // Geometry: `slices` statistics, each over `slice_words` words in contiguous runs of `run_words`.
    slices: u32,
    slice_words: u32,
    run_words: u32,
    // Words between the first words of two consecutive slices.
    slice_stride: u32,
    // Words between the starts of two consecutive runs of one slice.
    run_stride: u32,
    // Workgroups per slice and the words that each of them walks (the last may have fewer).
    splits: u32,
    tile_words: u32,
    // One stride of the walk is WORKGROUP_SIZE words: some whole runs and `step_words` words;
    // `step_stride` is the distance that this covers in memory, `wrap_stride` what is added when
    // the position within a run passes the end of the run.
    step_words: u32,
    step_stride: u32,
    wrap_stride: u32,
    // Records per slice that a fold merges.
    partials: u32,

    x_offset: u32,
    dy_offset: u32,
    y_offset: u32,
    dx_offset: u32,
    gamma_offset: u32,
    beta_offset: u32,
    dgamma_offset: u32,
    dbeta_offset: u32,

    // Bits: see FLAG_* below.
    flags: u32,
    eps: f32,
    // Weights of the old and the new value in the running statistics (exponential average).
    old_weight: f32,
    new_weight: f32,
    // Values per slice, for the means of the gradient sums.
    count: f32,
    // A NaN, because WGSL refuses to write one and compilers may fold what would compute one.
    nan: f32,
    // Zero, but no compiler knows: see `opaque`.
    zero: u32,
    unused_0: u32,
    unused_1: u32,
}

const FLAG_GAMMA: u32 = 1u;        // gamma is bound (else it is 1)
const FLAG_BETA: u32 = 2u;         // beta is bound (else it is 0)
const FLAG_TRACK: u32 = 4u;        // update the running statistics
const FLAG_CUMULATIVE: u32 = 8u;   // as a cumulative average: weight 1 / number of batches
const FLAG_UNBIASED: u32 = 16u;    // running_var stores the unbiased variance
const FLAG_DGAMMA: u32 = 32u;      // dgamma is bound and asked for
const FLAG_DBETA: u32 = 64u;       // dbeta is bound and asked for
const FLAG_ACCUMULATE: u32 = 128u; // add to dgamma and dbeta instead of writing them
const FLAG_SAVE: u32 = 256u;       // saved is bound: keep the statistics for the backward pass

@group(0) @binding(0) var<uniform> params: Params;

fn flag(bit: u32) -> bool {
    return (params.flags & bit) != 0u;
}

// The same value, by a way that no compiler can see through. WGSL lets compilers reassociate, and Mesa's does: it
// folds the two-sum of `renormalised` to zero unless intermediate results are hidden like this.
fn opaque(value: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(value) ^ params.zero);
}
