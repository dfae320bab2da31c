//! Every variant of every kernel is valid WGSL, binds what it says, and has a key of its own.

use std::collections::BTreeMap;

use naga::valid::{Capabilities, ShaderStages, SubgroupOperationSet, ValidationFlags, Validator};

use super::*;
use crate::base::activation::Activation;
use crate::base::custom::ActivationFunctions;
use crate::base::gate::GateOrder;
use crate::plan::AffineOf;

mod derivatives;
mod ragged;

/// A resident backward pass of slices that are not channels.
const OF_SLICES: Kernel = Kernel::ResidentBackward(StatisticsFrom::Recorded);

/// Whether slices are channels, each with its own parameters.
fn of_channels(kernel: Kernel) -> bool {
    use StatisticsFrom::*;
    let from = kernel.statistics();
    let of_slices = matches!(from, Slices | Recorded | RecordedOfRow | Means | MeansOfRow);
    !of_slices && !matches!(kernel, Kernel::FoldMeans { .. } | Kernel::ReduceSquares)
}

fn all_kernels() -> Vec<Kernel> {
    use crate::base::curve::Curve::{Erf, Tanh};
    use StatisticsFrom::*;
    vec![
        Kernel::ReduceMoments,
        Kernel::ReduceSquares,
        Kernel::ReduceGradients { statistics: Saved, dx: false },
        Kernel::ReduceGradients { statistics: Saved, dx: true },
        Kernel::ReduceGradients { statistics: Running, dx: false },
        Kernel::ReduceGradients { statistics: Running, dx: true },
        Kernel::FoldTotal(Monoid::Moments),
        Kernel::FoldTotal(Monoid::GradientSums),
        Kernel::FoldMerge(Monoid::Moments),
        Kernel::FoldMerge(Monoid::GradientSums),
        Kernel::FoldGradients,
        Kernel::FoldMarks,
        Kernel::FoldRecords(Running),
        Kernel::FoldRecords(Curve(Tanh)),
        Kernel::FoldStatistics(Batch),
        Kernel::FoldStatistics(Slices),
        Kernel::FoldMeans { times_gamma: false },
        Kernel::FoldMeans { times_gamma: true },
        Kernel::FoldTotal(Monoid::Averages),
        Kernel::ReduceGradients { statistics: Recorded, dx: false },
        Kernel::ReduceGradients { statistics: RecordedOfRow, dx: false },
        Kernel::ReduceGradients { statistics: MeansOfRow, dx: true },
        Kernel::MapForward(Batch),
        Kernel::MapForward(Saved),
        Kernel::MapForward(Running),
        Kernel::MapForward(Slices),
        Kernel::MapForward(Recorded),
        Kernel::MapForward(RecordedOfRow),
        Kernel::MapInt8(Slices),
        Kernel::ReduceRowGradients { statistics: RecordedOfRow, dx: false },
        Kernel::ReduceRowGradients { statistics: Recorded, dx: false },
        Kernel::ReduceRowGradients { statistics: Means, dx: true },
        Kernel::MapBackward { statistics: Gradients, dx: true },
        Kernel::MapBackward { statistics: Means, dx: true },
        Kernel::MapBackward { statistics: Running, dx: true },
        Kernel::MapBackward { statistics: Running, dx: false },
        Kernel::MapBackward { statistics: Saved, dx: true },
        Kernel::MapCopy,
        Kernel::MapPermute,
        Kernel::ResidentForward(Batch),
        Kernel::ResidentForward(Slices),
        Kernel::ResidentBackward(Saved),
        Kernel::ResidentBackward(Recorded),
        Kernel::MapForward(Curve(Tanh)),
        Kernel::MapForward(Curve(Erf)),
        Kernel::ReduceGradients { statistics: Curve(Tanh), dx: false },
        Kernel::ReduceGradients { statistics: Curve(Tanh), dx: true },
        Kernel::ReduceGradients { statistics: Curve(Erf), dx: true },
        Kernel::ReduceGradients { statistics: FoldedCurve(Tanh), dx: true },
        Kernel::MapBackward { statistics: Curve(Tanh), dx: true },
        Kernel::MapBackward { statistics: Curve(Erf), dx: false },
        Kernel::MapBackward { statistics: FoldedCurve(Tanh), dx: false },
        Kernel::FoldCurve,
        Kernel::FoldAlpha,
    ]
}

