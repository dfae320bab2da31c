// Two statistics per invocation: see walk/per_pair.wgsl.

alias Stat = vec2<f32>;
alias StatU = vec2<u32>;
const STATS: u32 = 2u;
