// The components of several statistics: see lib/stat_f32x2.wgsl, lib/stat_f32x4.wgsl.

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
