//! The tidy table as Apache Parquet: whole numbers, numbers and text by column, empty cells as nulls.

use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use crate::error::Failure;

/// The cells of a column, by what all of them are.
enum Cells {
    Whole(Vec<Option<i64>>),
    Number(Vec<Option<f64>>),
    Text(Vec<Option<ByteArray>>),
}

impl Cells {
    fn of(cells: &[&str]) -> Self {
        fn all<T>(cells: &[&str], parse: impl Fn(&str) -> Option<T>) -> Option<Vec<Option<T>>> {
            let given = |cell: &&str| match *cell {
                "" => Some(None),
                cell => parse(cell).map(Some),
            };
            cells.iter().map(given).collect()
        }
        // A column of nothing but empty cells is one of numbers: metrics that do not apply.
        if let Some(whole) = all(cells, |cell| cell.parse().ok())
            && whole.iter().any(Option::is_some)
        {
            Self::Whole(whole)
        } else if let Some(numbers) = all(cells, |cell| cell.parse().ok()) {
            Self::Number(numbers)
        } else {
            Self::Text(all(cells, |cell| Some(ByteArray::from(cell))).unwrap_or_default())
        }
    }

    fn schema(&self, name: &str) -> Result<Type, ParquetError> {
        let column = match self {
            Self::Whole(_) => Type::primitive_type_builder(name, Physical::INT64),
            Self::Number(_) => Type::primitive_type_builder(name, Physical::DOUBLE),
            Self::Text(_) => Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                .with_logical_type(Some(LogicalType::String)),
        };
        column.with_repetition(Repetition::OPTIONAL).build()
    }

    fn write(self, column: SerializedColumnWriter<'_>) -> Result<(), ParquetError> {
        match self {
            Self::Whole(cells) => write::<Int64Type>(column, cells),
            Self::Number(cells) => write::<DoubleType>(column, cells),
            Self::Text(cells) => write::<ByteArrayType>(column, cells),
        }
    }
}

fn write<T: DataType>(
    mut column: SerializedColumnWriter<'_>,
    cells: Vec<Option<T::T>>,
) -> Result<(), ParquetError> {
    let present: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    column.typed::<T>().write_batch(&values, Some(&present), None)?;
    column.close()
}

/// A CSV table with a header as a Parquet file of one row group, not compressed.
///
/// # Errors
/// When it is no table.
pub fn parquet(csv: &str) -> Result<Vec<u8>, Failure> {
    let failed =
        |error: String| Failure::usage(format!("the table cannot be written as Parquet: {error}"));
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let names = reader.headers().map_err(|error| failed(error.to_string()))?.clone();
    let rows: Vec<csv::StringRecord> =
        reader.records().collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    let column = |i: usize| Cells::of(&rows.iter().map(|row| &row[i]).collect::<Vec<_>>());
    let columns: Vec<Cells> = (0..names.len()).map(column).collect();
    let file = || {
        let fields = names.iter().zip(&columns);
        let fields: Vec<_> = fields
            .map(|(name, cells)| cells.schema(name).map(Arc::new))
            .collect::<Result<_, _>>()?;
        let schema = Type::group_type_builder("runs").with_fields(fields).build()?;
        let mut bytes = Vec::new();
        let mut file = SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::default())?;
        let mut group = file.next_row_group()?;
        for cells in columns {
            let column = group.next_column()?.ok_or_else(|| {
                ParquetError::General("fewer columns than the schema has".to_owned())
            })?;
            cells.write(column)?;
        }
        group.close()?;
        file.close()?;
        Ok(bytes)
    };
    file().map_err(|error: ParquetError| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    #[test]
    fn tables_are_read_back_with_their_types() {
        let csv = "name,seed,tv,empty\n\"a,b\",1,0.5,\nc,,1,\n";
        let bytes = parquet(csv).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let rows: Vec<Vec<Field>> = reader
            .get_row_iter(None)
            .unwrap()
            .map(|row| row.unwrap().into_columns().into_iter().map(|(_, field)| field).collect())
            .collect();
        let text = |text: &str| Field::Str(text.to_owned());
        assert_eq!(rows[0], [text("a,b"), Field::Long(1), Field::Double(0.5), Field::Null]);
        assert_eq!(rows[1], [text("c"), Field::Null, Field::Double(1.0), Field::Null]);
    }
}
