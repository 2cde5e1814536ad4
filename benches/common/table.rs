//! A table on standard output, its columns as wide as they must be.

use std::io::{self, Write as _};

/// Prints `rows` under `heads`; the first column is flush left, the others right.
pub(crate) fn print(title: &str, heads: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(heads.get(column).map(|head| head.chars().count())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let text: Vec<String> = cells
            .zip(&widths)
            .enumerate()
            .map(
                |(at, (cell, &width))| {
                    if at == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
                },
            )
            .collect();
        writeln!(out, "{}", text.join("  ").trim_end())
    };
    line(&mut [title].into_iter())?;
    line(&mut heads.iter().copied())?;
    for row in rows {
        line(&mut row.iter().map(String::as_str))?;
    }
    writeln!(out)
}
