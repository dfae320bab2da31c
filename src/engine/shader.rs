//! Kernels, and the variants that each can be built in.
//!
//! A kernel is a module of `shaders/` with an entry point. What differs between training and inference, between activations or between storage
//! types is which modules stand for those that it imports ([`choice`]); how a variant is compiled is that and its pipeline constants.

use super::custom;
use super::slot::Slot;
use crate::base::dtype::DType;
use crate::plan::{AffineOf, WalkKind};
use crate::wesl::{self, Linked, Package};

mod choice;
mod kernel;
pub(crate) mod modules;
mod pointwise;
#[cfg(any(test, target_family = "wasm"))]
mod strip;

pub(crate) use kernel::{Kernel, Monoid, OwnStep, StatisticsFrom};
pub(crate) use pointwise::{ActivationKind, Derivative, Int8Kind, Pointwise};

/// The tensors that kernels read in words, in the order of [`Variant::through`].
pub(crate) const WALKED_INPUTS: [Slot; 6] =
    [Slot::X, Slot::Dy, Slot::Residual, Slot::Addend, Slot::DSum, Slot::XTangent];

/// A kernel with everything that makes it one pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    pub kernel: Kernel,
    pub pointwise: Pointwise,
    /// How values are stored.
    pub dtype: DType,
    /// How gamma and beta, or their gradients, are stored.
    pub parameters: DType,
    /// Whether gamma and beta are read four at a time.
    pub parameter_words: bool,
    /// Whether binary16 is converted by the built-in functions.
    pub packed_f16: bool,
    pub walk: WalkKind,
    /// Values per word, 1 or 4.
    pub width: u32,
    /// Slices, or the tensor, begin or end inside of words.
    pub edges: bool,
    /// Rows or samples of a tensor are further apart than in a dense one.
    pub strided: bool,
    /// A row has each channel once (columns): not several rows as one.
    pub single_rows: bool,
    /// Words that an invocation walks at once: 1 to 16.
    pub strip: u32,
    /// Words that an invocation loads before it uses the first: 1, 2, 4 or 8.
    pub depth: u32,
    pub workgroup_size: u32,
    pub team_size: u32,
    /// Invocations per subgroup where teams merge by shuffles, 0 where by workgroup memory alone.
    pub subgroup_size: u32,
    /// Words that an invocation holds in registers; 0 unless the kernel is resident.
    pub held: u32,
    pub chunk_words: u32,
    /// Outputs through whose binding the inputs are read: y written over x, dx over dy, or views of one buffer that
    /// lie between each other, of which wgpu refuses to bind both.
    pub through: [Option<Slot>; WALKED_INPUTS.len()],
    /// Inputs are bound read-write, because one of them lies in the same buffer as an output: wgpu refuses the same
    /// buffer read-only and read-write in one dispatch, even in disjoint ranges.
    pub shared: bool,
}

impl Variant {
    /// Without what makes no difference to the kernel, so that it is compiled once.
    pub fn reduced(self) -> Self {
        let folds = !self.pointwise.of(self.kernel).folded;
        let merges = folds && self.kernel.reduces().is_some_and(Monoid::is_shuffled) && self.team_size > 1;
        // Teams among each other.
        let merges = merges || matches!(self.kernel, Kernel::ReduceRowGradients { .. });
        Self {
            strip: if matches!(self.kernel, Kernel::MapCopy | Kernel::MapPermute) { 1 } else { self.strip },
            // Along columns a row brings statistics of its own.
            depth: if self.kernel.is_ahead() && !self.kernel.statistics().of_rows() { self.depth } else { 1 },
            subgroup_size: if merges { self.subgroup_size } else { 0 },
            held: if self.kernel.is_resident() { self.held } else { 0 },
            chunk_words: if self.kernel.chunked() { self.chunk_words } else { 0 },
            parameter_words: self.parameter_words && self.reads_parameter_words(),
            // Only where the mask is looked up does it make a difference.
            single_rows: self.single_rows && self.pointwise.of(self.kernel).masked,
            // They are f32 beside each other.
            parameters: if self.pointwise.of(self.kernel).derivative.is_some() {
                DType::F32
            } else {
                self.parameters
            },
            pointwise: self.pointwise.of(self.kernel),
            ..self
        }
    }

    /// Whether gamma and beta can be read four at a time.
    pub fn reads_parameter_words(&self) -> bool {
        let whole = self.width == 4 && !self.edges && self.parameters == DType::F32;
        whole
            && self.pointwise.of(self.kernel).derivative.is_none()
            && self.pointwise.of(self.kernel).affine == AffineOf::Place
    }

    /// Whether values of binary16 are converted.
    pub fn uses_f16(&self) -> bool {
        self.dtype == DType::F16 || self.parameters == DType::F16
    }

