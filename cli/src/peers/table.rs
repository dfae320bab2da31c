//! The tables as text for a terminal and as Markdown: one of the sums, and one per operation, layout and element type.

use std::fmt::Write;

use super::sides::{Group, PeerTime};
use super::{Report, Source};

/// Cells with a header; the first column is text, the others are numbers.
struct Table {
    title: String,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// How many columns are text.
    texts: usize,
}

/// Marks a time whose result was wrong.
const WRONG: &str = "!";

pub fn text(report: &Report<'_>) -> String {
    let mut out = String::new();
    head(report).iter().for_each(|line| out += &format!("{line}\n"));
    for table in groups(report).iter().chain([&sums(report)]) {
        out += &format!("\n{}\n", table.title);
        out += &table.text();
    }
    out += "\n";
    foot(report).iter().for_each(|line| out += &format!("{line}\n"));
    out
}

pub fn markdown(report: &Report<'_>) -> String {
    let mut out = String::new();
    head(report).iter().for_each(|line| out += &format!("- {line}\n"));
    foot(report).iter().for_each(|line| out += &format!("- {line}\n"));
    for table in [&sums(report)].into_iter().chain(&groups(report)) {
        out += &format!("\n**{}**\n\n", table.title);
        out += &table.markdown();
    }
    out
}

/// What was measured where and when.
fn head(report: &Report<'_>) -> Vec<String> {
    let source = |source: &Source<'_>| {
        let of = match source.peer {
            Some(peer) => format!("{} {} ({})", peer.name, peer.version, peer.variant),
            None => format!("wgnorm {}", source.git.unwrap_or("of no commit")),
        };
        let mut line = format!("{of}: {} on {}", source.date, source.adapter);
        if let Some(speed) = source.copy_speed {
            let _ = write!(line, "; its copies were {speed:.2} times as fast as those beside wgnorm");
        }
        if !source.same_adapter {
            line += "; ANOTHER ADAPTER: the ratio compares machines";
        }
        line
    };
    let mut lines: Vec<_> = [&report.wgnorm].into_iter().chain(&report.peers).map(source).collect();
    lines.push(match report.clock {
        "device" => "times are milliseconds of the device, medians".to_owned(),
        _ => "times are milliseconds of the wall clock (a file has no device times), medians".to_owned(),
    });
    lines
}

/// How to read it.
fn foot(report: &Report<'_>) -> Vec<String> {
    let mut lines = vec![
        "floor: the bytes that must be moved, at the speed of a copy; copy: one tensor copied; x: the peer's time over \
         wgnorm's"
            .to_owned(),
        "train_step is forward and backward; of a file without it, their sum. Totals count a layer as often as the \
         network has it"
            .to_owned(),
    ];
    let times = || report.groups.iter().flat_map(|group| group.rows.iter().flat_map(|row| &row.peers));
    if times().flatten().any(|time| !time.checked) {
        lines.push(format!("{WRONG} the peer's result was not right"));
    }
    lines.extend(report.notes.iter().cloned());
    lines
}

/// Every operation of every norm over all layers.
fn sums(report: &Report<'_>) -> Table {
    let mut header: Vec<String> =
        ["norm", "operation", "layout", "dtype", "layers", "floor", "copy", "wgnorm"]
            .map(str::to_owned)
            .into();
    for peer in &report.peers {
        header.extend([peer.label.clone(), "x".to_owned(), "smallest".to_owned()]);
    }
    let row = |group: &Group| {
        let total = &group.total;
        let mut cells =
            vec![group.norm.clone(), group.op.to_owned(), group.layout.clone(), group.dtype.clone()];
        cells.push(total.layers.to_string());
        cells.extend([total.ours.floor_ns, total.ours.copy_ns, Some(total.ours.wgnorm_ns)].map(ms));
        for peer in &total.peers {
            cells.extend(time(peer.sum));
            cells.push(ratio(peer.smallest_ratio));
        }
        cells
    };
    let rows = report.groups.iter().map(row).collect();
    Table { title: "all layers".to_owned(), header, rows, texts: 4 }
}

