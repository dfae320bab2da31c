//! Programs of one's own: softmax and its gradient over every way in which slices lie in memory, in all element types, on forced plans, against f64;
//! what is wrong with a program or its bindings is said.

use wgnorm::wgsl::Program;
use wgnorm::{Context, DType, Error, Tensor};

use crate::support::{column_contexts, context, contexts};

const SOFTMAX: &str = include_str!("../../examples/softmax.wesl");

/// dx of softmax: y·(dy − Σ dy·y), where x is what softmax gave.
const GRADIENT: &str = "
import package::halves::half_of;
import wgnorm::lib::stat::{Stat, component, with_component};
import wgnorm::per::{gathered, spread};
import wgnorm::tensors;
import wgnorm::walk::Cursor;
import wgnorm::walk::edges::within;
import wgnorm::word::Word;
override FACTOR: f32 = 1.0;
struct Partial { sum: Stat }
alias Record = f32;
const RECORD_BYTES: u32 = 4u;
fn identity() -> Partial { return Partial(Stat(0.0)); }
fn merge(a: Partial, b: Partial) -> Partial { return Partial(a.sum + b.sum); }
fn taken(at: Cursor, mine: Partial) -> Partial {
    return Partial(mine.sum + gathered(within(at, tensors::x::at(at) * tensors::dy::at(at))));
}
fn record_of_component(p: Partial, k: u32) -> Record { return component(p.sum, k); }
fn with_record(p: Partial, k: u32, record: Record) -> Partial { return Partial(with_component(p.sum, k, record)); }
fn finished(total: Partial) -> Partial { return total; }
fn mapped(at: Cursor, total: Partial) -> Word {
    return half_of(2.0 * FACTOR * tensors::x::at(at) * (tensors::dy::at(at) - spread(at, total.sum)));
}
";
const HALVES: &str = "import wgnorm::word::Word; fn half_of(v: Word) -> Word { return 0.5 * v; }";

fn gradient() -> Program {
    Program::with_modules("gradient", &[("halves", HALVES), ("gradient", GRADIENT)]).unwrap()
}

/// Shapes and axes: one run, runs, columns, several runs of a channel, columns of matrices, at and off the edges of words.
const CUTS: [(&[usize], &[usize]); 12] = [
    (&[1000], &[0]),
    (&[7, 33], &[1]),
    (&[5, 64], &[1]),
    (&[3, 5, 7], &[1, 2]),
    (&[33, 7], &[0]),
    (&[40, 12], &[0]),
    (&[3, 5, 7], &[0, 2]),
    (&[4, 3, 16], &[0, 2]),
    (&[3, 9, 5], &[1]),
    (&[2, 64, 12], &[1]),
    (&[1, 4099], &[1]),
    (&[6, 1], &[1]),
];

/// Which slice each element is of.
fn slices(dims: &[usize], axes: &[usize]) -> Vec<usize> {
    (0..dims.iter().product())
        .map(|i: usize| {
            let mut rest = i;
            let mut at = vec![0; dims.len()];
            for axis in (0..dims.len()).rev() {
                at[axis] = rest % dims[axis];
                rest /= dims[axis];
            }
            (0..dims.len())
                .filter(|axis| !axes.contains(axis))
                .fold(0, |slice, axis| slice * dims[axis] + at[axis])
        })
        .collect()
}

/// Sums over slices, for each element that of its own.
fn sums(values: &[f64], slices: &[usize]) -> Vec<f64> {
    let mut sums = vec![0.0; slices.iter().max().map_or(0, |most| most + 1)];
    values.iter().zip(slices).for_each(|(value, slice)| sums[*slice] += value);
    slices.iter().map(|slice| sums[*slice]).collect()
}

fn softmax_of(x: &[f32], slices: &[usize]) -> Vec<f64> {
    let mut most = vec![f64::MIN; slices.iter().max().map_or(0, |most| most + 1)];
    x.iter().zip(slices).for_each(|(x, slice)| most[*slice] = f64::max(most[*slice], f64::from(*x)));
    let exp: Vec<_> = x.iter().zip(slices).map(|(x, slice)| (f64::from(*x) - most[*slice]).exp()).collect();
    let sums = sums(&exp, slices);
    exp.iter().zip(sums).map(|(exp, sum)| exp / sum).collect()
}

