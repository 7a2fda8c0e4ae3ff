//! Tables as kubectl prints them: columns apart by three spaces, no lines.

/// Lays rows out below their header; every row has as many cells as the header.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(header.iter().copied(), &widths);
    for row in rows {
        text.push_str(&line(row.iter().map(String::as_str), &widths));
    }
    text
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = String::new();
    for (cell, width) in cells.zip(widths) {
        line.push_str(cell);
        line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
    }
    let mut line = line.trim_end().to_owned();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_stand_below_their_headers_and_lines_have_no_tail() {
        let rows = [vec!["cart".to_owned(), "True".to_owned()], vec!["c".to_owned(), String::new()]];
        assert_eq!(super::render(&["NAME", "READY"], &rows), "NAME   READY\ncart   True\nc\n");
    }
}
