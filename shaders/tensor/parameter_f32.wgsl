// A value per slice that is read, `$NAME`. Bindings: $NAME: [slices].

@group(0) @binding($SLOT) var<storage, $INPUT> $NAME: array<f32>;

fn $NAME_of(slice: u32) -> f32 {
    return $NAME[params.$NAME_offset + slice];
}
