//! Kernels as compositions of shader files, and the variants that each can be built in.
//!
//! A kernel is a list of files from `shaders/`, one entry point and the bindings that it uses. What differs between
//! training and inference, or between saved and running statistics, is which fold file is in the list. Text is
//! substituted for one thing only, the access mode of inputs (`$INPUT`); sizes are pipeline constants.

use super::slot::Slot;
use crate::plan::WalkKind;

/// One shader file.
pub(crate) struct Source {
    /// Path below `shaders/`.
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! sources {
    ($($constant:ident = $path:literal;)*) => {
        $(pub(crate) const $constant: Source = Source {
            name: $path,
            text: include_str!(concat!("../../shaders/", $path)),
        };)*
    };
}

sources! {
    PARAMS = "lib/params.wgsl";
    WORD_F32X1 = "lib/word_f32x1.wgsl";
    WORD_F32X4 = "lib/word_f32x4.wgsl";
    STAT_F32X1 = "lib/stat_f32x1.wgsl";
    STAT_F32X2 = "lib/stat_f32x2.wgsl";
    STAT_F32X4 = "lib/stat_f32x4.wgsl";
    STAT_VECTOR = "lib/stat_vector.wgsl";
    STORE_F32X1 = "lib/store_f32x1.wgsl";
    STORE_F32X4 = "lib/store_f32x4.wgsl";
    SEGMENTS = "walk/segments.wgsl";
    COLUMNS = "walk/columns.wgsl";
    PER_SLICE = "walk/per_slice.wgsl";
    PER_PAIR = "walk/per_pair.wgsl";
    PER_COMPONENT = "walk/per_component.wgsl";
    EDGES = "walk/edges.wgsl";
    CONTROL = "lib/control.wgsl";
    STRIP_1 = "walk/strip_1.wgsl";
    STRIP_2 = "walk/strip_2.wgsl";
    STRIP_4 = "walk/strip_4.wgsl";
    STRIP_8 = "walk/strip_8.wgsl";
    MOMENTS = "lib/moments.wgsl";
    ACCUMULATE = "lib/accumulate.wgsl";
    GRADIENT_SUMS = "lib/gradient_sums.wgsl";
    TREE = "lib/tree.wgsl";
    STATISTICS = "lib/statistics.wgsl";
    REDUCE_MOMENTS = "reduce/moments.wgsl";
    REDUCE_GRADIENTS = "reduce/gradients.wgsl";
    FOLD_MOMENTS = "fold/moments.wgsl";
    FOLD_MOMENTS_ALONE = "fold/moments_alone.wgsl";
    FOLD_MERGE = "fold/merge.wgsl";
    FOLD_BATCH = "fold/batch.wgsl";
    FOLD_RUNNING = "fold/running.wgsl";
    FOLD_SAVED = "fold/saved.wgsl";
    FOLD_GRADIENTS = "fold/gradients.wgsl";
    FOLD_GRADIENTS_ALONE = "fold/gradients_alone.wgsl";
    MAP_Y = "map/y.wgsl";
    MAP_DX = "map/dx.wgsl";
    MAP_FORWARD = "map/forward.wgsl";
    MAP_BACKWARD = "map/backward.wgsl";
    MAP_FROZEN = "map/frozen.wgsl";
    MAP_FROZEN_ONLY = "map/frozen_only.wgsl";
    MAP_NO_DX = "map/no_dx.wgsl";
    MAP_COPY = "map/copy.wgsl";
}

/// Where a kernel takes the statistics of a slice from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum StatisticsFrom {
    /// Partial moments of the batch (fold/batch.wgsl).
    Batch,
    /// What training forward saved (fold/saved.wgsl).
    Saved,
    /// Running statistics (fold/running.wgsl).
    Running,
}

