// Four statistics per invocation: see walk/per_component.wgsl.

alias Stat = vec4<f32>;
alias StatU = vec4<u32>;
const STATS: u32 = 4u;