fn numbers(len: usize, scale: f32) -> Vec<f32> {
    // Eighths, which all element types have.
    (0..len).map(|i| ((i * 37 + i / 5 * 11) % 53) as f32 / 8.0 * scale - 3.0 * scale).collect()
}

#[track_caller]
fn assert_near(what: &str, got: &[f32], expected: &[f64], (relative, absolute): (f64, f64)) {
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let off = (f64::from(*got) - expected).abs();
        assert!(off <= expected.abs() * relative + absolute, "{what}: {i} is {got}, expected {expected}");
    }
}

/// Relative rounding of an element type.
fn unit(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => 2f64.powi(-11),
        DType::Bf16 => 2f64.powi(-8),
        _ => 0.0,
    }
}

async fn run(context: &Context, program: &Program, axes: &[usize], tensors: &[(&str, &Tensor)]) -> Vec<f32> {
    let pass = tensors.iter().fold(program.over(axes), |pass, (name, tensor)| pass.bind(name, tensor));
    let prepared = pass.prepare(context).await.unwrap();
    context.submit(&[&prepared]).await.unwrap();
    context.download(tensors.last().unwrap().1).await.unwrap()
}

fn check(
    context: &Context,
    name: &str,
    programs: [&Program; 2],
    dtype: DType,
    cuts: &[(&[usize], &[usize])],
) {
    context.block_on(async {
        for (dims, axes) in cuts {
            let what = format!("{name} {dims:?} over {axes:?} {dtype:?}");
            let of = slices(dims, axes);
            let (x, dy) = (numbers(of.len(), 1.0), numbers(of.len(), -0.5));
            let expected = softmax_of(&x, &of);
            let x = context.upload_as(dims, &x, dtype).await.unwrap();
            let y = context.upload_as(dims, &vec![f32::NAN; of.len()], dtype).await.unwrap();
            let got = run(context, programs[0], axes, &[("x", &x), ("y", &y)]).await;
            assert_near(&what, &got, &expected, (1e-5 + unit(dtype), 1e-7));
            // The same in place, to the bit.
            let in_place = run(context, programs[0], axes, &[("x", &x), ("y", &x)]).await;
            assert_eq!(got, in_place, "{what} in place");

            let product: Vec<_> = got.iter().zip(&dy).map(|(y, dy)| f64::from(*y) * f64::from(*dy)).collect();
            let sums = sums(&product, &of);
            let dx =
                (0..of.len()).map(|i| f64::from(got[i]) * (f64::from(dy[i]) - sums[i])).collect::<Vec<_>>();
            let dy = context.upload_as(dims, &dy, dtype).await.unwrap();
            let out = context.upload_as(dims, &vec![f32::NAN; of.len()], dtype).await.unwrap();
            let got = run(context, programs[1], axes, &[("x", &y), ("dy", &dy), ("y", &out)]).await;
            assert_near(&format!("gradient, {what}"), &got, &dx, (1e-5 + unit(dtype), 4e-6));
        }
    });
}

#[test]
fn softmax_and_its_gradient_hold_in_all_types_and_layouts() {
    let programs = [&Program::new("softmax", SOFTMAX).unwrap(), &gradient()];
    for dtype in [DType::F32, DType::F16, DType::Bf16] {
        check(&context(), "policy", programs, dtype, &CUTS);
    }
}

#[test]
fn softmax_holds_on_forced_plans() {
    let programs = [&Program::new("softmax", SOFTMAX).unwrap(), &gradient()];
    for (name, context) in contexts() {
        check(&context, name, programs, DType::F32, &[CUTS[1], CUTS[3], CUTS[6]]);
    }
    for (name, context) in column_contexts() {
        check(&context, name, programs, DType::F16, &[CUTS[4], CUTS[8]]);
    }
}

#[test]
fn large_and_infinite_values_do_not_overflow() {
    let softmax = Program::new("softmax", SOFTMAX).unwrap();
    let context = context();
    context.block_on(async {
        let x = [3e38, 3e38, -3e38, f32::NEG_INFINITY, 1.0, 2.0, 1.0, 2.0, f32::NAN, 0.0, 0.0, 0.0];
        let x = context.upload(&[3, 4], &x).await.unwrap();
        let y = context.zeros_like(&x).await.unwrap();
        let got = run(&context, &softmax, &[1], &[("x", &x), ("y", &y)]).await;
        assert_eq!(got[..4], [0.5, 0.5, 0.0, 0.0]);
        assert!(got[4..8].iter().all(|value| value.is_finite()) && got[8].is_nan(), "{got:?}");
    });
}