/// Whether the kernel knows no walk but that along columns.
fn is_along_columns(kernel: Kernel) -> bool {
    kernel.statistics().of_rows() || matches!(kernel, Kernel::ReduceRowGradients { .. })
}

/// Whether the host asks a kernel for parameters that vary so.
fn suits(kernel: Kernel, affine: AffineOf) -> bool {
    use StatisticsFrom::*;
    match (kernel, affine) {
        (Kernel::ReduceRowGradients { statistics, .. }, _) => {
            let own = if statistics.of_rows() { AffineOf::Slice } else { AffineOf::Row };
            affine == own
        }
        (_, AffineOf::Slice) => true,
        (_, AffineOf::Place) => !kernel.statistics().of_rows(),
        (Kernel::ReduceGradients { statistics: Recorded, .. }, AffineOf::Row) => true,
        (Kernel::MapForward(Slices | Recorded) | Kernel::ResidentForward(Slices), AffineOf::Row) => true,
        (Kernel::MapBackward { statistics: Means, .. }, AffineOf::Row) => true,
        (_, AffineOf::Row) => false,
    }
}

/// Whether the host dispatches the kernel over slices, as segments of single values.
fn per_slice(kernel: Kernel) -> bool {
    matches!(
        kernel,
        Kernel::FoldTotal(_)
            | Kernel::FoldMerge(_)
            | Kernel::FoldNodes(_)
            | Kernel::FoldMixture { .. }
            | Kernel::FoldMixtureSums
            | Kernel::FoldMixtureMeans
            | Kernel::FoldGradients
            | Kernel::FoldRecords(_)
            | Kernel::FoldMarks
            | Kernel::FoldStatistics(_)
            | Kernel::FoldMeans { .. }
            | Kernel::FoldGroups
            | Kernel::FoldTangents(_)
            | Kernel::FoldSecond
            | Kernel::FoldDirection { .. }
            | Kernel::FoldCurve
            | Kernel::FoldAlpha
    )
}

/// Every walk, word, team and strip of every kernel, without pointwise operations, in f32.
fn plain_variants() -> Vec<Variant> {
    let mut variants = Vec::new();
    for kernel in all_kernels() {
        for walk in [WalkKind::Segments, WalkKind::Columns] {
            for (width, edges) in [(1, false), (1, true), (4, false), (4, true)] {
                let flat = per_slice(kernel) || matches!(kernel, Kernel::MapCopy | Kernel::MapPermute);
                let columns = walk == WalkKind::Columns;
                let words = flat && kernel != Kernel::MapCopy && (width == 4 || edges);
                // Words of one value have edges in columns only, where rows and strips may not be full.
                if words
                    || flat && columns
                    || width == 1 && edges && !columns
                    || is_along_columns(kernel) && !columns
                    || kernel == OF_SLICES && columns
                {
                    continue;
                }
                // Nothing to do.
                if matches!(kernel, Kernel::MapBackward { dx: false, .. }) {
                    continue;
                }
                for (workgroup_size, team_size, strip, depth) in [
                    (8, 1, 1, 1),
                    (8, 1, 16, 1),
                    (64, 64, 1, 4),
                    (256, 32, 2, 1),
                    (256, 32, 4, 1),
                    (256, 256, 1, 8),
                    (1024, 256, 1, 1),
                ] {
                    // Words of two slices need the statistics of both.
                    let resident = kernel.is_resident();
                    if strip > 1 && (flat || resident) || resident && edges && !columns {
                        continue;
                    }
                    for (shared, strided) in [(false, false), (true, true)] {
                        let variant = Variant {
                            kernel,
                            pointwise: plain_pointwise(kernel),
                            dtype: DType::F32,
                            parameters: DType::F32,
                            packed_f16: false,
                            parameter_words: false,
                            through: [None; WALKED_INPUTS.len()],
                            walk,
                            width,
                            edges,
                            strided: strided && !flat,
                            strip,
                            depth,
                            single_rows: false,
                            workgroup_size,
                            team_size,
                            subgroup_size: 0,
                            held: 16 / width,
                            chunk_words: 64 / width,
                            shared,
                        };
                        variants.push(variant.reduced());
                        let shuffles = Variant { subgroup_size: 32, ..variant }.reduced();
                        if shuffles.subgroup_size > 0 && !shared {
                            variants.push(shuffles);
                        }
                    }
                }
            }
        }
    }
    variants
}

