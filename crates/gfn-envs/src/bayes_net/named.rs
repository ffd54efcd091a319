//! Graphs and matrices on named nodes, from CSV text.

use super::file_error::FileError;
use super::graph::{bit, is_acyclic};
use super::header::{not_csv, reader_of};

/// A number per ordered pair of nodes: row i, column j for i -> j.
///
/// The header has the names of the nodes, in any order; rows are in the order of the header, or start
/// with a name if the header starts with an empty field.
///
/// # Errors
/// With the line: names that are not those of the nodes, fields that are no numbers, lines too few or
/// too many.
pub fn matrix(bytes: &[u8], names: &[String]) -> Result<Vec<Vec<f64>>, FileError> {
    let mut reader = reader_of(bytes);
    let headers = reader.headers().map_err(|error| not_csv(&error))?.clone();
    let labelled = headers.get(0).is_some_and(str::is_empty);
    let columns: Vec<usize> = headers
        .iter()
        .skip(usize::from(labelled))
        .map(|name| node(names, name).map_err(|error| error.on(1)))
        .collect::<Result<_, _>>()?;
    let mut matrix = vec![Vec::new(); names.len()];
    check_all(names, |node| columns.iter().filter(|&&column| column == node).count())?;
    let mut record = csv::StringRecord::new();
    let mut rows = columns.iter();
    while reader.read_record(&mut record).map_err(|error| not_csv(&error))? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = match labelled {
            true => Some(node(names, &record[0]).map_err(|error| error.on(line))?),
            false => rows.next().copied(),
        };
        let fresh = row.filter(|&row| matrix[row].is_empty());
        let Some(row) = fresh.filter(|_| record.len() == headers.len()) else {
            let message = format!("is not a matrix of {0} x {0} numbers", names.len());
            return Err(FileError::new(message, MATRIX).on(line));
        };
        let mut numbers = vec![0.0; names.len()];
        for (&column, text) in columns.iter().zip(record.iter().skip(usize::from(labelled))) {
            let number = text.parse().ok().filter(|number: &f64| number.is_finite());
            numbers[column] = number.ok_or_else(|| {
                let message = format!("has `{text}` where a number is expected");
                FileError::new(message, MATRIX).of(&names[column]).on(line)
            })?;
        }
        matrix[row] = numbers;
    }
    check_all(names, |node| usize::from(!matrix[node].is_empty()))?;
    Ok(matrix)
}

/// A DAG, as masks of parents: from two columns `from` and `to`, whatever other columns there are, or
/// from a [`matrix`] with 1 for an edge and 0 for none.
///
/// # Errors
/// As [`matrix`]; when edges form a cycle.
pub fn dag(bytes: &[u8], names: &[String]) -> Result<Vec<u64>, FileError> {
    let mut parents = vec![0; names.len()];
    let mut reader = reader_of(bytes);
    let headers = reader.headers().map_err(|error| not_csv(&error))?.clone();
    let place = |name| headers.iter().position(|header| header == name);
    if let (Some(from), Some(to)) = (place("from"), place("to")) {
        for record in reader.records() {
            let record = record.map_err(|error| not_csv(&error))?;
            let line = record.position().map_or(0, csv::Position::line);
            let end = |k: usize| {
                let name = record.get(k).unwrap_or_default();
                node(names, name).map_err(|error| error.on(line))
            };
            parents[end(to)?] |= bit(end(from)?);
        }
    } else {
        for (i, row) in matrix(bytes, names)?.iter().enumerate() {
            for (j, &number) in row.iter().enumerate() {
                let numbers = [0.0f64, 1.0];
                let known = numbers.iter().position(|known| known.total_cmp(&number).is_eq());
                let Some(edge) = known else {
                    let (i, j) = (&names[i], &names[j]);
                    let message = format!("has {number} for {i} -> {j}, where 0 or 1 is expected");
                    return Err(FileError::new(message, MATRIX));
                };
                parents[j] |= (edge as u64) << i;
            }
        }
    }
    if !is_acyclic(&parents) {
        let help = "a Bayesian network is acyclic: drop or reverse an edge of every cycle";
        return Err(FileError::new("has edges that form a cycle", help));
    }
    Ok(parents)
}

const MATRIX: &str = "write the names of all nodes in the header, then a row per node, from it to \
                      the others; or columns `from` and `to`, where edges are listed";

fn node(names: &[String], name: &str) -> Result<usize, FileError> {
    names.iter().position(|known| known == name).ok_or_else(|| {
        let message = format!("has `{name}`, which is no node");
        FileError::new(message, format!("the nodes are {}", names.join(", "))).of(name)
    })
}

/// Every node once.
fn check_all(names: &[String], count: impl Fn(usize) -> usize) -> Result<(), FileError> {
    match (0..names.len()).find(|&node| count(node) != 1) {
        None => Ok(()),
        Some(node) => {
            let name = &names[node];
            let message = format!("has the node `{name}` {} times, not once", count(node));
            Err(FileError::new(message, MATRIX).of(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["A", "B", "C"].map(str::to_owned).to_vec()
    }

    #[test]
    fn matrices_go_by_name() {
        let expected = [[0.0, 0.25, 1.0], [0.5, 0.0, 0.0], [0.0, 0.75, 0.0]];
        for text in [
            "A,B,C\n0,0.25,1\n0.5,0,0\n0,0.75,0\n",
            "C,A,B\n0,0,0.75\n1,0,0.25\n0,0.5,0\n",
            ",A,B,C\r\nC,0,0.75,0\r\nA,0,0.25,1\r\nB,0.5,0,0\r\n",
            "\"\";C;B;A\nA;1;.25;0\nB;0;0;.5\nC;0;.75;0\n",
        ] {
            assert_eq!(matrix(text.as_bytes(), &names()).unwrap(), expected, "{text}");
        }
        for (text, part) in [
            ("A,B\n0,0\n0,0\n", "`C` 0 times"),
            ("A,B,C,A\n", "`A` 2 times"),
            ("A,B,D\n", "has `D`, which is no node, on line 1"),
            ("A,B,C\n0,0,0\n0,x,0\n", "has `x` where a number is expected, on line 3"),
            ("A,B,C\n0,0,0\n0,0,0\n", "`C` 0 times"),
            ("A,B,C\n0,0,0\n0,0,0\n0,0,0\n0,0,0\n", "3 x 3 numbers, on line 5"),
            ("A,B,C\n0,0,0\n0,0\n", "3 x 3 numbers, on line 3"),
            (",A,B,C\nA,0,0,0\nA,0,0,0\n", "3 x 3 numbers, on line 3"),
        ] {
            let error = matrix(text.as_bytes(), &names()).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn graphs_from_lists_and_matrices() {
        for text in [
            "from,to\nA,B\nC,B\n",
            "to,strength,from\nB,0.5,C\nB,1,A\n",
            "A,B,C\n0,1,0\n0,0,0\n0,1,0\n",
        ] {
            assert_eq!(dag(text.as_bytes(), &names()).unwrap(), [0, 0b101, 0], "{text}");
        }
        for (text, part) in [
            ("from,to\nA,B\nB,A\n", "form a cycle"),
            ("from,to\nA,B\nB,X\n", "has `X`, which is no node, on line 3"),
            ("A,B,C\n0,2,0\n0,0,0\n0,1,0\n", "has 2 for A -> B"),
        ] {
            let error = dag(text.as_bytes(), &names()).unwrap_err();
            assert!(error.message.contains(part), "{error}");
        }
    }
}