impl StatisticsFrom {
    const fn name(self) -> &'static str {
        match self {
            StatisticsFrom::Batch => "batch",
            StatisticsFrom::Saved => "saved",
            StatisticsFrom::Running => "running",
        }
    }

    fn sources(self) -> &'static [&'static Source] {
        match self {
            StatisticsFrom::Batch => &[&MOMENTS, &TREE, &FOLD_MOMENTS, &STATISTICS, &FOLD_BATCH],
            StatisticsFrom::Saved => &[&STATISTICS, &FOLD_SAVED],
            StatisticsFrom::Running => &[&STATISTICS, &FOLD_RUNNING],
        }
    }

    fn slots(self) -> &'static [Slot] {
        match self {
            StatisticsFrom::Batch => {
                &[Slot::Gamma, Slot::Beta, Slot::RunningUpdate, Slot::Partials, Slot::SavedOut]
            }
            StatisticsFrom::Saved => &[Slot::Saved],
            StatisticsFrom::Running => &[Slot::Gamma, Slot::Beta, Slot::Running],
        }
    }
}

/// An entry point together with the choices that decide its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kernel {
    ReduceMoments,
    /// Gradient sums, with dx on the way if `dx`, which needs `StatisticsFrom::Running`.
    ReduceGradients {
        statistics: StatisticsFrom,
        dx: bool,
    },
    FoldMoments,
    MergeMoments,
    FoldGradients,
    MapForward(StatisticsFrom),
    MapBackward,
    MapFrozen,
    MapCopy,
}

impl Kernel {
    pub const fn entry(self) -> &'static str {
        match self {
            Kernel::ReduceMoments => "reduce_moments",
            Kernel::ReduceGradients { .. } => "reduce_gradients",
            Kernel::FoldMoments => "fold_moments",
            Kernel::MergeMoments => "merge_moments",
            Kernel::FoldGradients => "fold_gradients",
            Kernel::MapForward(_) => "map_forward",
            Kernel::MapBackward => "map_backward",
            Kernel::MapFrozen => "map_frozen",
            Kernel::MapCopy => "map_copy",
        }
    }

    /// The files of the kernel itself; those of its walk and words are the variant's.
    fn sources(self) -> Vec<&'static Source> {
        let mut sources = Vec::new();
        let statistics = |from: StatisticsFrom| from.sources().iter().copied();
        match self {
            Kernel::ReduceMoments => sources.extend([&MOMENTS, &ACCUMULATE, &TREE, &REDUCE_MOMENTS]),
            Kernel::ReduceGradients { statistics: from, dx } => {
                sources.extend([&GRADIENT_SUMS, &TREE]);
                sources.extend(statistics(from));
                sources.extend([if dx { &MAP_FROZEN } else { &MAP_NO_DX }, &REDUCE_GRADIENTS]);
            }
            Kernel::FoldMoments => sources.extend([&MOMENTS, &TREE, &FOLD_MOMENTS, &FOLD_MOMENTS_ALONE]),
            Kernel::MergeMoments => sources.extend([&MOMENTS, &FOLD_MERGE]),
            Kernel::FoldGradients => {
                sources.extend([&GRADIENT_SUMS, &TREE, &FOLD_GRADIENTS, &FOLD_GRADIENTS_ALONE]);
            }
            Kernel::MapForward(from) => {
                sources.extend(statistics(from));
                sources.push(&MAP_FORWARD);
            }
            Kernel::MapBackward => {
                sources.extend([&GRADIENT_SUMS, &TREE, &FOLD_GRADIENTS]);
                sources.extend(statistics(StatisticsFrom::Saved));
                sources.push(&MAP_BACKWARD);
            }
            Kernel::MapFrozen => {
                sources.extend(statistics(StatisticsFrom::Running));
                sources.extend([&MAP_FROZEN, &MAP_FROZEN_ONLY]);
            }
            Kernel::MapCopy => sources.push(&MAP_COPY),
        }
        sources
    }

    /// The file that declares the tensor which the kernel writes in words, if there is one.
    const fn output(self) -> Option<&'static Source> {
        match self {
            Kernel::MapForward(_) | Kernel::MapCopy => Some(&MAP_Y),
            Kernel::MapBackward | Kernel::MapFrozen | Kernel::ReduceGradients { dx: true, .. } => {
                Some(&MAP_DX)
            }
            _ => None,
        }
    }

    /// The bindings that the entry point uses, in order of their numbers.
    pub fn slots(self) -> Vec<Slot> {
        let mut slots = vec![Slot::Params];
        match self {
            Kernel::ReduceMoments => slots.extend([Slot::X, Slot::PartialsOut]),
            Kernel::ReduceGradients { statistics, dx } => {
                slots.extend([Slot::X, Slot::Dy, Slot::PartialsOut]);
                slots.extend(statistics.slots());
                slots.extend(dx.then_some(Slot::Dx));
            }
            Kernel::FoldMoments | Kernel::MergeMoments => slots.extend([Slot::Partials, Slot::Moments]),
            Kernel::FoldGradients => slots.extend([Slot::Partials, Slot::Dgamma, Slot::Dbeta]),
            Kernel::MapForward(statistics) => {
                slots.extend([Slot::X, Slot::Y]);
                slots.extend(statistics.slots());
            }
            Kernel::MapBackward => {
                slots.extend([Slot::X, Slot::Dy, Slot::Dx, Slot::Partials, Slot::Dgamma, Slot::Dbeta]);
                slots.extend(StatisticsFrom::Saved.slots());
            }
            Kernel::MapFrozen => {
                slots.extend([Slot::Dy, Slot::Dx]);
                slots.extend(StatisticsFrom::Running.slots());
            }
            Kernel::MapCopy => slots.extend([Slot::X, Slot::Y]),
        }
        slots.sort_unstable();
        slots
    }

    /// Whether the entry point has the override CHUNK_WORDS.
    const fn chunked(self) -> bool {
        matches!(self, Kernel::ReduceMoments | Kernel::ReduceGradients { .. })
    }
}

