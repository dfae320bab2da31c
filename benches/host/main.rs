//! What operations cost the host: `cargo bench --bench host`. A layer of batch norm and one of layer norm over a tensor so small that the device has
//! nothing to do: preparing for the same tensors, binding others of the same kind, recording, and the calls that do all of it; then the memory that
//! preparing leaves behind while nothing is submitted.

mod by_hand;

use std::time::Instant;

use wgnorm::{
    Accumulation, BatchNorm, BatchNormOptions, Context, GradientTargets, LayerNorm, NormOptions, Prepared,
    Result, Saved, Tensor,
};

const SHAPE: [usize; 4] = [2, 3, 6, 6];

fn main() -> Result<()> {
    // `cargo test --benches` passes no --bench: a few calls, to see that they work.
    let bench = std::env::args().any(|argument| argument == "--bench");
    let (rounds, calls) = if bench { (40, 25) } else { (2, 2) };
    let context = Context::headless_blocking()?;
    println!(
        "{}: host time per call, median of {rounds} rounds of {calls} calls",
        context.device().adapter_info().name
    );
    println!("| | µs |\n|---|---|");
    context.block_on(times(&context, rounds, calls))?;
    println!(
        "\nresident memory that stays of each call while nothing is submitted, then after a submission\n"
    );
    println!("| | bytes | after |\n|---|---|---|");
    context.block_on(memory(&context, if bench { 1000 } else { 2 }))
}

/// Operands of one step.
struct Step {
    x: Tensor,
    y: Tensor,
    dx: Tensor,
    dgamma: Tensor,
    dbeta: Tensor,
    saved: Saved,
}

impl Step {
    async fn new(context: &Context) -> Result<Self> {
        let len = SHAPE.iter().product();
        let values: Vec<f32> = (0..len).map(|i: usize| ((i * 7919) % 1009) as f32 / 500.0).collect();
        let x = context.upload(&SHAPE, &values).await?;
        Ok(Self {
            y: context.zeros_like(&x).await?,
            dx: context.zeros_like(&x).await?,
            dgamma: context.zeros(&SHAPE[1..2]).await?,
            dbeta: context.zeros(&SHAPE[1..2]).await?,
            saved: Saved::new(context, &x).await?,
            x,
        })
    }

    fn targets(&self) -> GradientTargets<'_> {
        GradientTargets::default()
            .dx(&self.dx)
            .dgamma(&self.dgamma)
            .dbeta(&self.dbeta)
            .accumulation(Accumulation::Write)
    }

    async fn backward(&self, layer: &BatchNorm) -> Result<Prepared> {
        layer.prepare_backward(&self.x, &self.y, &self.saved, &self.targets()).await
    }
}

/// Prints the median over rounds.
fn report(name: &str, mut rounds: Vec<f64>) {
    rounds.sort_by(f64::total_cmp);
    println!("| {name} | {:.1} |", rounds[rounds.len() / 2]);
}

