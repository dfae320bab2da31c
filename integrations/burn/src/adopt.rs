//! A model with these layers, from one with burn's.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;

use burn::module::{Flag, Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Bool, Float, Int, Tensor};

/// Why a model cannot take another's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptError {
    /// What the model has and the other lacks.
    pub missing: Vec<String>,
    /// What the other has and the model lacks.
    pub unused: Vec<String>,
    /// What is of another kind, rank or shape.
    pub differs: Vec<String>,
}

impl fmt::Display for AdoptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, unused, differs } = self;
        write!(
            f,
            "expected the same parameters; missing: {missing:?}; unused: {unused:?}; of another shape: {differs:?}"
        )
    }
}

impl std::error::Error for AdoptError {}

/// The model with the values of another that has the same fields: parameters, running statistics and flags, on the other's device, shared and not
/// copied. So a model whose layers are burn's becomes one whose layers are these, and back; what is no parameter (an epsilon, a momentum) is the model's own.
///
/// ```no_run
/// # use burn::{module::Module, nn, tensor::Device};
/// #[derive(Module, Debug)]
/// struct Burns { norm: nn::BatchNorm }
/// #[derive(Module, Debug)]
/// struct Ours { norm: wgnorm_burn::BatchNorm }
/// # fn example(trained: &Burns, device: &Device) {
/// let model = Ours { norm: wgnorm_burn::BatchNormConfig::new(64).init(device) };
/// let model = wgnorm_burn::adopt(model, trained).unwrap();
/// # }
/// ```
///
/// # Errors
/// [`AdoptError`] unless all names and shapes are the same.
pub fn adopt<M: Module>(model: M, other: &impl Module) -> Result<M, AdoptError> {
    // What is pending in running statistics goes into those of the other, and out of those of the model.
    drop((model.valid(), other.valid()));
    let [own, others] = [Found::of(&model), Found::of(other)];
    let mut error = AdoptError { missing: Vec::new(), unused: Vec::new(), differs: Vec::new() };
    for (name, value) in &own {
        match others.get(name) {
            None => error.missing.push(name.clone()),
            Some(other) if other.kind != value.kind || other.dims != value.dims => {
                error.differs.push(name.clone())
            }
            Some(_) => {}
        }
    }
    error.unused.extend(others.keys().filter(|name| !own.contains_key(*name)).cloned());
    if !(error.missing.is_empty() && error.unused.is_empty() && error.differs.is_empty()) {
        return Err(error);
    }
    Ok(model.map(&mut Adopting { path: Path::default(), of: others }))
}

/// Where in a model a walk is.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn name(&self) -> String {
        self.0.join(".")
    }
}

/// A parameter of a model.
struct Value {
    kind: TypeId,
    dims: Vec<usize>,
    param: Box<dyn Any>,
}

#[derive(Default)]
struct Found {
    path: Path,
    values: BTreeMap<String, Value>,
}

struct Adopting {
    path: Path,
    of: BTreeMap<String, Value>,
}

macro_rules! walk {
    () => {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.0.push(name.to_owned());
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.0.pop();
        }
    };
}

macro_rules! visit {
    ($($method:ident: $kind:ty;)*) => {$(
        fn $method<const D: usize>(&mut self, param: &Param<Tensor<D, $kind>>) {
            self.take(param, param.lazy_shape().to_vec());
        }
    )*};
}

impl Found {
    fn of(model: &impl Module) -> BTreeMap<String, Value> {
        let mut found = Self::default();
        model.visit(&mut found);
        found.values
    }

    fn take<T: Clone + 'static>(&mut self, param: &T, dims: Vec<usize>) {
        let value = Value { kind: TypeId::of::<T>(), dims, param: Box::new(param.clone()) };
        self.values.insert(self.path.name(), value);
    }
}

impl ModuleVisitor for Found {
    walk!();

    visit! { visit_float: Float; visit_int: Int; visit_bool: Bool; }

    fn visit_flag(&mut self, flag: &Param<Flag>) {
        self.take(flag, Vec::new());
    }
}

impl Adopting {
    /// The other's value of this name, which is there and of this kind.
    fn other<T: 'static>(&mut self, own: T) -> T {
        let other = self.of.remove(&self.path.name()).and_then(|value| value.param.downcast().ok());
        other.map_or(own, |other| *other)
    }
}

macro_rules! map {
    ($($method:ident: $kind:ty;)*) => {$(
        fn $method<const D: usize>(&mut self, param: Param<Tensor<D, $kind>>) -> Param<Tensor<D, $kind>> {
            self.other(param)
        }
    )*};
}

impl ModuleMapper for Adopting {
    walk!();

    map! { map_float: Float; map_int: Int; map_bool: Bool; }

    fn map_flag(&mut self, flag: Param<Flag>) -> Param<Flag> {
        self.other(flag)
    }
}
