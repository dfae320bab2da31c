// Two statistics per invocation: see walk/per_pair.wgsl.

alias Stat = vec2<f32>;
alias StatU = vec2<u32>;
const STATS: u32 = 2u;

fn component(stat: Stat, k: u32) -> f32 {
    return stat[k];
}

fn component_u(stat: StatU, k: u32) -> u32 {
    return stat[k];
}

fn with_component(stat: Stat, k: u32, value: f32) -> Stat {
    var changed = stat;
    changed[k] = value;
    return changed;
}

fn with_component_u(stat: StatU, k: u32, value: u32) -> StatU {
    var changed = stat;
    changed[k] = value;
    return changed;
}