async fn times(context: &Context, rounds: usize, calls: usize) -> Result<()> {
    let mut layer = BatchNorm::new(context, SHAPE[1], BatchNormOptions::pytorch()).await?;
    let norm = LayerNorm::new(context, &SHAPE[3..], NormOptions::layer()).await?;
    // Each call has buffers of its own, as in a framework whose buffers move at every step.
    let mut steps = Vec::new();
    for _ in 0..calls {
        steps.push(Step::new(context).await?);
    }
    let micros = |begun: Instant| begun.elapsed().as_secs_f64() * 1e6 / calls as f64;
    let settle = || context.device().poll(wgnorm::wgpu::PollType::wait_indefinitely()).is_ok();

    let by_hand = by_hand::ByHand::new(context, "batch 2x3x6x6 backward").await?;
    let mut found: [Vec<f64>; 10] = Default::default();
    for round in 0..=rounds {
        let mut times = Vec::new();
        let begun = Instant::now();
        for step in &steps {
            drop(layer.prepare_train_forward(&step.x, &step.y, Some(&step.saved)).await?);
        }
        times.push(micros(begun));
        let begun = Instant::now();
        for step in &steps {
            drop(step.backward(&layer).await?);
        }
        times.push(micros(begun));
        let begun = Instant::now();
        for step in &steps {
            drop(norm.prepare_forward(&step.x, &step.y, None).await?);
        }
        times.push(micros(begun));
        let mut kept = Vec::new();
        for step in &steps {
            kept.push(layer.prepare_train_forward(&step.x, &step.y, Some(&step.saved)).await?);
        }

        let mut encoder = context.device().create_command_encoder(&Default::default());
        {
            let mut pass = encoder.begin_compute_pass(&Default::default());
            let begun = Instant::now();
            for forward in &kept {
                forward.record_in(&mut layer, &mut pass)?;
            }
            times.push(micros(begun));
        }
        context.queue().submit([encoder.finish()]);
        settle();

        let begun = Instant::now();
        for step in &steps {
            drop(layer.train_forward(&step.x).await?);
        }
        times.push(micros(begun));
        settle();
        let begun = Instant::now();
        steps.iter().for_each(|step| by_hand.run(&step.x));
        times.push(micros(begun));
        settle();
        let begun = Instant::now();
        for step in &steps {
            drop(layer.backward(&step.x, &step.y, &step.saved).await?);
        }
        times.push(micros(begun));
        settle();
        let begun = Instant::now();
        for step in &steps {
            drop(norm.infer(&step.x).await?);
        }
        times.push(micros(begun));
        settle();
        let begun = Instant::now();
        for step in &steps {
            drop(context.zeros_like(&step.x).await?);
        }
        times.push(micros(begun));
        let begun = Instant::now();
        for _ in &steps {
            context.submit(&[]).await?;
        }
        times.push(micros(begun));
        settle();
        // The first compiles.
        if round > 0 {
            found.iter_mut().zip(times).for_each(|(found, time)| found.push(time));
        }
    }
    let names = [
        "batch norm, prepare_train_forward, other buffers",
        "batch norm, prepare_backward, other buffers",
        "layer norm, prepare_forward, other buffers",
        "batch norm, record_in",
        "batch norm, train_forward, with its submission",
        "the same by hand, with wgpu alone",
        "batch norm, backward, with its submission",
        "layer norm, infer, with its submission",
        "a tensor of zeros",
        "an empty submission",
    ];
    names.into_iter().zip(found).for_each(|(name, found)| report(name, found));
    Ok(())
}

/// Bytes of this process in memory, where the system says.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    pages.map_or(f64::NAN, |pages| pages * 4096.0)
}

async fn memory(context: &Context, calls: usize) -> Result<()> {
    let mut layer = BatchNorm::new(context, SHAPE[1], BatchNormOptions::pytorch()).await?;
    let step = Step::new(context).await?;
    // Overlaps x, which is found when all else has been decided.
    let room = context.zeros(&[440]).await?;
    let x = Tensor::from_buffer(context, room.buffer().clone(), 0, &SHAPE)?;
    let wrong = Tensor::from_buffer(context, room.buffer().clone(), 16, &SHAPE)?;
    for (name, fails) in [("prepare_train_forward", false), ("the same, with a y that overlaps x", true)] {
        let y = if fails { &wrong } else { &step.y };
        for _ in 0..calls / 10 + 1 {
            let _ = layer.prepare_train_forward(&x, y, Some(&step.saved)).await;
        }
        let before = resident();
        for _ in 0..calls {
            assert_eq!(layer.prepare_train_forward(&x, y, Some(&step.saved)).await.is_err(), fails);
        }
        let unsubmitted = resident();
        context.submit(&[]).await?;
        context.download(&step.x).await?;
        let each = |after: f64| (after - before) / calls as f64;
        println!("| {name} | {:.0} | {:.0} |", each(unsubmitted), each(resident()));
    }
    Ok(())
}
