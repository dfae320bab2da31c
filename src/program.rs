//! The host half of kernels that others than this crate have written: check, plan, bind, as for its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::dtype::DType;
use crate::base::error::{Error, Result};
use crate::engine::build::Build;
use crate::engine::context::Context;
use crate::engine::kernels::ProgramModules;
use crate::engine::prepared::Prepared;
use crate::engine::shader::modules::package;
use crate::engine::shader::{Kernel, OwnStep, Pointwise, Variant, WALKED_INPUTS};
use crate::engine::slot::Slot;
use crate::engine::tensor::Tensor;
use crate::ops::fold;
use crate::plan::Records;
use crate::plan::{Op, Slices, Traffic, Walk, WalkKind};
use crate::wesl::{self, Linked};

/// The folder of a program's modules, so that none is in the way of the crate's.
const HOME: &str = "program";

/// Bytes of a record at most: those of the largest of the crate's own.
const MOST_RECORD_BYTES: u32 = 24;

/// Tensors of x's shape that a program can read.
const INPUTS: [Slot; 3] = [Slot::X, Slot::Dy, Slot::Residual];

/// A kernel of one's own: reduce, fold and map over the slices of a tensor, by the functions of a module. [`wgsl`](crate::wgsl) says which.
///
/// Make it once: kernels are compiled for each program anew, and kept as long as it is.
#[derive(Clone, Debug)]
pub struct Program {
    modules: Arc<ProgramModules>,
    record_bytes: u32,
    /// Which inputs are read by the reduction and by the map.
    reads: [Vec<Slot>; 2],
}

impl Program {
    /// Reads a program of one module; `name` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Shader`] for what is no module, lacks a declaration, imports what there is not, or has records of another size than it can have.
    pub fn new(name: &str, wesl: &str) -> Result<Self> {
        Self::with_modules(name, &[(name, wesl)])
    }

    /// As [`new`](Self::new), of several modules, each with the name that the others import it by (`package::name`); `main` is the one that declares
    /// what a program must.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_modules(main: &str, modules: &[(&str, &str)]) -> Result<Self> {
        let mut all = package().clone();
        for (name, wesl) in modules {
            all.add(HOME, name, wesl)?;
        }
        Self::of(ProgramModules { id: 0, package: all, own: format!("{HOME}/{main}"), constants: Vec::new() })
    }

    /// The same with a value for one of its pipeline constants (`override`).
    ///
    /// # Errors
    /// [`Error::Shader`] if it has none of that name.
    pub fn constant(&self, name: &str, value: f64) -> Result<Self> {
        let mut modules = self.same();
        let known = STEPS.map(|step| link(&modules, step)).into_iter().collect::<Result<Vec<_>>>()?;
        if !known.iter().any(|linked| linked.overrides.iter().any(|known| known == name)) {
            let what = format!("none of its kernels uses an override {name}");
            return Err(Error::Shader { module: modules.own, line: 1, what });
        }
        modules.constants.retain(|(known, _)| known != name);
        modules.constants.push((name.to_owned(), value));
        Self::of(modules)
    }

    /// Starts a pass over slices that share these axes' values, in any order: `[1, 2, 3]` of `[N, C, H, W]` are the samples, the last axis alone
    /// are rows.
    pub fn over<'a>(&'a self, axes: &'a [usize]) -> Pass<'a> {
        Pass { program: self, axes, tensors: Vec::new() }
    }

    fn same(&self) -> ProgramModules {
        let ProgramModules { package, own, constants, .. } = &*self.modules;
        ProgramModules { id: 0, package: package.clone(), own: own.clone(), constants: constants.clone() }
    }

    fn of(modules: ProgramModules) -> Result<Self> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let modules = ProgramModules { id, ..modules };
        let record_bytes = modules.package.constant(&modules.own, "RECORD_BYTES").unwrap_or_default();
        if record_bytes == 0 || !record_bytes.is_multiple_of(4) || record_bytes > MOST_RECORD_BYTES {
            let what = format!(
                "expected a constant RECORD_BYTES that is a multiple of 4 up to {MOST_RECORD_BYTES}, got {record_bytes}"
            );
            return Err(Error::Shader { module: modules.own, line: 1, what });
        }
        let [reduce, _, map] = STEPS.map(|step| link(&modules, step));
        let reads = [inputs_of(&reduce?), inputs_of(&map?)];
        Ok(Self { modules: Arc::new(modules), record_bytes, reads })
    }

    fn kernel(&self, step: OwnStep) -> Kernel {
        Kernel::Own { program: self.modules.id, step }
    }
}

const STEPS: [OwnStep; 3] = [OwnStep::Reduce, OwnStep::Fold, OwnStep::Map];

/// A kernel in the plainest of its variants: what it lacks, all lack.
fn link(modules: &ProgramModules, step: OwnStep) -> Result<Linked> {
    let variant = Variant {
        kernel: Kernel::Own { program: modules.id, step },
        pointwise: Pointwise::default(),
        dtype: DType::F32,
        parameters: DType::F32,
        parameter_words: false,
        packed_f16: false,
        walk: WalkKind::Segments,
        width: 1,
        edges: false,
        strided: false,
        single_rows: false,
        strip: 1,
        depth: 1,
        workgroup_size: 64,
        team_size: 64,
        subgroup_size: 0,
        held: 0,
        chunk_words: 16,
        through: [None; WALKED_INPUTS.len()],
        shared: false,
    };
    Ok(variant.link_own(&modules.package, &modules.own)?)
}

