//! The tables on the terminal.

use wgnorm::{Activation, DType};

use super::norm::Norm;
use super::report::{CaseReport, TotalReport};
use super::variant::Variant;

/// Columns beside the usual ones: what differs from the default, or was asked for more than once.
#[derive(Clone, Copy)]
pub struct Columns {
    norm: bool,
    dtype: bool,
    fused: bool,
    /// Of batch norm alone.
    pub naive: bool,
    pub separate: bool,
}

impl Columns {
    pub fn of(norms: &[Norm], variants: &[Variant]) -> Self {
        let differ = |one: &dyn Fn(&Variant) -> bool| variants.iter().any(one);
        let in_f32 = |variant: &Variant| variant.dtype == DType::F32 && !variant.in_place;
        let batch = norms.iter().any(|norm| norm.is_batch());
        Self {
            norm: norms.iter().any(|norm| !norm.is_batch()),
            dtype: differ(&|variant| variant.dtype != DType::F32),
            fused: differ(&|variant| variant.is_fused()),
            naive: batch,
            separate: batch && differ(&|v| in_f32(v) && v.is_fused() && is_covered(v.activation)),
        }
    }

    /// The columns for what is computed.
    fn variant(self, norm: &str, dtype: &str, fused: &str) -> String {
        let norm = if self.norm { format!("{norm:<16}") } else { String::new() };
        let dtype = if self.dtype { format!("{dtype:<9}") } else { String::new() };
        let fused = if self.fused { format!("{fused:<20}") } else { String::new() };
        norm + &dtype + &fused
    }

    /// The columns for the baselines.
    fn baselines(self, naive: &str, separate: &str) -> String {
        let naive = if self.naive { format!("{naive:>7}") } else { String::new() };
        let separate = if self.separate { format!(" {separate:>10}") } else { String::new() };
        naive + &separate
    }
}

/// Whether there are separate passes for an activation.
fn is_covered(activation: Activation) -> bool {
    matches!(activation, Activation::None | Activation::Relu)
}

pub fn header(columns: Columns) {
    println!(
        "{:<22} {:>5} {:<15} {:<14} {:<5} {}{:>9} {:>8} {:>7} {:>7} {}",
        "shape",
        "times",
        "op",
        "layout",
        "cache",
        columns.variant("norm", "dtype", "fused"),
        "ms",
        "GB/s",
        "floor",
        "plan",
        columns.baselines("x naive", "x separate")
    );
}

pub fn case(report: &CaseReport, columns: Columns) {
    let shape = format!("{:?}", report.shape);
    print!(
        "{shape:<22} {:>5} {:<15} {:<14} {:<5} {}",
        report.multiplicity,
        report.op,
        report.layout,
        report.cache,
        columns.variant(
            &report.norm_label(),
            &report.dtype,
            &Variant::fused_label(report.sum, report.gate, &report.activation, report.residual, report.int8)
        )
    );
    let Some(timing) = &report.timing else {
        println!("FAILED {}", report.error.as_deref().unwrap_or_default());
        return;
    };
    let ns = timing.ns();
    println!(
        "{:>9.3} {:>8.1} {:>6.0}% {:>6.0}% {}",
        ns / 1e6,
        report.floor_bytes as f64 / ns,
        100.0 * timing.floor_fraction,
        100.0 * timing.plan_fraction,
        columns.baselines(&times(timing.speedup), &times(timing.separate_speedup))
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
    println!(
        "    tensors   {:.2} MiB, and {:.3} for partial results",
        mib(report.tensor_bytes),
        mib(report.workspace_bytes)
    );
    for reason in &report.reasons {
        println!("    because   {reason}");
    }
}

/// Sums over the layers, whose number is told if it is the same for all.
pub fn totals(layers: Option<u32>, totals: &[TotalReport], columns: Columns) {
    println!(
        "\n{:<15} {:<14} {:<5} {}{:>12} {:>10} {:>7} {:>7} {}",
        layers.map_or("all layers".to_owned(), |layers| format!("all {layers} layers")),
        "layout",
        "cache",
        columns.variant("norm", "dtype", "fused"),
        "ms (device)",
        "ms (wall)",
        "floor",
        "plan",
        columns.baselines("x naive", "x separate")
    );
    for total in totals {
        println!(
            "{:<15} {:<14} {:<5} {}{:>12} {:>10.2} {:>6.0}% {:>6.0}% {}",
            total.op,
            total.layout,
            total.cache,
            columns.variant(
                &total.norm_label(),
                &total.dtype,
                &Variant::fused_label(total.sum, total.gate, &total.activation, total.residual, total.int8)
            ),
            total.device_ns.map_or("-".to_owned(), |ns| format!("{:.2}", ns / 1e6)),
            total.wall_ns / 1e6,
            100.0 * total.floor_fraction,
            100.0 * total.plan_fraction,
            columns.baselines(&times(total.speedup), &times(total.separate_speedup))
        );
    }
}

fn times(speedup: Option<f64>) -> String {
    speedup.map_or("-".to_owned(), |speedup| format!("{speedup:.2}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_the_default_has_a_column() {
        let plain = Columns::of(&[Norm::BATCH], &[Variant::default()]);
        assert_eq!(
            (plain.variant("batch", "float32", "none"), plain.baselines("1.00", "-")),
            ("".into(), "   1.00".into())
        );
        let half = Columns::of(
            &[Norm::BATCH],
            &[Variant { dtype: DType::F16, ..Default::default() }, Variant::default()],
        );
        assert_eq!(half.variant("batch", "float16", "none"), "float16  ");
        let fused = Columns::of(&[Norm::BATCH], &[Variant { residual: true, ..Default::default() }]);
        assert_eq!(fused.variant("batch", "float32", "residual"), "residual            ");
        assert!(fused.separate && !half.separate);
        let grouped = Columns::of(&[Norm::group(32)], &[Variant { residual: true, ..Default::default() }]);
        assert!(!grouped.naive && !grouped.separate);
        assert_eq!(grouped.variant("group32", "float32", "sum"), "group32         sum                 ");
    }
}