/// A kernel with everything that makes it one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub kernel: Kernel,
    pub walk: WalkKind,
    /// f32 per word, 1 or 4.
    pub width: u32,
    /// Slices, or the tensor, begin or end inside of words.
    pub edges: bool,
    /// Words that an invocation walks at once: 1, 2, 4 or 8.
    pub strip: u32,
    pub workgroup_size: u32,
    pub team_size: u32,
    pub chunk_words: u32,
    /// Inputs are bound read-write, because one of them lies in the same buffer as an output: wgpu refuses the same
    /// buffer read-only and read-write in one dispatch, even in disjoint ranges.
    pub shared: bool,
}

impl Variant {
    /// Pipeline label and cache key, for people to read.
    pub fn key(&self) -> String {
        let mut key = self.kernel.entry().to_owned();
        match self.kernel {
            Kernel::ReduceGradients { statistics, dx } => {
                key += &format!("<{}{}>", statistics.name(), if dx { ",dx" } else { "" });
            }
            Kernel::MapForward(statistics) => key += &format!("<{}>", statistics.name()),
            _ => {}
        }
        key += &format!(" {} f32x{}", self.walk.name(), self.width);
        if self.edges {
            key += " edges";
        }
        if self.strip > 1 {
            key += &format!(" strip{}", self.strip);
        }
        key += &format!(" wg{} team{}", self.workgroup_size, self.team_size);
        if self.kernel.chunked() {
            key += &format!(" chunk{}", self.chunk_words);
        }
        if self.shared {
            key += " shared";
        }
        key
    }