/// Every pointwise operation that a kernel can be asked for, and through which output it can read its inputs.
fn all_pointwise(kernel: Kernel) -> Vec<(Pointwise, [Option<Slot>; WALKED_INPUTS.len()])> {
    let mut all = Vec::new();
    let wgsl = "fn activate(z: f32) -> f32 { return 2.0 * z; } fn derivative(z: f32) -> f32 { return 2.0; }
                fn inverse(y: f32) -> f32 { return 0.5 * y; }";
    let functions = ActivationFunctions::new(|z| 2.0 * z, |_| 2.0).inverse(|y| 0.5 * y, 2.0);
    let custom = Activation::custom("twice", wgsl, functions).unwrap();
    for activation in Activation::ALL.into_iter().chain([custom]) {
        let bits_of = |affine| (0..2048_u32).map(move |bits| (bits, affine));
        for (bits, affine) in [AffineOf::Slice, AffineOf::Place, AffineOf::Row].into_iter().flat_map(bits_of)
        {
            let [
                residual,
                d_residual,
                from_y,
                through,
                masked,
                renorm,
                sum,
                d_sum,
                marked,
                uncentred,
                folded,
            ] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(|bit| bits >> bit & 1 == 1);
            if from_y && !activation.is_invertible() {
                continue;
            }
            // What differs between activations is not the family's.
            if !of_channels(kernel)
                && !matches!(activation, Activation::None | Activation::Relu | Activation::Silu)
            {
                continue;
            }
            // Batch norm knows neither of places nor of sums, and it alone of what else there is.
            if of_channels(kernel)
                && (affine != AffineOf::Slice || sum || d_sum || marked || uncentred)
                && !matches!(kernel, Kernel::ReduceMoments | Kernel::MapCopy)
                || !of_channels(kernel) && (from_y || masked || renorm)
                || !suits(kernel, affine)
                || sum && masked
            {
                continue;
            }
            let kind = ActivationKind::of(activation);
            let of = |gate| Pointwise {
                activation: kind,
                residual,
                gate,
                without_beta: gate == Some(GateOrder::NormFirst) && d_residual,
                d_residual,
                from_y,
                masked,
                marked,
                renorm,
                uncentred,
                affine,
                sum,
                d_sum,
                folded,
                int8: None,
                derivative: None,
                y_tangent: false,
                ragged: false,
                mean_scale: false,
                unbiased: false,
            };
            // Before anything is linked; gates are the family's.
            let family =
                !of_channels(kernel) || matches!(kernel, Kernel::ReduceMoments | Kernel::ReduceSquares);
            let gates = [None, Some(GateOrder::NormFirst), Some(GateOrder::GateFirst)].into_iter();
            let gates = gates.filter(|gate| gate.is_none() || family && residual);
            let gates = gates.filter(|gate| *gate != Some(GateOrder::GateFirst) || !sum && !d_sum);
            let with_beta = |pointwise| [pointwise, Pointwise { without_beta: false, ..pointwise }];
            let known =
                gates.map(of).flat_map(with_beta).filter(|pointwise| pointwise.of(kernel) == *pointwise);
            let mut known: Vec<_> = known.collect();
            known.dedup();
            let int8: &[_] = match kernel {
                Kernel::MapInt8(_) => &[Some(Int8Kind::PerRow)],
                Kernel::MapForward(StatisticsFrom::Running | StatisticsFrom::Slices) => {
                    &[None, Some(Int8Kind::PerTensor)]
                }
                Kernel::ResidentForward(StatisticsFrom::Slices) => {
                    &[None, Some(Int8Kind::PerTensor), Some(Int8Kind::PerRow)]
                }
                _ => &[None],
            };
            let known = known.iter().flat_map(|known| int8.iter().map(|&int8| Pointwise { int8, ..*known }));
            let known: Vec<_> = known.collect();
            all.extend(known.into_iter().map(|pointwise| (pointwise, through)));
        }
    }
    all.into_iter().filter_map(|(pointwise, through)| asked(kernel, pointwise, through)).collect()
}

