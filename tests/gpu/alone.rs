//! What is measured of the whole process, so that nothing may run beside it: one test, in a binary of its own. Linux says how much memory a process has.
#![cfg(target_os = "linux")]

use wgnorm::{BatchNorm, BatchNormOptions, Context, LayerNorm, NormOptions, Prepared, Result, Saved, Tensor};

/// Bytes of this process in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Bytes that calls leave behind, once they have been made before.
fn left_behind(mut calls: impl FnMut()) -> u64 {
    calls();
    let before = resident();
    calls();
    resident().saturating_sub(before)
}

#[test]
fn memory() -> Result<()> {
    if std::env::var_os(CHILD).is_some() {
        return run_out();
    }
    memory_stays()?;
    memory_that_runs_out_is_an_error();
    Ok(())
}

fn memory_stays() -> Result<()> {
    let context = Context::headless_blocking()?;
    preparing_leaves_nothing_behind(&context)?;
    sequences_of_all_lengths_do_not_pile_up(&context)
}

fn preparing_leaves_nothing_behind(context: &Context) -> Result<()> {
    let (x, y, wrong) = context.block_on(async {
        let room = context.upload(&[440], &[0.5; 440]).await?;
        let within = |offset| Tensor::from_buffer(context, room.buffer().clone(), offset, &[2, 3, 6, 6]);
        // The wrong one overlaps x, which is found when all else has been decided.
        Ok::<_, wgnorm::Error>((within(0)?, context.zeros(&[2, 3, 6, 6]).await?, within(16)?))
    })?;
    let layer = context.block_on(BatchNorm::new(context, 3, BatchNormOptions::pytorch()))?;
    let saved = context.block_on(Saved::new(context, &x))?;
    for (what, calls, y) in [("prepared", 1000, &y), ("refused", 2000, &wrong)] {
        let left = left_behind(|| {
            for _ in 0..calls {
                let prepared = context.block_on(layer.prepare_train_forward_untracked(&x, y, Some(&saved)));
                assert_eq!(prepared.is_ok(), what == "prepared");
            }
        });
        // Some pages for whatever else.
        assert!(left < 256 << 10, "{left} bytes stay of {calls} operations that were {what}");
    }
    Ok(())
}

fn sequences_of_all_lengths_do_not_pile_up(context: &Context) -> Result<()> {
    let (width, most) = (8, 10_000);
    let norm = context.block_on(LayerNorm::new(context, &[width], NormOptions::layer()))?;
    let all = context.block_on(context.zeros(&[most * width]))?;
    let of_length = |length: usize| -> Result<Prepared> {
        let x = Tensor::from_buffer(context, all.buffer().clone(), 0, &[length, width])?;
        context.block_on(norm.prepare_forward(&x, &x, None))
    };
    let lengths =
        |range: std::ops::Range<usize>| range.map(of_length).try_for_each(|prepared| prepared.map(drop));
    // Kernels are compiled, and as much is kept as ever will be.
    lengths(1..2500)?;
    let before = resident();
    lengths(2500..most)?;
    context.block_on(context.submit(&[]))?;
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 20, "{grown} bytes more for 7500 lengths");
    // What was let go is made again.
    let again = of_length(1)?;
    context.block_on(context.submit(&[&again]))
}

/// Set where this program is the child of a test.
const CHILD: &str = "WGNORM_TEST_CHILD";

/// With a limit on the address space of the process, of which software drivers take the device's memory.
fn memory_that_runs_out_is_an_error() {
    let program = std::env::current_exe().unwrap();
    let run = "ulimit -v 6000000; exec \"$0\" --exact memory --nocapture";
    let limited = std::process::Command::new("sh").args(["-c", run]).arg(program).env(CHILD, "").output();
    let limited = limited.unwrap();
    let said = String::from_utf8_lossy(&limited.stdout);
    assert!(limited.status.success(), "{said}\n{}", String::from_utf8_lossy(&limited.stderr));
    assert!(said.contains("ran out after") || said.contains("no software driver"), "{said}");
}

fn run_out() -> Result<()> {
    let context = Context::headless_blocking()?;
    if context.device().adapter_info().device_type != wgpu::DeviceType::Cpu {
        println!("no software driver: the limit is none of the device's");
        return Ok(());
    }
    context.block_on(async {
        let x = context.upload(&[4, 2], &[1.0, 5.0, 3.0, 5.0, 1.0, 7.0, 3.0, 7.0]).await?;
        let mut layer = BatchNorm::new(&context, 2, BatchNormOptions::pytorch()).await?;
        let (y, _) = layer.train_forward(&x).await?;
        let right = context.download(&y).await?;
        let mut kept = Vec::new();
        let error = loop {
            match context.zeros(&[64 << 20]).await {
                Ok(tensor) => kept.push(tensor),
                Err(error) => break error,
            }
            assert!(kept.len() < 100, "25 GiB within a limit of 6");
        };
        assert!(matches!(error, wgnorm::Error::OutOfMemory { .. }), "{error}");
        println!("ran out after {} tensors: {error}", kept.len());
        // What there is works on, and an operation that needs more is an error that changes nothing.
        let before = layer.running().download(&context).await?;
        let wide = &kept[0];
        let (y, _) = layer.train_forward_untracked(&x).await?;
        assert_eq!(context.download(&y).await?, right);
        let norm = LayerNorm::new(&context, &[64 << 20], NormOptions::layer()).await;
        assert!(matches!(norm, Err(wgnorm::Error::OutOfMemory { .. })), "{norm:?}");
        let like = context.zeros_like(wide).await;
        assert!(matches!(like, Err(wgnorm::Error::OutOfMemory { .. })), "{like:?}");
        assert_eq!(layer.running().download(&context).await?, before);
        // With room again, all goes on.
        kept.clear();
        context.submit(&[]).await?;
        context.zeros(&[64 << 20]).await?;
        Ok(())
    })
}
