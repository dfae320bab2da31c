// One statistic per invocation: see walk/per_slice.wgsl.

alias Stat = f32;
alias StatU = u32;
const STATS: u32 = 1u;

fn component(stat: Stat, k: u32) -> f32 {
    return stat;
}

fn component_u(stat: StatU, k: u32) -> u32 {
    return stat;
}

fn with_component(stat: Stat, k: u32, value: f32) -> Stat {
    return value;
}

fn with_component_u(stat: StatU, k: u32, value: u32) -> StatU {
    return value;
}
