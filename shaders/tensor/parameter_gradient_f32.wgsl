// A value per slice that is written or added to, `$NAME`, by one invocation each. Bindings: $NAME: [slices].

@group(0) @binding($SLOT) var<storage, read_write> $NAME: array<f32>;

fn put_$NAME(i: u32, value: f32, accumulate: bool) {
    var old = 0.0;
    if (accumulate) {
        old = $NAME[i];
    }
    $NAME[i] = old + value;
}
