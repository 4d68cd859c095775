//! A column of Arrow as values of JSON.

use crate::failure::Failure;
use crate::parquet::bad;
use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::DataType;
use serde_json::{Map, Value};
use std::path::Path;

/// Digits that every number of JSON can have: readers take them for f64.
const EXACT_DIGITS: usize = 15;

/// The values of a column: lists as arrays, structs and maps as objects, what JSON has no kind of as text. `path` is for messages.
pub fn values(path: &Path, array: &ArrayRef) -> Result<Vec<Value>, Failure> {
    let each = |value: &dyn Fn(usize) -> Result<Value, Failure>| {
        (0..array.len()).map(|i| if array.is_null(i) { Ok(Value::Null) } else { value(i) }).collect()
    };
    let list = |of_row: &dyn Fn(usize) -> ArrayRef| each(&|i| Ok(Value::Array(values(path, &of_row(i))?)));
    match array.data_type() {
        DataType::List(_) => list(&|i| array.as_list::<i32>().value(i)),
        DataType::LargeList(_) => list(&|i| array.as_list::<i64>().value(i)),
        DataType::FixedSizeList(..) => list(&|i| array.as_fixed_size_list().value(i)),
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(|column| values(path, column));
            let columns: Vec<Vec<Value>> = columns.collect::<Result<_, _>>()?;
            let names = || fields.iter().map(|field| field.name().clone());
            each(&|i| Ok(names().zip(columns.iter().map(|column| column[i].clone())).collect::<Map<_, _>>().into()))
        }
        DataType::Map(..) => each(&|i| {
            let entries = array.as_map().value(i);
            let [keys, items] = [0, 1].map(|column| values(path, entries.column(column)));
            let key = |key: Value| if let Value::String(key) = key { key } else { key.to_string() };
            Ok(keys?.into_iter().map(key).zip(items?).collect::<Map<_, _>>().into())
        }),
        kind => {
            let as_number = kind.is_numeric() || *kind == DataType::Boolean;
            let is_decimal = kind.is_decimal();
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(array.as_ref(), &options).map_err(|error| bad(path, error))?;
            each(&|i| {
                let text = formatter.value(i).try_to_string().map_err(|error| bad(path, error))?;
                let is_exact = !is_decimal || text.bytes().filter(u8::is_ascii_digit).count() <= EXACT_DIGITS;
                Ok(match as_number && is_exact {
                    // A number that JSON does not have (NaN) stays a text.
                    true => serde_json::from_str(&text).unwrap_or(Value::String(text)),
                    false => Value::String(text),
                })
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::builder::{Int32Builder, ListBuilder, MapBuilder, StringBuilder};
    use arrow_array::{Decimal128Array, Float64Array, Int64Array, StringArray, StructArray};
    use arrow_schema::Field;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn lists_structs_and_maps_are_json_and_no_number_loses_digits() {
        let of = |array: ArrayRef| Value::Array(values(Path::new("x"), &array).unwrap());
        let mut tags = ListBuilder::new(StringBuilder::new());
        tags.append_value([Some("a"), None]);
        tags.append_null();
        tags.append_value(Vec::<Option<&str>>::new());
        assert_eq!(of(Arc::new(tags.finish())), json!([["a", null], null, []]));
        let fields = ["n", "s"].map(|name| if name == "n" { DataType::Int64 } else { DataType::Utf8 });
        let columns: [ArrayRef; 2] =
            [Arc::new(Int64Array::from(vec![i64::MAX])), Arc::new(StringArray::from(vec!["x"]))];
        let fields = ["n", "s"].iter().zip(fields).map(|(name, kind)| Arc::new(Field::new(*name, kind, true)));
        let of_both = StructArray::from(fields.zip(columns).collect::<Vec<_>>());
        assert_eq!(of(Arc::new(of_both)), json!([{"n": i64::MAX, "s": "x"}]));
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
        map.keys().append_value("one");
        map.values().append_value(1);
        map.append(true).unwrap();
        assert_eq!(of(Arc::new(map.finish())), json!([{"one": 1}]));
        let decimals = Decimal128Array::from(vec![12_340, 12_345_678_901_234_567_890]);
        let decimals = decimals.with_precision_and_scale(30, 3).unwrap();
        assert_eq!(of(Arc::new(decimals)), json!([12.34, "12345678901234567.890"]));
        assert_eq!(of(Arc::new(Float64Array::from(vec![0.1, f64::NAN]))), json!([0.1, "NaN"]));
    }
}