/// The same, if a kernel is asked for it by the host.
fn asked(
    kernel: Kernel,
    pointwise: Pointwise,
    through: bool,
) -> Option<(Pointwise, [Option<Slot>; WALKED_INPUTS.len()])> {
    let Pointwise { residual, d_residual, d_sum, from_y, gate, .. } = pointwise;
    let plain = Variant { pointwise, ..example(kernel) };
    // In place is one input over one output; views may lie between each other in any way.
    let output = plain.outputs().first().copied().filter(|_| through);
    let through = match kernel {
        Kernel::MapForward(_) | Kernel::MapCopy | Kernel::ReduceMoments | Kernel::ReduceSquares
            if pointwise.int8.is_none() =>
        {
            [output, None, None, None, None, None]
        }
        _ => [None, output, None, None, None, None],
    };
    let bindings = Variant { through, ..plain }.link().bindings.len();
    // What the host asks for: see ops/. Nothing is read through a y of int8.
    let asked = match kernel {
        _ if pointwise.int8.is_some() && output.is_some() => false,
        Kernel::ResidentForward(_) if pointwise.int8 == Some(Int8Kind::PerRow) => bindings <= 9,
        Kernel::MapBackward { dx: false, .. } => d_residual && bindings <= 9,
        Kernel::MapBackward { statistics: StatisticsFrom::Running, .. } => bindings <= 9,
        Kernel::ReduceGradients { statistics: StatisticsFrom::Running, .. } => bindings <= 9 && !from_y,
        Kernel::ReduceGradients { statistics: StatisticsFrom::Saved, dx: true } => !from_y,
        OF_SLICES => bindings <= 9,
        // d_residual is written along rows, and d_sum added by a map of its own.
        Kernel::ReduceGradients { statistics: StatisticsFrom::MeansOfRow, .. }
        | Kernel::ReduceRowGradients { dx: true, .. } => {
            gate == Some(GateOrder::GateFirst) || !(d_residual || residual && d_sum)
        }
        Kernel::MapBackward { statistics: StatisticsFrom::Curve(_), .. } => bindings <= 9,
        Kernel::ReduceGradients { statistics: StatisticsFrom::Curve(_), .. } => bindings <= 9 && !from_y,
        Kernel::ReduceGradients { statistics: StatisticsFrom::FoldedCurve(_), .. } => !from_y,
        _ => true,
    };
    asked.then_some((pointwise, through))
}

/// A variant in the plainest walk.
pub(crate) fn example(kernel: Kernel) -> Variant {
    Variant {
        kernel,
        pointwise: Pointwise::default(),
        dtype: DType::F32,
        parameters: DType::F32,
        packed_f16: false,
        parameter_words: false,
        through: [None; WALKED_INPUTS.len()],
        walk: if is_along_columns(kernel) { WalkKind::Columns } else { WalkKind::Segments },
        width: if per_slice(kernel) || kernel == Kernel::MapPermute { 1 } else { 4 },
        edges: false,
        strided: false,
        strip: 1,
        depth: 1,
        single_rows: false,
        workgroup_size: 64,
        team_size: if matches!(
            kernel,
            Kernel::FoldMerge(_)
                | Kernel::FoldRecords(_)
                | Kernel::FoldMarks
                | Kernel::FoldTangents(_)
                | Kernel::FoldSecond
        ) {
            1
        } else {
            64
        },
        subgroup_size: 0,
        held: if kernel.is_resident() { 8 } else { 0 },
        chunk_words: if kernel.chunked() { 16 } else { 0 },
        shared: false,
    }
}

/// What a kernel does at the least.
fn plain_pointwise(kernel: Kernel) -> Pointwise {
    let int8 = matches!(kernel, Kernel::MapInt8(_)).then_some(Int8Kind::PerRow);
    let affine = match suits(kernel, AffineOf::Slice) {
        true => AffineOf::Slice,
        false => AffineOf::Row,
    };
    Pointwise { int8, affine, ..Pointwise::default() }
}