    /// The WGSL module: the files of words, walk and kernel, each under its name.
    pub fn wgsl(&self) -> String {
        let mut sources = vec![&PARAMS, if self.width == 4 { &WORD_F32X4 } else { &WORD_F32X1 }];
        let (stat, walk, per) = match (self.walk, self.width) {
            // What is written where a run ends inside of a word needs the statistics of two slices.
            (WalkKind::Segments, _) if self.edges && self.kernel.output().is_some() => {
                (&STAT_F32X2, &SEGMENTS, &PER_PAIR)
            }
            (WalkKind::Segments, _) => (&STAT_F32X1, &SEGMENTS, &PER_SLICE),
            (WalkKind::Columns, 1) => (&STAT_F32X1, &COLUMNS, &PER_COMPONENT),
            (WalkKind::Columns, _) => (&STAT_F32X4, &COLUMNS, &PER_COMPONENT),
        };
        sources.extend([stat, walk, per]);
        if stat.name != STAT_F32X1.name {
            sources.push(&STAT_VECTOR);
        }
        sources.extend([&EDGES, &CONTROL]);
        sources.push(match self.strip {
            1 => &STRIP_1,
            2 => &STRIP_2,
            4 => &STRIP_4,
            _ => &STRIP_8,
        });
        if let Some(output) = self.kernel.output() {
            sources.extend([output, if self.width == 4 { &STORE_F32X4 } else { &STORE_F32X1 }]);
        }
        sources.extend(self.kernel.sources());
        let mut wgsl = String::new();
        for source in sources {
            wgsl += &format!("// ---- shaders/{}\n{}\n", source.name, source.text);
        }
        wgsl.replace("$INPUT", if self.shared { "read_write" } else { "read" })
    }

    /// Values of the module's overrides.
    pub fn constants(&self) -> Vec<(&'static str, f64)> {
        let mut constants = vec![
            ("WORKGROUP_SIZE", f64::from(self.workgroup_size)),
            ("TEAM_SIZE", f64::from(self.team_size)),
            ("EDGES", f64::from(u8::from(self.edges))),
        ];
        if self.kernel.chunked() {
            constants.push(("CHUNK_WORDS", f64::from(self.chunk_words)));
        }
        constants
    }
}

#[cfg(test)]
pub(crate) mod reflect {
    //! What naga says of a module.

    use naga::{Module, TypeInner};

    /// Size in bytes and byte offsets of the members of a struct.
    pub fn struct_layout(module: &Module, name: &str) -> (usize, Vec<(String, usize)>) {
        let (_, ty) = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(name)).unwrap();
        let TypeInner::Struct { members, span } = &ty.inner else { panic!("{name} is not a struct") };
        let fields = members.iter().map(|m| (m.name.clone().unwrap(), m.offset as usize)).collect();
        (*span as usize, fields)
    }
}

#[cfg(test)]
mod tests {
    use naga::valid::{Capabilities, ValidationFlags, Validator};

    use super::*;

    fn all_kernels() -> Vec<Kernel> {
        use StatisticsFrom::*;
        vec![
            Kernel::ReduceMoments,
            Kernel::ReduceGradients { statistics: Saved, dx: false },
            Kernel::ReduceGradients { statistics: Running, dx: false },
            Kernel::ReduceGradients { statistics: Running, dx: true },
            Kernel::FoldMoments,
            Kernel::MergeMoments,
            Kernel::FoldGradients,
            Kernel::MapForward(Batch),
            Kernel::MapForward(Running),
            Kernel::MapBackward,
            Kernel::MapFrozen,
            Kernel::MapCopy,
        ]
    }

    /// Whether the host dispatches the kernel over slices, as segments of single values.
    fn per_slice(kernel: Kernel) -> bool {
        matches!(kernel, Kernel::FoldMoments | Kernel::MergeMoments | Kernel::FoldGradients)
    }

    fn all_variants() -> Vec<Variant> {
        let mut variants = Vec::new();
        for kernel in all_kernels() {
            for walk in [WalkKind::Segments, WalkKind::Columns] {
                for (width, edges) in [(1, false), (1, true), (4, false), (4, true)] {
                    let flat = per_slice(kernel) || kernel == Kernel::MapCopy;
                    let columns = walk == WalkKind::Columns;
                    let words = per_slice(kernel) && (width == 4 || edges);
                    // Words of one value have edges in columns only, where rows and strips may not be full.
                    if words || flat && columns || width == 1 && edges && !columns {
                        continue;
                    }
                    for (workgroup_size, team_size, strip) in
                        [(8, 1, 1), (8, 1, 8), (64, 64, 1), (256, 32, 2), (256, 32, 4), (1024, 256, 1)]
                    {
                        if strip > 1 && !columns {
                            continue;
                        }
                        for shared in [false, true] {
                            let chunk_words = 64 / width;
                            variants.push(Variant {
                                kernel,
                                walk,
                                width,
                                edges,
                                strip,
                                workgroup_size,
                                team_size,
                                chunk_words,
                                shared,
                            });
                        }
                    }
                }
            }
        }
        variants
    }

