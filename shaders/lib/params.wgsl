// Parameters of one recorded operation, shared by all of its dispatches.
//
// Written once by the host when the operation is prepared and never changed. The Rust twin is
// `gpu::params::Params`; a unit test asserts that both have the same layout. A "word" is one
// element of the arrays that a kernel walks: four f32 (`lib/word_f32x4.wgsl`) or one
// (`lib/word_f32x1.wgsl`). Offsets of x, dy, y, dx count words, all others elements.

struct Params {
    // Geometry; what a field means to a walk is said in walk/segments.wgsl and walk/columns.wgsl.
    slices: u32,
    records: u32,
    blocks: u32,
    splits: u32,
    slice_words: u32,
    tile_words: u32,
    run_words: u32,
    slice_stride: u32,
    run_stride: u32,
    step_words: u32,
    step_stride: u32,
    // Values per run, and in the whole tensor.
    inner: u32,
    elements: u32,
    // Values of the first word that lie before the tensor, and the last word that holds any of it.
    phase: u32,
    last_word: u32,
    // Partial results per slice that a fold merges.
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
    unused: u32,
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

// Invocations per workgroup, and how many of them walk the same slices together: a team. A tree
// merges what a team has found; a workgroup of many small teams serves many small slices.
override WORKGROUP_SIZE: u32 = 256u;
override TEAM_SIZE: u32 = 256u;
override TEAMS: u32 = WORKGROUP_SIZE / TEAM_SIZE;
// Whether slices, or the tensor, begin or end inside of words, rows or strips. Costs a comparison per word.
override EDGES: bool = false;

@group(0) @binding(0) var<uniform> params: Params;