fn inputs_of(linked: &Linked) -> Vec<Slot> {
    let bound = |slot: &Slot| linked.bindings.iter().any(|binding| binding.number == *slot as u32);
    INPUTS.into_iter().filter(bound).collect()
}

impl From<wesl::Error> for Error {
    fn from(error: wesl::Error) -> Self {
        let wesl::Error { module, line, what } = error;
        Error::Shader { module, line, what }
    }
}

/// A pass of a [`Program`] that is being put together.
#[derive(Clone, Debug)]
pub struct Pass<'a> {
    program: &'a Program,
    axes: &'a [usize],
    tensors: Vec<(&'a str, &'a Tensor)>,
}

impl<'a> Pass<'a> {
    /// Binds a tensor by its name: `x`, and if the program reads them `dy` and `residual`; `y` is what it writes, and may be `x`.
    #[must_use]
    pub fn bind(mut self, name: &'a str, tensor: &'a Tensor) -> Self {
        self.tensors.push((name, tensor));
        self
    }

    /// Checks, plans, compiles and binds. All tensors have the shape and element type of x, and are contiguous in one buffer.
    ///
    /// # Errors
    /// [`Error::Binding`] for a name that the program does not have, or that is bound twice or not at all; [`Error::Axes`], [`Error::Shape`],
    /// [`Error::DType`], [`Error::NotContiguous`], [`Error::EmptyBatch`] for slices without values; [`Error::Validation`] for WGSL that cannot be
    /// compiled; and what binding the tensors can raise.
    pub async fn prepare(&self, context: &Context) -> Result<Prepared> {
        #[cfg(feature = "wgpu")]
        context.try_untrusted_driver().await?;
        let Program { modules, record_bytes, reads } = self.program;
        let bound = self.bound()?;
        let x = bound[0].1;
        for (slot, tensor) in &bound {
            tensor.check_device(slot.name(), context)?;
            tensor.check_shape(slot.name(), x.shape())?;
            tensor.check_dtype(slot.name(), x.dtype())?;
            tensor.check_contiguous(slot.name())?;
        }
        let slices = Slices::over_axes(x.shape(), self.axes)?.ok_or_else(|| Error::Axes {
            axes: self.axes.to_vec(),
            shape: x.shape(),
            why: "they alternate with the other axes more often than kernels can walk; permute first",
        })?;
        if slices.count() == 0 && slices.statistics() > 0 {
            return Err(Error::EmptyBatch { shape: x.shape() });
        }
        if slices.pattern.elements() == 0 {
            return Ok(Prepared::nothing(context, Op::Own));
        }
        let walked: Vec<_> = bound.iter().map(|(_, tensor)| *tensor).collect();
        let walk = Walk::over(slices.pattern, &walked, context.capabilities().storage_alignment);
        let plan = context.plan_walk(&walk, None)?;
        let partials = u64::from(plan.records) * u64::from(plan.splits);
        let records = slices.records(&plan);
        let mut build = Build::new(context, Op::Own, plan);
        build.program = Some(modules.clone());
        build.params.count = slices.count() as f32;
        for (slot, tensor) in &bound {
            build.tensor(*slot, tensor)?;
        }
        build.scratch(partials * u64::from(*record_bytes));
        build.dispatch(self.program.kernel(OwnStep::Reduce));
        let map = self.program.kernel(OwnStep::Map);
        if slices.folds_in_map(build.plan()) {
            build.dispatch_from(map, None, records);
        } else {
            let statistics = slices.statistics();
            let total = build.workspace(statistics * u64::from(*record_bytes));
            let fold = self.program.kernel(OwnStep::Fold);
            let plan = fold::plan_fold(&build, statistics, records.partials)?;
            build.dispatch_fold(fold, plan, records, vec![(Slot::Total, total.into())]);
            let of_total = Records { partials: 1, slices: statistics as u32, matrix: 0 };
            let plan = build.plan().clone();
            build.dispatch_fold(map, plan, of_total, vec![(Slot::Partials, total.into())]);
        }
        let read: usize = reads.iter().map(Vec::len).sum();
        build.finish(Traffic::passes(x.byte_len(), bound.len() as u64, read as u64 + 1)).await
    }

    /// The tensors by their slots, x first.
    fn bound(&self) -> Result<Vec<(Slot, &'a Tensor)>> {
        let [reduced, mapped] = &self.program.reads;
        let is_read = |slot: &Slot| *slot == Slot::X || reduced.contains(slot) || mapped.contains(slot);
        let needed: Vec<Slot> = INPUTS.into_iter().filter(is_read).chain([Slot::Y]).collect();
        let error = |name: &str, why| {
            let expected = needed.iter().map(|slot| slot.name()).collect();
            Err(Error::Binding { name: name.to_owned(), why, expected })
        };
        for (i, (name, _)) in self.tensors.iter().enumerate() {
            if !needed.iter().any(|slot| slot.name() == *name) {
                return error(name, "the program has no such tensor");
            }
            if self.tensors[..i].iter().any(|(other, _)| other == name) {
                return error(name, "it is bound twice");
            }
        }
        let mut bound = Vec::new();
        for slot in &needed {
            match self.tensors.iter().find(|(name, _)| *name == slot.name()) {
                Some((_, tensor)) => bound.push((*slot, *tensor)),
                None => return error(slot.name(), "it is not bound"),
            }
        }
        Ok(bound)
    }
}
