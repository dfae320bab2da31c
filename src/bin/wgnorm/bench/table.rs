//! The tables on the terminal.

use super::report::{CaseReport, TotalReport};

pub fn header() {
    println!(
        "{:<22} {:>5} {:<15} {:<14} {:<5} {:>9} {:>8} {:>7} {:>7} {:>7}",
        "shape", "times", "op", "layout", "cache", "ms", "GB/s", "floor", "plan", "x naive"
    );
}

pub fn case(report: &CaseReport) {
    let shape = format!("{:?}", report.shape);
    print!(
        "{shape:<22} {:>5} {:<15} {:<14} {:<5} ",
        report.multiplicity, report.op, report.layout, report.cache
    );
    let Some(timing) = &report.timing else {
        println!("FAILED {}", report.error.as_deref().unwrap_or_default());
        return;
    };
    let ns = timing.ns();
    println!(
        "{:>9.3} {:>8.1} {:>6.0}% {:>6.0}% {:>7}",
        ns / 1e6,
        report.floor_bytes as f64 / ns,
        100.0 * timing.floor_fraction,
        100.0 * timing.plan_fraction,
        times(timing.speedup)
    );
}

/// How a case is planned, and why.
pub fn explanation(report: &CaseReport) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    println!("    plan      {}", report.plan);
    for kernel in &report.kernels {
        println!("    dispatch  {kernel}");
    }
    println!("    moves     {:.2} MiB, at least {:.2}", mib(report.plan_bytes), mib(report.floor_bytes));
    for reason in &report.reasons {
        println!("    because   {reason}");
    }
}

pub fn totals(layers: u32, totals: &[TotalReport]) {
    println!(
        "\n{:<15} {:<14} {:<5} {:>12} {:>10} {:>7} {:>7} {:>7}",
        format!("all {layers} layers"),
        "layout",
        "cache",
        "ms (device)",
        "ms (wall)",
        "floor",
        "plan",
        "x naive"
    );
    for total in totals {
        println!(
            "{:<15} {:<14} {:<5} {:>12} {:>10.2} {:>6.0}% {:>6.0}% {:>7}",
            total.op,
            total.layout,
            total.cache,
            total.device_ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns / 1e6)),
            total.wall_ns / 1e6,
            100.0 * total.floor_fraction,
            100.0 * total.plan_fraction,
            times(total.speedup)
        );
    }
}

fn times(speedup: Option<f64>) -> String {
    speedup.map_or("-".to_owned(), |speedup| format!("{speedup:.2}"))
}
