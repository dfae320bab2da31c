// A value per place that is read four at a time, `$NAME`, where words are and begin at whole ones. Bindings: $NAME: [parameters].

@group(0) @binding($SLOT) var<storage, $INPUT> $NAME: array<vec4<f32>>;

fn $NAME_of(parameter: u32) -> f32 {
    let i = params.$NAME_offset + parameter;
    return $NAME[i >> 2u][i & 3u];
}

fn $NAME_word_of(i: WordU) -> Word {
    return $NAME[(params.$NAME_offset + i.x) >> 2u];
}