fn all_variants() -> Vec<Variant> {
    let mut variants = plain_variants();
    for kernel in all_kernels() {
        for (pointwise, through) in all_pointwise(kernel) {
            let by_row = pointwise.affine == AffineOf::Row;
            let example = |kernel| {
                let example = example(kernel);
                Variant { walk: if by_row { WalkKind::Columns } else { example.walk }, ..example }
            };
            variants.push(Variant { pointwise, through, ..example(kernel) });
            if pointwise.affine == AffineOf::Place {
                let example = Variant { pointwise, through, parameter_words: true, ..example(kernel) };
                variants.push(example);
            }
            if pointwise.masked && pointwise.activation == ActivationKind::NONE {
                let columns = WalkKind::Columns;
                for (walk, width, edges, strip, single_rows) in [
                    (WalkKind::Segments, 1, false, 1, false),
                    (WalkKind::Segments, 4, true, 4, false),
                    (columns, 1, false, 1, true),
                    (columns, 1, true, 2, false),
                    (columns, 4, false, 2, false),
                    (columns, 4, false, 2, true),
                    (columns, 4, true, 1, false),
                ] {
                    let example = example(kernel);
                    variants.push(Variant {
                        pointwise,
                        through,
                        walk,
                        width,
                        edges,
                        strip,
                        single_rows,
                        ..example
                    });
                }
            }
            for (dtype, packed_f16) in [(DType::F16, false), (DType::F16, true), (DType::Bf16, false)] {
                // Activations do not know of the storage.
                let kind = pointwise.activation;
                if kind != ActivationKind::NONE && kind != ActivationKind::of(Activation::Relu) {
                    continue;
                }
                for parameters in [DType::F32, dtype] {
                    for width in [1, 4] {
                        if per_slice(kernel)
                            && (width == 4 || matches!(kernel, Kernel::FoldTotal(_) | Kernel::FoldMerge(_)))
                            || kernel == Kernel::MapPermute && width == 4
                        {
                            continue;
                        }
                        for walk in [WalkKind::Segments, WalkKind::Columns] {
                            let columns = walk == WalkKind::Columns;
                            let segments = matches!(kernel, Kernel::MapCopy | Kernel::MapPermute | OF_SLICES);
                            let by_place = pointwise.affine == AffineOf::Place;
                            if columns && (per_slice(kernel) || segments || by_place)
                                || !columns && (by_row || is_along_columns(kernel))
                            {
                                continue;
                            }
                            // A resident kernel knows no words of two slices.
                            let pairs = walk == WalkKind::Segments && kernel.is_resident();
                            let edges = width == 4 && !pairs;
                            let example = example(kernel);
                            variants.push(Variant {
                                pointwise,
                                through,
                                dtype,
                                parameters,
                                packed_f16,
                                width,
                                walk,
                                edges,
                                ..example
                            });
                        }
                    }
                }
            }
        }
    }
    variants.extend(derivatives::variants());
    variants.extend(ragged::variants());
    variants.sort_by_key(Variant::key);
    variants.dedup();
    // Four values of int8 are a word; those of a row of one scale have no edges.
    variants.retain(|variant| match variant.pointwise.int8 {
        None => true,
        Some(Int8Kind::PerTensor) => variant.width == 4,
        Some(Int8Kind::PerRow) => variant.width == 4 && !variant.edges && variant.walk == WalkKind::Segments,
    });
    variants
}

/// No capability beyond WebGPU's core but subgroups where they are asked for: every other variant must run in a browser.
/// (naga knows OpenGL devices, which cannot convert binary16; the probe finds that out.)
fn validator(variant: &Variant) -> Validator {
    let mut capabilities = Capabilities::empty();
    capabilities.set(Capabilities::SHADER_FLOAT16_IN_FLOAT32, variant.packed_f16);
    capabilities.set(Capabilities::SUBGROUP, variant.subgroup_size > 0);
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator.subgroup_stages(ShaderStages::COMPUTE).subgroup_operations(SubgroupOperationSet::all());
    validator
}

/// Each text is parsed once, by as many threads as there are cores, for all that must hold of it and of its variants.
#[test]
fn every_variant_is_valid_and_binds_what_it_says() {
    let mut texts: BTreeMap<(String, [bool; 2]), (Linked, Vec<Variant>)> = BTreeMap::new();
    for variant in all_variants() {
        let linked = variant.link();
        let asks = [variant.subgroup_size > 0, variant.packed_f16];
        let (_, variants) = texts.entry((linked.text.clone(), asks)).or_insert((linked, Vec::new()));
        variants.push(variant);
    }
    let texts: Vec<_> = texts.into_values().collect();
    if let Some(directory) = std::env::var_os("WGNORM_WRITE_WGSL") {
        write(&texts, std::path::Path::new(&directory));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for part in texts.chunks(texts.len().div_ceil(threads)) {
            scope.spawn(|| part.iter().for_each(|(linked, variants)| check(linked, variants)));
        }
    });
}

/// Writes texts for other compilers (`cargo xtask tint`): NUMBER.wgsl, and variants.json with what each is compiled with.
fn write(texts: &[(Linked, Vec<Variant>)], directory: &std::path::Path) {
    std::fs::create_dir_all(directory).unwrap();
    let mut listed = Vec::new();
    for (number, (linked, variants)) in texts.iter().enumerate() {
        std::fs::write(directory.join(format!("{number}.wgsl")), &linked.text).unwrap();
        let of_variant = |variant: &Variant| {
            let constants: BTreeMap<&str, f64> = variant.constants(linked).into_iter().collect();
            serde_json::json!({ "key": variant.key(), "entry": variant.kernel.entry(), "constants": constants })
        };
        listed.push(variants.iter().map(of_variant).collect::<Vec<_>>());
    }
    std::fs::write(directory.join("variants.json"), serde_json::to_vec(&listed).unwrap()).unwrap();
}

