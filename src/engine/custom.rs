//! Activations of one's own as modules: their WGSL read and validated once, and the package that kernels with one are made of.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::shader::modules::package;
use crate::base::activation::Activation;
use crate::base::custom::{ActivationFunctions, CustomActivation};
use crate::base::error::{Error, Result};
use crate::wesl::Package;

/// The folder of their modules, so that none is in the way of the crate's.
const HOME: &str = "custom";

/// What a text may declare, with its parameter.
const FUNCTIONS: [(&str, &str); 4] =
    [("activate", "z"), ("derivative", "z"), ("second_derivative", "z"), ("inverse", "y")];

impl Activation {
    /// A function of one's own, fused into every kernel like those that are built in: forward, backward, beside a residual, in all element types, and
    /// in place if it has an inverse.
    ///
    /// `wgsl` is plain WGSL: functions of one `f32` each, and whatever functions, constants and structs they use. NaN need not be looked after: it
    /// passes, as through all activations.
    ///
    /// | | |
    /// |---|---|
    /// | `fn activate(z: f32) -> f32` | the function |
    /// | `fn derivative(z: f32) -> f32` | its derivative |
    /// | `fn second_derivative(z: f32) -> f32` | the derivative of that, where its twin is given |
    /// | `fn inverse(y: f32) -> f32` | z of y, where its twin is given |
    ///
    /// `functions` are the same in f64: kernels do without, [`reference`](mod@crate::reference) and `eval` use them, and
    /// `eval::activation_faults` says where the two differ on a device. `name` is for errors, labels and
    /// [`Spec`](crate::Spec) lines. Kernels and measured plans are kept by name and text.
    ///
    /// Made of the same once more it is the same activation; a text stays in memory as long as the program runs.
    ///
    /// ```
    /// use wgnorm::{Activation, ActivationFunctions, BatchNorm, BatchNormOptions, Context};
    /// // z·tanh(log(1 + exp z)) (Misra, "Mish: A Self Regularized Non-Monotonic Activation Function", 2019)
    /// let mish = Activation::custom(
    ///     "mish",
    ///     "fn softplus(z: f32) -> f32 { return max(z, 0.0) + log(1.0 + exp(-abs(z))); }
    ///      fn activate(z: f32) -> f32 { return z * tanh(softplus(z)); }
    ///      fn derivative(z: f32) -> f32 {
    ///          let t = tanh(softplus(z));
    ///          return t + z * (1.0 - t * t) / (1.0 + exp(-z));
    ///      }",
    ///     ActivationFunctions::new(
    ///         |z| z * z.exp().ln_1p().tanh(),
    ///         |z| {
    ///             let t = z.exp().ln_1p().tanh();
    ///             t + z * (1.0 - t * t) / (1.0 + (-z).exp())
    ///         },
    ///     ),
    /// )?;
    /// let context = Context::headless_blocking()?;
    /// context.block_on(async {
    ///     let x = context.upload(&[4, 1], &[1.0, 2.0, 3.0, 4.0]).await?;
    ///     let mut layer = BatchNorm::new(&context, 1, BatchNormOptions::pytorch().activation(mish)).await?;
    ///     let (y, _) = layer.train_forward(&x).await?;
    ///     assert!((context.download(&y).await?[3] - 1.231).abs() < 1e-3);
    ///     Ok::<(), wgnorm::Error>(())
    /// })?;
    /// # Ok::<(), wgnorm::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shader`], with the line of `wgsl` and what naga says of it: for a text that is no WGSL, lacks a function or has one of another type, has a function
    /// without a twin or a twin without a function, or has bindings, entry points, pipeline constants, workgroup or private variables; for a name that is no
    /// identifier or that of a built-in one; for a least slope of an inverse that is not above 0 and finite.
    pub fn custom(name: &str, wgsl: &str, functions: ActivationFunctions) -> Result<Self> {
        let error = |what: &str| Error::Shader { module: name.to_owned(), line: 1, what: what.to_owned() };
        let is_identifier = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_identifier {
            return Err(error("the name of an activation is a letter, then letters, digits and underscores"));
        }
        if Self::ALL.iter().any(|built_in| built_in.name() == name) {
            return Err(error("an activation that is built in has this name"));
        }
        let (slope, inverse) = (functions.least_slope, functions.inverse.is_some());
        if inverse && !(slope > 0.0 && slope.is_finite()) {
            return Err(error("the least slope of an activation with an inverse is finite and above 0"));
        }
        let mut own = Package::default();
        own.add(HOME, name, wgsl)?;
        let twins = [true, true, functions.second_derivative.is_some(), inverse];
        for ((function, parameter), twin) in FUNCTIONS.iter().zip(twins) {
            let declared = own.declares(&format!("{HOME}/{name}"), function);
            if declared != twin {
                let signature = format!("fn {function}({parameter}: f32) -> f32");
                return Err(error(&match twin {
                    true => format!("expected {signature}, got a text without it"),
                    false => format!("expected the twin of {signature}, got functions without it"),
                }));
            }
        }
        #[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
        validation::check(name, wgsl)?;
        Ok(Self::Custom(CustomActivation::interned(name, wgsl, functions)))
    }
}

