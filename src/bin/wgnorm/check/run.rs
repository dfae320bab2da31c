//! Running a problem on the GPU in every variant, and holding the results against what is expected.

use wgnorm::reference::{Worst, compare_as};
use wgnorm::{
    Accumulation, Activation, Context, GradientTargets, Layout, Prepared, Result, RunningValues, Tensor,
};

use super::arena::{Arena, Role};
use super::case::{Expected, Problem, Work};
use super::fingerprint::{self, Fingerprint};
use super::variant::{self, Placement};
use super::{OutputReport, RunReport, batch, curve, family};
use crate::layout;

/// Outputs by name.
pub type Outputs = Vec<(String, Vec<f32>)>;

/// What came of all variants of a problem.
#[derive(Default)]
pub struct Ran {
    pub reports: Vec<RunReport>,
    /// A line for each output that fails.
    pub failures: Vec<String>,
    pub fingerprints: Vec<Fingerprint>,
}

/// Runs every variant that applies.
pub fn all_variants(context: &Context, problem: &Problem) -> Ran {
    let Ran { reports: mut runs, mut failures, mut fingerprints } = Ran::default();
    for &layout in &problem.layouts {
        let mut first: Option<Outputs> = None;
        for variant in variant::all().iter().filter(|variant| variant.applies(problem)) {
            let name = variant.name;
            let context = context.with_tuning(variant.tuning);
            let (outputs, kernels) = context.block_on(once(&context, problem, layout, variant.placement));
            let outputs = match outputs {
                Ok(outputs) => outputs,
                Err(why) => {
                    failures.push(format!("{layout} {name}: {why}; kernels: {kernels}"));
                    continue;
                }
            };
            fingerprints.extend(outputs.iter().map(|(output, values)| Fingerprint {
                place: format!("{layout}\t{name}\t{output}"),
                hash: fingerprint::hash(values),
            }));
            for expected in &problem.expected {
                let what = &expected.name;
                let Some((_, got)) = outputs.iter().find(|(name, _)| name == what) else {
                    failures.push(format!("{name} {what}: the program does not compute it"));
                    continue;
                };
                let (report, failure) = judge(expected, got);
                if let Some(failure) = failure {
                    failures.push(format!("{layout} {name} {what}: {failure}; kernels: {kernels}"));
                }
                let (pass, layout) = (expected.pass(), layout.name());
                let same =
                    |run: &&mut RunReport| run.pass == pass && run.variant == name && run.layout == layout;
                match runs.iter_mut().find(same) {
                    Some(run) => run.outputs.push(report),
                    None => runs.push(RunReport { pass, layout, variant: name, outputs: vec![report] }),
                }
            }
            match &first {
                None => first = Some(outputs),
                Some(first) if name == "repeat" => {
                    for ((what, before), (_, now)) in first.iter().zip(&outputs) {
                        if before.iter().zip(now).any(|(a, b)| a.to_bits() != b.to_bits()) {
                            failures.push(format!("{layout} {what}: other bits in a second run"));
                        }
                    }
                }
                Some(_) => {}
            }
        }
    }
    Ran { reports: runs, failures, fingerprints }
}

/// One run: its outputs or what is wrong with it, and the kernels that it took.
async fn once(
    context: &Context,
    problem: &Problem,
    layout: Layout,
    placement: Placement,
) -> (std::result::Result<Outputs, String>, String) {
    let mut run = match Run::new(context, problem, layout, placement).await {
        Ok(run) => run,
        Err(error) => return (Err(error.to_string()), String::new()),
    };
    let ran = match &problem.work {
        Work::Batch(work) => batch::run(&mut run, work).await,
        Work::Family(work) => family::run(&mut run, work).await,
        Work::Curve(work) => curve::run(&mut run, work).await,
    };
    let disturbed = match ran {
        Ok(()) => run.arena.disturbed().await,
        Err(error) => Err(error),
    };
    let outputs = match disturbed {
        Ok(None) => Ok(run.outputs),
        Ok(Some(byte)) => Err(format!("byte {byte} of a buffer was written, which belongs to no output")),
        Err(error) => Err(error.to_string()),
    };
    (outputs, run.kernels.join(", "))
}

