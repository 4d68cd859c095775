//! The input behind the arguments: its format and its columns.

use crate::args::{ColumnArgs, FormatArgs, InputFormat, PairsArgs};
use crate::failure::Failure;
use crate::input::{Columns, Format, Input, same_format};
use std::path::{Path, PathBuf};

/// Files of texts.
pub fn texts(paths: &[PathBuf], args: &ColumnArgs) -> Result<Input<1>, Failure> {
    let columns = args.column.clone().map(|name| ([name.clone()], format!("--column {name}")));
    input(paths, columns, ["text"], &args.format)
}

/// Files of pairs.
pub fn pairs(args: &PairsArgs) -> Result<Input<2>, Failure> {
    let columns = match &args.columns {
        None => None,
        Some(names) => match names.split(',').collect::<Vec<_>>()[..] {
            [a, b] => Some(([a.to_string(), b.to_string()], format!("--columns {names}"))),
            _ => {
                return Err(Failure::usage(format!(
                    "--columns {names}: a pair has two texts: give two columns, e.g. --columns query,passage"
                )));
            }
        },
    };
    input(&args.input, columns, ["text_a", "text_b"], &args.format)
}

/// `columns` are those of the user with the option that names them; `default` are those without one.
fn input<const N: usize>(
    paths: &[PathBuf],
    columns: Option<([String; N], String)>,
    default: [&str; N],
    args: &FormatArgs,
) -> Result<Input<N>, Failure> {
    let files = crate::input::expand(paths)?;
    if args.input_format.is_none() {
        same_format(&files)?;
    }
    let format = match format::<N>(files.first().map_or(Path::new("-"), PathBuf::as_path), args.input_format)? {
        InputFormat::Txt if N > 1 => {
            return Err(Failure::usage("a .txt input has a text a line, no pairs: give .jsonl, .tsv or .csv"));
        }
        InputFormat::Txt => match columns {
            None => Format::Txt,
            Some((_, option)) => {
                return Err(Failure::usage(format!("{option}: a .txt input has no columns, a text is a whole line")));
            }
        },
        InputFormat::Jsonl => Format::Jsonl(named(columns, default)),
        InputFormat::Parquet => Format::Parquet(named(columns, default)),
        InputFormat::Tsv => Format::Tsv(table_columns(columns, default, args.no_header)?),
        InputFormat::Csv => Format::Csv(table_columns(columns, default, args.no_header)?),
    };
    if args.no_header && matches!(format, Format::Txt | Format::Jsonl(_) | Format::Parquet(_)) {
        return Err(Failure::usage("--no-header is for .tsv and .csv: the other formats have no header"));
    }
    Ok(Input { files, format })
}

/// From the option, else from the name's ending.
fn format<const N: usize>(path: &Path, format: Option<InputFormat>) -> Result<InputFormat, Failure> {
    let (endings, formats) = match N {
        1 => (".txt, .jsonl, .tsv, .csv, .parquet", "txt, jsonl, tsv, csv or parquet"),
        _ => (".jsonl, .tsv, .csv, .parquet", "jsonl, tsv, csv or parquet"),
    };
    match (format, ending(path).as_deref()) {
        (Some(format), _) => Ok(format),
        (None, Some("txt")) => Ok(InputFormat::Txt),
        (None, Some("jsonl" | "ndjson")) => Ok(InputFormat::Jsonl),
        (None, Some("tsv")) => Ok(InputFormat::Tsv),
        (None, Some("csv")) => Ok(InputFormat::Csv),
        (None, Some("parquet")) => Ok(InputFormat::Parquet),
        (None, _) if is_pipe(path) => {
            Err(Failure::usage(format!("the format of standard input is unknown: give --input-format {formats}")))
        }
        (None, _) => Err(Failure::usage(format!(
            "the format of {} is unknown (known endings: {endings}): give --input-format {formats}",
            path.display()
        ))),
    }
}

fn named<const N: usize>(columns: Option<([String; N], String)>, default: [&str; N]) -> [String; N] {
    columns.map_or_else(|| default.map(str::to_string), |(names, _)| names)
}