    #[test]
    fn every_variant_is_valid() {
        for variant in all_variants() {
            let key = variant.key();
            let wgsl = variant.wgsl();
            let module = naga::front::wgsl::parse_str(&wgsl)
                .unwrap_or_else(|error| panic!("{key}: {}", error.emit_to_string(&wgsl)));
            // No capability beyond WebGPU's core: every variant must run in a browser.
            let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
                .validate(&module)
                .unwrap_or_else(|error| panic!("{key}: {}", error.emit_to_string(&wgsl)));

            let constants =
                variant.constants().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let stage = Some((naga::ShaderStage::Compute, variant.kernel.entry()));
            let (module, _) =
                naga::back::pipeline_constants::process_overrides(&module, &info, stage, &constants)
                    .unwrap_or_else(|error| panic!("{key}: {error}"));
            let entry =
                module.entry_points.iter().find(|entry| entry.name == variant.kernel.entry()).unwrap();
            assert_eq!(entry.workgroup_size, [variant.workgroup_size, 1, 1], "{key}");
        }
    }

    #[test]
    fn bindings_are_the_ones_the_entry_points_use() {
        for variant in all_variants() {
            let key = variant.key();
            let module = naga::front::wgsl::parse_str(&variant.wgsl()).unwrap();
            let info =
                Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
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
            let declared: Vec<_> = variant
                .kernel
                .slots()
                .into_iter()
                .map(|slot| (slot as u32, slot.writes() || variant.shared && slot.is_input()))
                .collect();
            assert_eq!(used, declared, "{key}");
            assert!(declared.len() <= 1 + crate::plan::Capabilities::STORAGE_BUFFERS as usize, "{key}");
        }
    }

    #[test]
    fn keys_are_unique_and_readable() {
        let variants = all_variants();
        let mut keys: Vec<_> = variants.iter().map(Variant::key).collect();
        assert!(keys.contains(
            &"reduce_gradients<running,dx> columns f32x4 edges strip2 wg256 team32 chunk16 shared".to_owned()
        ));
        keys.sort_unstable();
        keys.dedup();
        // Kernels without a chunk, and folds without words, differ in nothing else.
        assert_eq!(keys.len(), variants.len());
    }

    #[test]
    fn records_have_the_same_layout_in_rust_and_wgsl() {
        let variant = Variant {
            kernel: Kernel::MapForward(StatisticsFrom::Batch),
            walk: WalkKind::Columns,
            width: 4,
            edges: true,
            strip: 2,
            workgroup_size: 64,
            team_size: 8,
            chunk_words: 16,
            shared: false,
        };
        let module = naga::front::wgsl::parse_str(&variant.wgsl()).unwrap();
        let named = |fields: &[(&str, usize)]| -> Vec<(String, usize)> {
            fields.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect()
        };
        let (size, fields) = reflect::struct_layout(&module, "MomentsRecord");
        assert_eq!(size, size_of::<crate::moments::MomentsRecord>());
        assert_eq!(
            fields,
            named(&[("count", 0), ("shift", 8), ("delta", 12), ("variance", 16), ("unused", 20)])
        );
        let (size, fields) = reflect::struct_layout(&module, "StatisticsRecord");
        assert_eq!(size, size_of::<crate::norm::SavedRecord>());
        assert_eq!(
            fields[..6],
            named(&[
                ("shift", 0),
                ("delta", 4),
                ("inv_std", 8),
                ("variance", 12),
                ("gamma", 16),
                ("beta", 20)
            ])
        );
    }
}