#[test]
fn a_constant_is_what_it_is_given() {
    let context = context();
    context.block_on(async {
        let x = context.upload(&[2, 2], &[0.25, 0.75, 0.5, 0.5]).await.unwrap();
        let dy = context.upload(&[2, 2], &[1.0, 0.0, 0.0, 1.0]).await.unwrap();
        let y = context.zeros_like(&x).await.unwrap();
        let four_times = gradient().constant("FACTOR", 4.0).unwrap();
        let got = run(&context, &four_times, &[1], &[("x", &x), ("dy", &dy), ("y", &y)]).await;
        assert_eq!(got, [0.75, -0.75, -1.0, 1.0]);
    });
    assert!(matches!(gradient().constant("FACTORS", 4.0), Err(Error::Shader { .. })));
}

#[test]
fn what_is_wrong_with_a_program_is_said_with_its_line() {
    for (from, to, line, says) in [
        ("fn finished", "fn finish", 1, "no finished"),
        ("tensors::x::at as", "tensors::x::get as", 1, "no get"),
        ("8u;", "7u;", 1, "RECORD_BYTES"),
        ("8u;", "64u;", 1, "RECORD_BYTES"),
        ("return Partial(Stat(LOWEST), Stat(0.0));", "return Partial(Stat(LOWEST), Stat(0.0);", 20, "closed"),
        ("import wgnorm::walk::Cursor", "import elsewhere::Cursor", 6, "wgnorm"),
    ] {
        let wesl = SOFTMAX.replace(from, to);
        assert_ne!(wesl, SOFTMAX);
        let error = Program::new("softmax", &wesl).expect_err(from);
        let Error::Shader { line: at, what, .. } = &error else { panic!("{error}") };
        assert!(what.contains(says), "{from}: {error}");
        assert!(line == 1 || *at == line, "{from}: {error}");
    }
    // What the linker does not see the compiler does.
    let program = Program::new("softmax", &SOFTMAX.replace("1.0 / total.sum", "total.sums")).unwrap();
    let context = context();
    context.block_on(async {
        let x = context.zeros(&[2, 3]).await.unwrap();
        let error = program.over(&[1]).bind("x", &x).bind("y", &x).prepare(&context).await.unwrap_err();
        assert!(matches!(&error, Error::Validation { message, .. } if message.contains("sums")), "{error}");
    });
}

#[test]
fn what_is_wrong_with_bindings_is_said() {
    let softmax = Program::new("softmax", SOFTMAX).unwrap();
    let context = context();
    context.block_on(async {
        let (x, y) = (context.zeros(&[2, 3]).await.unwrap(), context.zeros(&[2, 3]).await.unwrap());
        let other = context.zeros(&[3, 2]).await.unwrap();
        let half = context.zeros_as(&[2, 3], DType::F16).await.unwrap();
        let pass = || softmax.over(&[1]);
        for wrong in [
            pass().bind("x", &x),
            pass().bind("y", &y),
            pass().bind("x", &x).bind("y", &y).bind("dy", &x),
            pass().bind("x", &x).bind("y", &y).bind("y", &y),
        ] {
            let error = wrong.prepare(&context).await.unwrap_err();
            assert!(matches!(error, Error::Binding { .. }), "{error}");
        }
        let error = pass().bind("x", &x).bind("y", &other).prepare(&context).await.unwrap_err();
        assert!(matches!(error, Error::Shape { .. }), "{error}");
        let error = pass().bind("x", &x).bind("y", &half).prepare(&context).await.unwrap_err();
        assert!(matches!(error, Error::DType { .. }), "{error}");
        let error = softmax.over(&[2]).bind("x", &x).bind("y", &y).prepare(&context).await.unwrap_err();
        assert!(matches!(error, Error::Axes { .. }), "{error}");

        // Nothing to do, and slices of nothing.
        let empty = context.zeros(&[0, 3]).await.unwrap();
        let nothing = pass().bind("x", &empty).bind("y", &empty).prepare(&context).await.unwrap();
        assert!(nothing.plan().is_none());
        let error =
            softmax.over(&[0]).bind("x", &empty).bind("y", &empty).prepare(&context).await.unwrap_err();
        assert!(matches!(error, Error::EmptyBatch { .. }), "{error}");
    });
}