/// The columns of a .tsv or .csv file.
fn table_columns<const N: usize>(
    columns: Option<([String; N], String)>,
    default: [&str; N],
    no_header: bool,
) -> Result<Columns<N>, Failure> {
    if !no_header {
        return Ok(Columns::Named(named(columns, default)));
    }
    let mut places = std::array::from_fn(|i| i);
    if let Some((names, option)) = columns {
        for (place, name) in places.iter_mut().zip(&names) {
            *place = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1)).ok_or_else(|| {
                Failure::usage(format!("{option}: with --no-header, columns are numbers, from 1: '{name}' is none"))
            })?;
        }
    }
    Ok(Columns::Numbered(places))
}

/// Whether the path stands for standard input or output.
pub fn is_pipe(path: &Path) -> bool {
    ["-", "/dev/stdin", "/dev/stdout"].iter().any(|name| path.as_os_str() == *name)
}

/// What follows the last dot of the name, in lower case.
pub fn ending(path: &Path) -> Option<String> {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::USAGE;

    fn args(input_format: Option<InputFormat>, no_header: bool) -> FormatArgs {
        FormatArgs { input_format, no_header }
    }

    fn of_texts(path: &str, column: Option<&str>, format: FormatArgs) -> Result<Format<1>, Failure> {
        let args = ColumnArgs { column: column.map(str::to_string), format };
        texts(&[PathBuf::from(path)], &args).map(|input| input.format)
    }

    fn of_pairs(path: &str, columns: Option<&str>, format: FormatArgs) -> Result<Format<2>, Failure> {
        let args = PairsArgs { input: vec![path.into()], columns: columns.map(str::to_string), format };
        pairs(&args).map(|input| input.format)
    }

    #[test]
    fn formats_go_by_the_ending_unless_an_option_says_otherwise() {
        assert_eq!(of_texts("a/B.TXT", None, args(None, false)).unwrap(), Format::Txt);
        assert_eq!(of_texts("b.jsonl", None, args(None, false)).unwrap(), Format::Jsonl(["text".into()]));
        let jsonl = args(Some(InputFormat::Jsonl), false);
        assert_eq!(of_texts("b.txt", Some("x"), jsonl).unwrap(), Format::Jsonl(["x".into()]));
        for (path, column) in [("-", None), ("data", None), ("data.xlsx", None), ("b.txt", Some("x"))] {
            assert_eq!(of_texts(path, column, args(None, false)).unwrap_err().status, USAGE, "{path}");
        }
        for path in ["-", "data", "b.txt"] {
            assert_eq!(of_pairs(path, None, args(None, false)).unwrap_err().status, USAGE, "{path}");
        }
    }

    #[test]
    fn columns_have_names_or_without_a_header_numbers() {
        let named = |names: [&str; 2]| Columns::Named(names.map(str::to_string));
        assert_eq!(of_pairs("b.csv", None, args(None, false)).unwrap(), Format::Csv(named(["text_a", "text_b"])));
        assert_eq!(of_pairs("b.tsv", Some("2,1"), args(None, false)).unwrap(), Format::Tsv(named(["2", "1"])));
        let numbered = |places| Format::Tsv(Columns::Numbered(places));
        assert_eq!(of_pairs("b.tsv", None, args(None, true)).unwrap(), numbered([0, 1]));
        assert_eq!(of_pairs("b.tsv", Some("3,1"), args(None, true)).unwrap(), numbered([2, 0]));
        assert_eq!(of_texts("b.csv", None, args(None, true)).unwrap(), Format::Csv(Columns::Numbered([0])));
        for columns in ["a,b", "0,1", "1", "1,2,3", "", "-1,1"] {
            assert_eq!(of_pairs("b.tsv", Some(columns), args(None, true)).unwrap_err().status, USAGE, "{columns}");
        }
        assert_eq!(of_pairs("b.jsonl", None, args(None, true)).unwrap_err().status, USAGE);
        assert_eq!(of_texts("b.txt", None, args(None, true)).unwrap_err().status, USAGE);
    }
}