/// Compares one output. The failure names index, values, error and bound.
pub fn judge(expected: &Expected, got: &[f32]) -> (OutputReport, Option<String>) {
    let sampled: Vec<f32>;
    let got = match &expected.sample {
        None => got,
        Some(sample) => {
            sampled = sample.iter().map(|&i| got.get(i).copied().unwrap_or(f32::NAN)).collect();
            &sampled
        }
    };
    let finite = |ratio: f64| ratio.is_finite().then_some(ratio);
    let compared =
        |bound: &[f64]| compare_as(expected.dtype, got, &expected.values, expected.where_nan(), |i| bound[i]);
    match (compared(&expected.gate), compared(&expected.strict)) {
        (Ok(gate), Ok(strict)) => (
            OutputReport {
                name: expected.name.clone(),
                max_abs_err: finite(gate.max_abs_err),
                gate_ratio: finite(gate.ratio),
                strict_ratio: finite(strict.ratio),
                peer_err: expected.peer_err,
            },
            (!gate.passes()).then(|| {
                let index = expected.sample.as_ref().map_or(gate.index, |sample| sample[gate.index]);
                Worst { index, ..gate }.to_string()
            }),
        ),
        (Err(error), _) | (_, Err(error)) => (
            OutputReport {
                name: expected.name.clone(),
                max_abs_err: None,
                gate_ratio: None,
                strict_ratio: None,
                peer_err: expected.peer_err,
            },
            Some(error.to_string()),
        ),
    }
}

/// One run of a problem, on outputs filled with NaN.
pub struct Run<'a> {
    pub context: &'a Context,
    pub problem: &'a Problem,
    pub layout: Layout,
    pub arena: Arena<'a>,
    pub outputs: Outputs,
    kernels: Vec<String>,
}

/// The gradients that a backward pass is given.
#[derive(Clone, Copy)]
pub struct Upstream<'a> {
    pub dy: &'a [f32],
    /// That of what was normalized, from elsewhere.
    pub d_sum: Option<&'a [f32]>,
}

impl<'a> Run<'a> {
    async fn new(
        context: &'a Context,
        problem: &'a Problem,
        layout: Layout,
        placement: Placement,
    ) -> Result<Self> {
        let tensors = match &problem.work {
            Work::Batch(work) => work.tensors(problem),
            Work::Family(work) => work.tensors(problem),
            Work::Curve(work) => work.tensors(problem),
        };
        let arena = Arena::new(context, placement, 4 * tensors.iter().sum::<usize>(), tensors.len()).await?;
        Ok(Self { context, problem, layout, arena, outputs: Outputs::new(), kernels: Vec::new() })
    }