/// The modules of kernels with the activation of a key.
pub(super) fn package_with(key: &'static str) -> &'static Package {
    static PACKAGES: Mutex<Option<HashMap<&'static str, &'static Package>>> = Mutex::new(None);
    let mut packages = PACKAGES.lock().unwrap_or_else(PoisonError::into_inner);
    packages.get_or_insert_default().entry(key).or_insert_with(|| {
        let mut all = package().clone();
        if let Some(custom) = CustomActivation::of_key(key)
            && let Err(error) = all.add(HOME, key, custom.wgsl())
        {
            unreachable!("what was read once: {error}")
        }
        Box::leak(Box::new(all))
    })
}

/// The path of the module of a key.
pub(super) fn module_of(key: &str) -> String {
    format!("{HOME}/{key}")
}

/// What naga says. Not in a browser, which has none: there it is said when a kernel is compiled.
#[cfg(all(feature = "wgpu", not(target_family = "wasm")))]
mod validation {
    use wgpu::naga::front::wgsl;
    use wgpu::naga::valid::{Capabilities, ValidationFlags, Validator};
    use wgpu::naga::{FunctionArgument, FunctionResult, Handle, Module, Scalar, Span, Type, TypeInner};

    use super::FUNCTIONS;
    use crate::base::error::{Error, Result};

    pub fn check(name: &str, text: &str) -> Result<()> {
        let error = |line: Option<u32>, what: String| Error::Shader {
            module: name.to_owned(),
            line: line.unwrap_or(1) as usize,
            what,
        };
        let module = wgsl::parse_str(text).map_err(|parse| {
            let line = parse.location(text).map(|location| location.line_number);
            error(line, format!("no WGSL\n{}", parse.emit_to_string_with_path(text, name)))
        })?;
        let mut validator = Validator::new(ValidationFlags::all(), Capabilities::empty());
        if let Err(invalid) = validator.validate(&module) {
            // Functions are among the places, too.
            let length = |span: &Span| span.to_range().map_or(usize::MAX, |range| range.len());
            let narrowest = invalid.spans().map(|(span, _)| *span).min_by_key(length);
            let line = narrowest.map(|span| span.location(text).line_number);
            return Err(error(
                line,
                format!("no valid WGSL\n{}", invalid.emit_to_string_with_path(text, name)),
            ));
        }
        if !module.entry_points.is_empty()
            || !module.overrides.is_empty()
            || !module.global_variables.is_empty()
        {
            let what = "expected functions, constants and structs alone, got a variable, a pipeline constant or an entry point";
            return Err(error(None, what.to_owned()));
        }
        for (function, parameter) in FUNCTIONS {
            let found = module.functions.iter().find(|(_, one)| one.name.as_deref() == Some(function));
            let Some((handle, found)) = found else { continue };
            let typed = match (&found.arguments[..], &found.result) {
                ([FunctionArgument { ty, .. }], Some(FunctionResult { ty: result, .. })) => {
                    is_f32(&module, *ty) && is_f32(&module, *result)
                }
                _ => false,
            };
            if !typed {
                let line = module.functions.get_span(handle).location(text).line_number;
                let what = format!("expected fn {function}({parameter}: f32) -> f32, got another type");
                return Err(error(Some(line), what));
            }
        }
        Ok(())
    }

    fn is_f32(module: &Module, ty: Handle<Type>) -> bool {
        module.types[ty].inner == TypeInner::Scalar(Scalar::F32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::shader::{ActivationKind, Kernel, Pointwise, StatisticsFrom, Variant, example};

    const SQUARE: &str =
        "fn activate(z: f32) -> f32 { return z * z; }\nfn derivative(z: f32) -> f32 { return 2.0 * z; }";

    fn square() -> ActivationFunctions {
        ActivationFunctions::new(|z| z * z, |z| 2.0 * z)
    }

    #[test]
    fn the_same_is_the_same_and_another_text_is_another() {
        let functions = square();
        let made = |wgsl| Activation::custom("square", wgsl, functions).unwrap();
        let (one, again) = (made(SQUARE), made(SQUARE));
        assert_eq!((one, ActivationKind::of(one)), (again, ActivationKind::of(again)));
        assert_eq!((one.name(), one.word(), Activation::named("square")), ("square", "square", Some(one)));
        let other = made(&SQUARE.replace("z * z", "z * z * 1.0"));
        assert_ne!((one, ActivationKind::of(one)), (other, ActivationKind::of(other)));
        // The name is that of the last; the other has a word of its own.
        assert_eq!(Activation::named("square"), Some(other));
        assert!(one.word().starts_with("square_") && Activation::named(one.word()) == Some(one));
    }

    #[test]
    fn errors_show_the_line() {
        let made = |name: &str, wgsl: &str, functions| Activation::custom(name, wgsl, functions);
        let error = |wgsl: &str| made("wrong", wgsl, square()).unwrap_err().to_string();
        let unknown = error(&SQUARE.replace("2.0 * z", "2.0 * w"));
        assert!(unknown.starts_with("wrong, line 2: no WGSL\n"), "{unknown}");
        assert!(unknown.contains("2 │ fn derivative(z: f32) -> f32 { return 2.0 * w; }"), "{unknown}");
        let invalid = error(&SQUARE.replace("return z * z;", "return sqrt(z);\nlet b = 1u + z;"));
        assert!(invalid.contains("line 2: ") && invalid.contains("let b = 1u + z;"), "{invalid}");
        assert!(error("fn activate(").starts_with("wrong, line 1: "));
        let missing = error("fn activate(z: f32) -> f32 { return z; }");
        assert_eq!(missing, "wrong, line 1: expected fn derivative(z: f32) -> f32, got a text without it");
        let typed = error(&SQUARE.replace(
            "fn derivative(z: f32) -> f32 { return 2.0 * z; }",
            "fn derivative(z: vec2f) -> f32 { return z.x; }",
        ));
        assert_eq!(typed, "wrong, line 2: expected fn derivative(z: f32) -> f32, got another type");
        for more in [
            "@group(0) @binding(0) var<storage> v: array<f32>;",
            "var<private> v: f32;",
            "override v: f32 = 1.0;",
            "@compute @workgroup_size(1) fn v() {}",
        ] {
            let got = error(&format!("{SQUARE}\n{more}"));
            assert!(got.contains("expected functions, constants and structs alone"), "{more}: {got}");
        }
        let twin = made("wrong", SQUARE, square().second_derivative(|_| 2.0)).unwrap_err().to_string();
        assert!(twin.contains("expected fn second_derivative(z: f32) -> f32, got a text"), "{twin}");
        let text = format!("{SQUARE}\nfn inverse(y: f32) -> f32 {{ return sqrt(y); }}");
        assert!(error(&text).contains("expected the twin of fn inverse(y: f32) -> f32"));
        for slope in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(made("wrong", &text, square().inverse(f64::sqrt, slope)).is_err());
        }
        for name in ["", "1a", "a b", "relu", "none", "a=b"] {
            assert!(made(name, SQUARE, square()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_of_a_text_are_in_nobodys_way() {
        // Those of the crate's own modules, as functions, constants and locals.
        let wgsl = "
            const STRIP = 2.0;
            fn gradient(z: f32) -> f32 { let params = z; return params * STRIP; }
            fn activate(z: f32) -> f32 { return gradient(z) * z; }
            fn derivative(z: f32) -> f32 { return gradient(z); }
        ";
        let activation = Activation::custom("in_the_way", wgsl, square()).unwrap();
        let kernel = Kernel::MapBackward { statistics: StatisticsFrom::Saved, dx: true };
        for kernel in [Kernel::MapForward(StatisticsFrom::Batch), kernel] {
            let pointwise = Pointwise { activation: ActivationKind::of(activation), ..Pointwise::default() };
            let text = Variant { pointwise, ..example(kernel) }.link().text;
            assert!(text.contains("let params = z; return params * custom_activation_STRIP;"));
            naga::front::wgsl::parse_str(&text).unwrap_or_else(|e| panic!("{}", e.emit_to_string(&text)));
        }
    }
}