/// Every operation per shape.
fn groups(report: &Report<'_>) -> Vec<Table> {
    report.groups.iter().map(|group| group_table(report, group)).collect()
}

fn group_table(report: &Report<'_>, group: &Group) -> Table {
    let total = &group.total;
    // A peer without a case would be a column of dashes.
    let shown: Vec<usize> = (0..report.peers.len()).filter(|&peer| total.peers[peer].cases > 0).collect();
    let mut header: Vec<String> = ["shape", "times", "floor", "copy", "wgnorm"].map(str::to_owned).into();
    shown.iter().for_each(|&peer| header.extend([report.peers[peer].label.clone(), "x".to_owned()]));
    let mut rows = Vec::new();
    for row in &group.rows {
        let mut cells = vec![format!("{:?}", row.shape), row.multiplicity.to_string()];
        cells.extend([row.ours.floor_ns, row.ours.copy_ns, Some(row.ours.wgnorm_ns)].map(ms));
        shown.iter().for_each(|&peer| cells.extend(time(row.peers[peer])));
        rows.push(cells);
    }
    let mut cells = vec!["all layers".to_owned(), total.layers.to_string()];
    cells.extend([total.ours.floor_ns, total.ours.copy_ns, Some(total.ours.wgnorm_ns)].map(ms));
    shown.iter().for_each(|&peer| cells.extend(time(total.peers[peer].sum)));
    rows.push(cells);
    let mut cells = vec!["smallest ratio".to_owned()];
    cells.resize(5, String::new());
    shown.iter().for_each(|&peer| cells.extend([String::new(), ratio(total.peers[peer].smallest_ratio)]));
    rows.push(cells);
    let title = format!("{} norm: {}, {}, {}", group.norm, group.op, group.layout, group.dtype);
    Table { title, header, rows, texts: 1 }
}

fn time(time: Option<PeerTime>) -> [String; 2] {
    let mark = if time.is_none_or(|time| time.checked) { "" } else { WRONG };
    [ms(time.map(|time| time.ns)) + mark, ratio(time.map(|time| time.ratio))]
}

fn ms(ns: Option<f64>) -> String {
    ns.map_or("-".to_owned(), |ns| format!("{:.3}", ns / 1e6))
}

fn ratio(ratio: Option<f64>) -> String {
    ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
}

impl Table {
    fn text(&self) -> String {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let width = |column: usize| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let cell = |(column, cell): (usize, &String)| match column < self.texts {
                true => format!("{cell:<width$}", width = widths[column]),
                false => format!("{cell:>width$}", width = widths[column]),
            };
            let line = cells.iter().enumerate().map(cell).collect::<Vec<_>>().join("  ");
            format!("{}\n", line.trim_end())
        };
        lines().map(line).collect()
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let rule: Vec<String> = (0..self.header.len())
            .map(|column| if column < self.texts { "---" } else { "---:" }.to_owned())
            .collect();
        let rows = self.rows.iter().map(|cells| line(cells)).collect::<String>();
        line(&self.header) + &line(&rule) + &rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_markdown_is_a_table() {
        let cells = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        let rows = vec![cells(["b", "10.0"]), cells(["", "2"])];
        let table = Table { title: String::new(), header: cells(["long", "x"]), rows, texts: 1 };
        assert_eq!(table.text(), "long     x\nb     10.0\n         2\n");
        assert_eq!(table.markdown(), "| long | x |\n| --- | ---: |\n| b | 10.0 |\n|  | 2 |\n");
    }

    #[test]
    fn a_wrong_result_is_marked() {
        let checked = |checked| Some(PeerTime { ns: 2e6, ratio: 1.5, checked });
        assert_eq!(time(checked(true)), ["2.000", "1.50"]);
        assert_eq!(time(checked(false)), ["2.000!", "1.50"]);
        assert_eq!(time(None), ["-", "-"]);
    }
}