    /// Pipeline label and cache key, for people to read.
    pub fn key(&self) -> String {
        let mut key = self.kernel.entry().to_owned();
        match self.kernel {
            Kernel::ReduceGradients { statistics, dx } | Kernel::ReduceRowGradients { statistics, dx } => {
                key += &format!("<{}{}>", statistics.name(), if dx { ",dx" } else { "" });
            }
            Kernel::MapForward(from)
            | Kernel::MapInt8(from)
            | Kernel::ResidentForward(from)
            | Kernel::ResidentBackward(from)
            | Kernel::FoldStatistics(from)
            | Kernel::FoldTangents(from)
            | Kernel::FoldRecords(from) => {
                key += &format!("<{}>", from.name());
            }
            Kernel::FoldMeans { times_gamma: true } => key += "<times gamma>",
            Kernel::FoldMixture { running: true } => key += "<running>",
            Kernel::ReduceSecond => key += "<derivatives>",
            Kernel::ReduceProduct => key += "<product>",
            Kernel::FoldDirection { given, of_all } => {
                key += match (given, of_all) {
                    (true, _) => "<given>",
                    (_, true) => "<sigma>",
                    _ => "",
                };
            }
            Kernel::FoldGroups => key += "<gradient_sums of groups>",
            Kernel::FoldTotal(of) | Kernel::FoldMerge(of) | Kernel::FoldNodes(of) => {
                key += &format!("<{}>", of.name());
            }
            Kernel::Own { program, .. } => key += &format!("<{program}>"),
            Kernel::MapBackward { statistics, dx } => {
                key += &format!("<{}{}>", statistics.name(), if dx { "" } else { ",no dx" });
            }
            _ => {}
        }
        key += &self.pointwise.key();
        for (input, output) in WALKED_INPUTS.iter().zip(self.through) {
            if let Some(output) = output {
                key += &format!(" {} through {}", input.name(), output.name());
            }
        }
        key += &format!(" {} {}x{}", self.walk.name(), self.dtype.short(), self.width);
        if self.packed_f16 {
            key += " packed";
        }
        if self.parameter_words {
            key += " parameter words";
        }
        if self.parameters != DType::F32 {
            key += &format!(" parameters {}", self.parameters.short());
        }
        for (is, name) in [(self.edges, " edges"), (self.strided, " strided")] {
            if is {
                key += name;
            }
        }
        if self.single_rows {
            key += " rows";
        }
        if self.strip > 1 {
            key += &format!(" strip{}", self.strip);
        }
        if self.depth > 1 {
            key += &format!(" depth{}", self.depth);
        }
        key += &format!(" wg{} team{}", self.workgroup_size, self.team_size);
        for (size, name) in [(self.subgroup_size, "subgroup"), (self.held, "held")] {
            if size > 0 {
                key += &format!(" {name}{size}");
            }
        }
        if self.kernel.chunked() {
            key += &format!(" chunk{}", self.chunk_words);
        }
        if self.shared {
            key += " shared";
        }
        key
    }

    /// Tensors that the kernel writes in words.
    fn outputs(&self) -> Vec<Slot> {
        let mut outputs = match self.kernel {
            Kernel::MapForward(_)
            | Kernel::MapInt8(_)
            | Kernel::MapCopy
            | Kernel::MapPermute
            | Kernel::ResidentForward(_)
            | Kernel::Own { step: OwnStep::Map, .. } => vec![Slot::Y],
            Kernel::ResidentBackward(_)
            | Kernel::MapBackward { dx: true, .. }
            | Kernel::ReduceGradients { dx: true, .. }
            | Kernel::ReduceRowGradients { dx: true, .. } => vec![Slot::Dx],
            _ => vec![],
        };
        outputs.extend(self.pointwise.d_residual.then_some(Slot::DResidual));
        outputs.extend(self.pointwise.y_tangent.then_some(Slot::YTangent));
        outputs.extend((self.pointwise.sum && self.kernel != Kernel::MapCopy).then_some(Slot::Sum));
        outputs
    }

    /// The modules that it is made of.
    fn package(&self) -> &'static Package {
        match self.pointwise.activation.custom() {
            Some(key) => custom::package_with(key),
            None => modules::package(),
        }
    }

    /// The kernel as WGSL, with its bindings and pipeline constants.
    ///
    /// # Panics
    /// If its modules cannot be linked, which tests rule out for all variants.
    pub fn link(&self) -> Linked {
        let linked = self.package().link(self.entry_module(), &self.choice());
        linked.unwrap_or_else(|error| panic!("{}: {error}", self.key()))
    }

    /// The same of a program's kernel: its own module is `own`, of a package that has ours.
    ///
    /// # Errors
    /// What the linker says of the program's modules.
    pub fn link_own(&self, package: &Package, own: &str) -> wesl::Result<Linked> {
        let mut choice = self.choice();
        ["own", "monoid"].into_iter().for_each(|path| choice.replace(path, own));
        package.link(self.entry_module(), &choice)
    }

    /// The module of the entry point, the features that hold, and all modules as they are for it.
    #[cfg(feature = "eval")]
    pub fn instantiate(&self) -> (&'static str, Vec<String>, Vec<(String, String)>) {
        let choice = self.choice();
        let modules = self.package().instantiate(&choice);
        (self.entry_module(), choice.features.into_iter().collect(), modules)
    }

    /// Values of pipeline constants, of those that there are.
    pub fn constants(&self, linked: &Linked) -> Vec<(&'static str, f64)> {
        let constants = [
            ("WORKGROUP_SIZE", f64::from(self.workgroup_size)),
            ("TEAM_SIZE", f64::from(self.team_size)),
            ("EDGES", f64::from(u8::from(self.edges))),
            ("STRIDED", f64::from(u8::from(self.strided))),
            ("CHUNK_WORDS", f64::from(self.chunk_words)),
        ];
        constants.into_iter().filter(|(name, _)| linked.overrides.iter().any(|o| o == name)).collect()
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
mod tests;
#[cfg(test)]
pub(crate) use tests::example;
