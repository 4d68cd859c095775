//! One schema for several files: what a column is called is the same in all of them, but its type may not be.

use super::bad;
use crate::failure::{DATA, Failure};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The schema that has room for what stands in all of these files.
pub fn common(files: &[(PathBuf, Arc<Schema>)]) -> Result<Arc<Schema>, Failure> {
    let Some(((first, schema), others)) = files.split_first() else { return Ok(Arc::new(Schema::empty())) };
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| field.as_ref().clone()).collect();
    // Whose type each column has by now.
    let mut owners = vec![first; fields.len()];
    for (path, schema) in others {
        let names = |fields: &mut dyn Iterator<Item = &Field>| {
            fields.map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
        };
        let (here, there) = (names(&mut schema.fields().iter().map(Arc::as_ref)), names(&mut fields.iter()));
        if here != there {
            let (a, b) = (first.display(), path.display());
            return Err(Failure::new(DATA, format!("{a} has the columns {there}, and {b} has {here}")));
        }
        for ((field, owner), other) in fields.iter_mut().zip(&mut owners).zip(schema.fields()) {
            let (before, now) = (field.data_type(), other.data_type());
            let Some(both) = wider(before, now) else {
                let (name, a, b) = (field.name(), owner.display(), path.display());
                let how = "no type holds both; leave the column out, or keep the parts as they are";
                return Err(Failure::new(DATA, format!("column '{name}' is {before} in {a} and {now} in {b}: {how}")));
            };
            if both != *before {
                *owner = path;
            }
            let nullable = field.is_nullable() || other.is_nullable();
            *field = field.clone().with_data_type(both).with_nullable(nullable);
        }
    }
    Ok(Arc::new(Schema::new(fields)))
}

/// The batch of a file in the common schema.
pub fn cast(path: &Path, batch: &RecordBatch, schema: &Arc<Schema>) -> Result<RecordBatch, Failure> {
    let column = |(column, field): (&ArrayRef, &Arc<Field>)| match column.data_type() == field.data_type() {
        true => Ok(column.clone()),
        false => arrow_cast::cast(column, field.data_type()).map_err(|error| bad(path, error)),
    };
    let columns = batch.columns().iter().zip(schema.fields()).map(column).collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(schema.clone(), columns).map_err(|error| bad(path, error))
}

/// The type that holds every value of both, exactly.
fn wider(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    let is_string = |kind: &DataType| match kind {
        Utf8 | LargeUtf8 | Utf8View => true,
        Dictionary(_, value) => matches!(**value, Utf8 | LargeUtf8 | Utf8View),
        _ => false,
    };
    // Signed, and bits of the number without its sign.
    let integer = |kind: &DataType| match kind {
        Int8 => Some((true, 7)),
        Int16 => Some((true, 15)),
        Int32 => Some((true, 31)),
        Int64 => Some((true, 63)),
        UInt8 => Some((false, 8)),
        UInt16 => Some((false, 16)),
        UInt32 => Some((false, 32)),
        UInt64 => Some((false, 64)),
        _ => None,
    };
    // Bits of its integers that are all exact.
    let float = |kind: &DataType| match kind {
        Float16 => Some(11),
        Float32 => Some(24),
        Float64 => Some(53),
        _ => None,
    };
    if a == b || *b == Null {
        return Some(a.clone());
    }
    if *a == Null {
        return Some(b.clone());
    }
    if is_string(a) && is_string(b) {
        return Some(LargeUtf8);
    }
    if let (Some((signed_a, bits_a)), Some((signed_b, bits_b))) = (integer(a), integer(b)) {
        return match (signed_a, signed_b) {
            (true, true) | (false, false) => Some(if bits_a > bits_b { a.clone() } else { b.clone() }),
            _ if bits_a.max(bits_b) <= 63 => Some(Int64),
            _ => None,
        };
    }
    if let (Some(bits_a), Some(bits_b)) = (float(a), float(b)) {
        return Some(if bits_a > bits_b { a.clone() } else { b.clone() });
    }
    let (bits, float_bits) = match (integer(a), float(a), integer(b), float(b)) {
        (Some((_, bits)), _, _, Some(float)) | (_, Some(float), Some((_, bits)), _) => (bits, float),
        _ => return None,
    };
    match bits <= 53 {
        true if bits <= float_bits => Some(if float(a).is_some() { a.clone() } else { b.clone() }),
        true => Some(Float64),
        false => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DataType::*;

    #[test]
    fn a_wider_type_holds_every_value_of_both_or_there_is_none() {
        let dictionary = Dictionary(Box::new(Int32), Box::new(Utf8));
        for (a, b, expected) in [
            (Int32, Int32, Some(Int32)),
            (Null, Utf8, Some(Utf8)),
            (Int32, Int64, Some(Int64)),
            (UInt8, UInt32, Some(UInt32)),
            (UInt32, Int8, Some(Int64)),
            (UInt64, Int64, None),
            (Float32, Float64, Some(Float64)),
            (Int16, Float32, Some(Float32)),
            (Int32, Float32, Some(Float64)),
            (Int64, Float64, None),
            (dictionary, Utf8, Some(LargeUtf8)),
            (Utf8View, Utf8, Some(LargeUtf8)),
            (Utf8, Int32, None),
            (Boolean, Int8, None),
        ] {
            assert_eq!(wider(&a, &b), expected, "{a} and {b}");
            assert_eq!(wider(&b, &a), expected, "{b} and {a}");
        }
    }

    #[test]
    fn columns_that_cannot_be_one_are_named_with_their_files() {
        let file = |name: &str, fields: Vec<(&str, DataType)>| {
            let fields = fields.into_iter().map(|(name, kind)| Field::new(name, kind, name == "n"));
            (PathBuf::from(name), Arc::new(Schema::new(fields.collect::<Vec<_>>())))
        };
        let files = [file("a", vec![("n", Null)]), file("b", vec![("n", Int32)]), file("c", vec![("n", Int64)])];
        assert_eq!(common(&files).unwrap().field(0), &Field::new("n", Int64, true));
        let message = |files: &[_]| common(files).unwrap_err().message;
        let [a, b, _] = files;
        let found = message(&[a.clone(), b, file("d", vec![("n", Boolean)])]);
        assert!(found.starts_with("column 'n' is Int32 in b and Boolean in d: no type holds both"), "{found}");
        let found = message(&[a, file("e", vec![("m", Null)])]);
        assert_eq!(found, "a has the columns n, and e has m");
    }
}