    /// Remembers the kernels of an operation.
    pub fn took<'k>(&mut self, kernels: impl Iterator<Item = &'k str>) {
        self.kernels.extend(kernels.map(str::to_owned));
        self.kernels.dedup();
    }

    /// Runs an operation.
    pub async fn submit(&mut self, prepared: &Prepared) -> Result<()> {
        self.took(prepared.kernels());
        self.context.submit(&[prepared]).await
    }

    /// Values in stored order, in that of the layout of this run.
    pub fn rearranged(&self, dims: &[usize], values: &[f32]) -> Vec<f32> {
        layout::rearranged(values, dims, self.problem.stored, self.layout)
    }

    /// A batch with values in stored order.
    pub async fn put(&self, values: &[f32], role: Role) -> Result<Tensor> {
        let dims = &self.problem.dims;
        self.arena.batch(dims, self.layout, &self.rearranged(dims, values), self.problem.dtype, role).await
    }

    /// A batch of NaN.
    pub async fn output(&self) -> Result<Tensor> {
        self.put(&vec![f32::NAN; self.problem.elements()], Role::Written).await
    }

    /// x, the residual and y, which may be x.
    pub async fn put_forward(&self, x: &[f32], over_x: bool) -> Result<(Tensor, Option<Tensor>, Tensor)> {
        let x = self.put(x, if over_x { Role::Written } else { Role::Read }).await?;
        let residual = self.put_residual().await?;
        let y = if over_x { x.clone() } else { self.output().await? };
        Ok((x, residual, y))
    }

    pub async fn put_residual(&self) -> Result<Option<Tensor>> {
        match &self.problem.residual {
            Some(residual) => Ok(Some(self.put(residual, Role::Read).await?)),
            None => Ok(None),
        }
    }

    /// gamma and beta, of these lengths of axes.
    pub async fn put_parameters(&self, dims: &[usize]) -> Result<[Option<Tensor>; 2]> {
        let put = async |values: &Option<Vec<f32>>| match values {
            Some(values) => self.parameter(dims, values, Role::Read).await.map(Some),
            None => Ok(None),
        };
        Ok([put(&self.problem.gamma).await?, put(&self.problem.beta).await?])
    }

    async fn parameter(&self, dims: &[usize], values: &[f32], role: Role) -> Result<Tensor> {
        self.arena.parameter(dims, values, self.problem.parameters, role).await
    }

    /// Runs a backward pass, with all gradients that there are, and as often as outputs are expected of it. Parameters have axes of these lengths;
    /// `prepare` takes dy, what else dx consists of, and what to compute.
    pub async fn backward(
        &mut self,
        upstream: Upstream<'_>,
        parameters: &[usize],
        prepare: impl AsyncFn(&Tensor, Option<&Tensor>, &GradientTargets<'_>) -> Result<Prepared>,
    ) -> Result<()> {
        let problem = self.problem;
        let with_residual = problem.residual.is_some();
        // Where an activation needs the residual, d_sum is read after dx has been written.
        let activated = with_residual && problem.work.activation() != Activation::None;
        let over_d_sum = problem.in_place && upstream.d_sum.is_some() && !activated;
        let over_dy = problem.in_place && !over_d_sum;
        let role = |written: bool| if written { Role::Written } else { Role::Read };
        let dy = self.put(upstream.dy, role(over_dy)).await?;
        let put_d_sum = async |run: &Self, written: bool| match upstream.d_sum {
            Some(d_sum) => run.put(d_sum, role(written)).await.map(Some),
            None => Ok(None),
        };
        let d_sum = put_d_sum(self, over_d_sum).await?;
        let dx = match &d_sum {
            Some(d_sum) if over_d_sum => d_sum.clone(),
            _ if over_dy => dy.clone(),
            _ => self.output().await?,
        };
        let d_residual = if with_residual { Some(self.output().await?) } else { None };
        let nothing = vec![f32::NAN; parameters.iter().product()];
        let dgamma = self.parameter(parameters, &nothing, Role::Written).await?;
        let dbeta = self.parameter(parameters, &nothing, Role::Written).await?;
        let targets = GradientTargets {
            dx: Some(&dx),
            d_residual: d_residual.as_ref(),
            dgamma: problem.gamma.as_ref().map(|_| &dgamma),
            dbeta: problem.beta.as_ref().map(|_| &dbeta),
            ..Default::default()
        };
        let backward = prepare(&dy, d_sum.as_ref(), &targets).await?;
        self.submit(&backward).await?;
        self.push_gradients("", &targets).await?;

        let twice = problem.expects("dweight_twice") || problem.expects("dbias_twice");
        let alone = problem.expects("dx_alone");
        if !twice && !alone {
            return Ok(());
        }
        let dy = if over_dy { self.put(upstream.dy, Role::Read).await? } else { dy };
        let d_sum = if over_d_sum { put_d_sum(self, false).await? } else { d_sum };
        if twice {
            // Added to what is there now; with and without the other gradients, which may be other kernels.
            let dx = if with_residual { Some(self.output().await?) } else { None };
            let targets = GradientTargets { accumulation: Accumulation::Add, dx: dx.as_ref(), ..targets };
            let again = prepare(&dy, d_sum.as_ref(), &targets).await?;
            self.submit(&again).await?;
            self.push_gradients("_twice", &targets).await?;
        }
        if alone {
            let dx = self.output().await?;
            let targets = GradientTargets { dx: Some(&dx), ..Default::default() };
            let alone = prepare(&dy, d_sum.as_ref(), &targets).await?;
            self.submit(&alone).await?;
            self.push_gradients("_alone", &targets).await?;
        }
        Ok(())
    }

    pub fn push(&mut self, name: &str, values: Vec<f32>) {
        self.outputs.push((name.to_owned(), values));
    }

    pub async fn push_batch(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let values = self.context.download(tensor).await?;
        let problem = self.problem;
        self.push(name, layout::rearranged(&values, &problem.dims, self.layout, problem.stored));
        Ok(())
    }

    async fn push_gradients(&mut self, suffix: &str, targets: &GradientTargets<'_>) -> Result<()> {
        for (name, tensor) in [("dx", targets.dx), ("dresidual", targets.d_residual)] {
            if let Some(tensor) = tensor {
                self.push_batch(&format!("{name}{suffix}"), tensor).await?;
            }
        }
        for (name, tensor) in [("dweight", targets.dgamma), ("dbias", targets.dbeta)] {
            if let Some(tensor) = tensor {
                self.push(&format!("{name}{suffix}"), self.context.download(tensor).await?);
            }
        }
        Ok(())
    }

    pub fn push_running(&mut self, suffix: &str, running: RunningValues) {
        self.push(&format!("running_mean{suffix}"), running.mean);
        self.push(&format!("running_var{suffix}"), running.var);
    }
}
