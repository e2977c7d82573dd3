//! Columns that are as wide as their widest cell, as Go's text/tabwriter makes them.
//!
//! A cell ends with a tab; a column is a run of lines that have that cell. Docker uses a smallest width of 10 and three
//! blanks between columns.

const SMALLEST: usize = 10;
const PADDING: usize = 3;

/// Aligns tab-separated text.
pub fn align(text: &str) -> String {
    let ended = text.ends_with('\n');
    let mut lines: Vec<Vec<&str>> = text.split('\n').map(|l| l.split('\t').collect()).collect();
    if ended {
        lines.pop();
    }
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|l| vec![0; l.len() - 1]).collect();
    measure(&lines, &mut widths, 0, 0, lines.len());
    let mut out = String::with_capacity(text.len() * 2);
    for (i, line) in lines.iter().enumerate() {
        for (j, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths[i].get(j) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        if i + 1 < lines.len() || ended {
            out.push('\n');
        }
    }
    out
}

/// Sets the widths of column `column` within lines `from..to`, and of the columns to its right.
fn measure(lines: &[Vec<&str>], widths: &mut [Vec<usize>], column: usize, from: usize, to: usize) {
    let mut at = from;
    while at < to {
        if lines[at].len() <= column + 1 {
            at += 1;
            continue;
        }
        let end = (at..to).find(|i| lines[*i].len() <= column + 1).unwrap_or(to);
        let widest = lines[at..end].iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
        // A column of empty cells has no width.
        let width = if widest == 0 { 0 } else { (widest + PADDING).max(SMALLEST) };
        for w in &mut widths[at..end] {
            w[column] = width;
        }
        measure(lines, widths, column + 1, at, end);
        at = end;
    }
}
