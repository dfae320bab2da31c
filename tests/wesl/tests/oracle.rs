//! Our shader modules are WESL: the crate of WESL reads those of every kernel of the quick table, and links them to what our linker links them to.

use std::collections::BTreeMap;

use naga::{Module, ShaderStage};
use wesl::{Feature, ManglerKind, ModulePath, VirtualResolver, Wesl};
use wgnorm::eval::{self, Kernel};
use wgnorm::{Context, Spec, spec::Statistics};

/// The text with decimal numbers for hexadecimal ones that have a suffix, which its lexer takes for another token.
fn with_decimals(text: &str) -> String {
    let (mut done, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("0x") {
        let is_part = |c: char| c.is_ascii_hexdigit() || ".xp+-".contains(c);
        let end = rest[at..].find(|c| !is_part(c)).map_or(rest.len(), |len| at + len);
        let number = &rest[at..end];
        done.push_str(&rest[..at]);
        match number.strip_suffix('f').and_then(value_of) {
            Some(value) => done.push_str(&format!("{value:e}f")),
            None => done.push_str(number),
        }
        rest = &rest[end..];
    }
    done + rest
}

/// A hexadecimal float: 0x1.8p-3.
fn value_of(number: &str) -> Option<f32> {
    let (mantissa, exponent) = number.strip_prefix("0x")?.split_once('p')?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = u64::from_str_radix(&format!("{whole}{part}"), 16).ok()?;
    let exponent: i32 = exponent.parse().ok()?;
    Some((digits as f64 * 2.0_f64.powi(exponent - 4 * part.len() as i32)) as f32)
}

/// What the crate of WESL makes of a kernel.
fn linked(kernel: &Kernel) -> String {
    let path = |path: &str| -> ModulePath { format!("package::{}", path.replace('/', "::")).parse().unwrap() };
    let mut resolver = VirtualResolver::new();
    for (name, text) in &kernel.modules {
        resolver.add_module(path(name), with_decimals(text).into());
    }
    let mut wesl = Wesl::new("nowhere").set_custom_resolver(resolver);
    wesl.set_mangler(ManglerKind::Escape);
    wesl.set_features(kernel.features.iter().map(|name| (name, true)));
    wesl.set_missing_feature_behavior(Feature::Disable);
    let compiled = wesl.compile(&path(&kernel.entry));
    compiled.unwrap_or_else(|error| panic!("{}: {error}", kernel.key)).to_string()
}

fn parsed(what: &str, wgsl: &str) -> Module {
    naga::front::wgsl::parse_str(wgsl).unwrap_or_else(|error| panic!("{what}: {}", error.emit_to_string(wgsl)))
}

/// What a module declares, as far as it does not depend on how names are made unique: of functions and types their names without what tells modules
/// apart, of bindings their numbers and access.
fn declared(module: &Module) -> BTreeMap<String, usize> {
    let mut declared = BTreeMap::new();
    let mut note = |what: String| *declared.entry(what).or_insert(0) += 1;
    for entry in &module.entry_points {
        assert_eq!(entry.stage, ShaderStage::Compute);
        note(format!("entry point {}, {} bytes of body", entry.name, entry.function.expressions.len()));
    }
    for (_, function) in module.functions.iter() {
        let (arguments, body) = (function.arguments.len(), function.expressions.len());
        note(format!("function of {arguments} with {body} expressions, {} variables", function.local_variables.len()));
    }
    for (_, variable) in module.global_variables.iter() {
        let binding = variable.binding.map(|binding| (binding.group, binding.binding));
        note(format!("variable in {:?} at {binding:?}", variable.space));
    }
    note(format!("{} overrides", module.overrides.len()));
    for (_, ty) in module.types.iter() {
        if let naga::TypeInner::Struct { members, span } = &ty.inner {
            let names: Vec<_> = members.iter().filter_map(|member| member.name.clone()).collect();
            note(format!("struct {names:?} of {span} bytes"));
        }
    }
    declared
}

#[test]
fn every_kernel_of_the_quick_table_is_wesl() {
    let context = Context::headless_blocking().unwrap();
    let simple = |spec: &Spec| matches!(spec.statistics, Statistics::Own | Statistics::Given | Statistics::Renorm(..));
    let specs: Vec<Spec> = eval::table::quick().into_iter().map(|case| case.spec).filter(simple).collect();
    let kernels = context.block_on(eval::kernels(&context, &specs)).unwrap();
    assert!(kernels.len() > 500, "{} kernels of {} problems", kernels.len(), specs.len());
    for kernel in &kernels {
        let ours = declared(&parsed(&kernel.key, &kernel.wgsl));
        let theirs = declared(&parsed(&format!("{} by wesl", kernel.key), &linked(kernel)));
        assert_eq!(ours, theirs, "{}", kernel.key);
    }
    println!("{} kernels", kernels.len());
}

#[test]
fn hexadecimal_floats_with_a_suffix_are_decimal() {
    assert_eq!(with_decimals("a = 0x1p-3f; b = 0x1.8p+1f, 0x1p-24; 0x7fffu"), "a = 1.25e-1f; b = 3e0f, 0x1p-24; 0x7fffu");
    assert_eq!(value_of("0x1.fffffep+127"), Some(f32::MAX));
}

#[test]
fn a_module_that_is_not_there_is_found_missing() {
    let kernel = Kernel {
        key: "a kernel".to_owned(),
        entry: "entry".to_owned(),
        features: vec![],
        modules: vec![(
            "entry".to_owned(),
            "import package::gone::f; @compute @workgroup_size(1) fn main() { f(); }".to_owned(),
        )],
        wgsl: String::new(),
    };
    assert!(std::panic::catch_unwind(|| linked(&kernel)).is_err());
}