fn check(linked: &Linked, variants: &[Variant]) {
    let key = variants[0].key();
    let wgsl = &linked.text;
    let module = naga::front::wgsl::parse_str(wgsl)
        .unwrap_or_else(|error| panic!("{key}: {}", error.emit_to_string(wgsl)));
    let info = validator(&variants[0])
        .validate(&module)
        .unwrap_or_else(|error| panic!("{key}: {}", error.emit_to_string(wgsl)));
    for variant in variants {
        let key = variant.key();
        check_bindings(variant, linked, &module, &info);
        let constants =
            variant.constants(linked).into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let stage = Some((naga::ShaderStage::Compute, variant.kernel.entry()));
        let (module, _) =
            naga::back::pipeline_constants::process_overrides(&module, &info, stage, &constants)
                .unwrap_or_else(|error| panic!("{key}: {error}"));
        let entry = module.entry_points.iter().find(|entry| entry.name == variant.kernel.entry()).unwrap();
        assert_eq!(entry.workgroup_size, [variant.workgroup_size, 1, 1], "{key}");
    }
}

/// Bindings are the ones that the entry point uses.
fn check_bindings(variant: &Variant, linked: &Linked, module: &naga::Module, info: &naga::valid::ModuleInfo) {
    let key = variant.key();
    let entry = module.entry_points.iter().position(|e| e.name == variant.kernel.entry()).unwrap();
    let mut used = Vec::new();
    for (handle, global) in module.global_variables.iter() {
        let Some(binding) = &global.binding else { continue };
        if info.get_entry_point(entry)[handle].is_empty() {
            continue;
        }
        assert_eq!(binding.group, 0, "{key}");
        let writable = match global.space {
            naga::AddressSpace::Storage { access } => access.contains(naga::StorageAccess::STORE),
            _ => false,
        };
        used.push((binding.binding, writable));
    }
    used.sort_unstable();
    let declared: Vec<_> = linked.bindings.iter().map(|binding| (binding.number, binding.writes)).collect();
    assert_eq!(used, declared, "{key}");
    for (number, writes) in &declared {
        let slot = Slot::of_number(*number).unwrap_or_else(|| panic!("{key} binds {number}"));
        assert_eq!(*writes, slot.writes() || variant.shared && slot.is_input(), "{key}: {slot:?}");
    }
    assert!(declared.len() <= 1 + crate::plan::Capabilities::STORAGE_BUFFERS as usize, "{key}");
}

#[test]
fn keys_are_unique_and_readable() {
    let variants = all_variants();
    let mut keys: Vec<_> = variants.iter().map(Variant::key).collect();
    assert!(
        keys.contains(
            &"reduce_gradients<running,dx> columns f32x4 edges strided strip2 wg256 team32 chunk16 shared"
                .to_owned()
        )
    );
    keys.sort_unstable();
    keys.dedup();
    // Kernels without a chunk, and folds without words, differ in nothing else.
    assert_eq!(keys.len(), variants.len());
}

#[test]
fn records_have_the_same_layout_in_rust_and_wgsl() {
    let variant =
        Variant { walk: WalkKind::Columns, strip: 2, ..example(Kernel::MapForward(StatisticsFrom::Batch)) };
    let module = naga::front::wgsl::parse_str(&variant.link().text).unwrap();
    let named = |fields: &[(&str, usize)]| -> Vec<(String, usize)> {
        fields.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
    };
    let (size, fields) = reflect::struct_layout(&module, "MomentsRecord");
    assert_eq!(size, size_of::<crate::statistics::moments::MomentsRecord>());
    assert_eq!(fields, named(&[("count", 0), ("shift", 8), ("delta", 12), ("variance", 16), ("unused", 20)]));
    let (size, fields) = reflect::struct_layout(&module, "StatisticsRecord");
    assert_eq!(size, size_of::<crate::statistics::saved::SavedRecord>());
    let names =
        ["shift", "delta", "inv_std", "variance", "gamma", "beta", "status", "count", "r", "d"].iter();
    assert_eq!(fields, named(&names.copied().zip((0..).step_by(4)).collect::<Vec<_>>()));
}
