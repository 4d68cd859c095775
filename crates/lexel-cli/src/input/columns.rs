//! Which columns of a .tsv or .csv file hold the texts.

use super::choose;

/// Characters of a column's name that messages show: the first line may be data.
const NAME: usize = 40;

/// Names that messages show.
const NAMES: usize = 12;

/// The columns of `N` texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns<const N: usize> {
    /// By their names in the first record, the header.
    Named([String; N]),
    /// By their places, from 0. The first record is data.
    Numbered([usize; N]),
}

/// The records of a file as rows of one width, the first record's.
pub struct Table<const N: usize> {
    columns: Columns<N>,
    /// What makes columns, for messages.
    rule: &'static str,
    /// The columns that are kept beside the texts.
    keep: Vec<String>,
    /// Known from the first record on.
    layout: Option<Layout<N>>,
}

struct Layout<const N: usize> {
    places: [usize; N],
    /// Of the kept columns.
    kept: Vec<usize>,
    width: usize,
}

impl<const N: usize> Table<N> {
    /// Reads these columns; `rule` says what makes columns, for messages.
    pub fn new(columns: Columns<N>, rule: &'static str) -> Table<N> {
        Table { columns, rule, keep: Vec::new(), layout: None }
    }

    /// Keeps these columns too.
    pub fn keep(mut self, names: &[String]) -> Table<N> {
        self.keep = names.to_vec();
        self
    }

    /// Whether the first record is no data.
    pub fn has_header(&self) -> bool {
        matches!(self.columns, Columns::Named(_))
    }

    /// The kept fields of a record that [`texts`](Self::texts) has taken.
    pub fn kept(&self, fields: &[&str]) -> Vec<String> {
        let places = self.layout.as_ref().map(|layout| &layout.kept[..]).unwrap_or_default();
        places.iter().map(|&place| fields.get(place).copied().unwrap_or_default().to_string()).collect()
    }

    /// The texts of the next record; `None` for the header. Or what is wrong with the record, and what to do.
    pub fn texts(&mut self, fields: &[&str]) -> Result<Option<[String; N]>, String> {
        if self.layout.is_none() {
            let kept = self.keep.iter().map(|name| self.kept_place(name, fields)).collect::<Result<_, _>>()?;
            self.layout = Some(Layout { places: self.places(fields)?, kept, width: fields.len() });
            if self.has_header() {
                return Ok(None);
            }
        }
        let Some(layout) = &self.layout else { return Ok(None) };
        match fields.len() == layout.width {
            true => Ok(Some(layout.places.map(|place| fields[place].to_string()))),
            false => Err(format!("{}, where the first line has {} ({})", columns(fields), layout.width, self.rule)),
        }
    }

    /// At the end of the file: what was missing.
    pub fn end(&self) -> Result<(), &'static str> {
        match (&self.layout, &self.columns) {
            (None, Columns::Named(_)) => {
                Err("the file is empty: its first line should name the columns (see --no-header)")
            }
            _ => Ok(()),
        }
    }

    fn kept_place(&self, name: &str, first: &[&str]) -> Result<usize, String> {
        if self.has_header() {
            return find(name, first);
        }
        let place = name.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
        place
            .filter(|&place| place < first.len())
            .ok_or_else(|| format!("there is no column {name} to keep: with --no-header, columns are numbers, from 1"))
    }

    /// The places of the columns in the first record.
    fn places(&self, first: &[&str]) -> Result<[usize; N], String> {
        match &self.columns {
            Columns::Named(names) => {
                let mut places = [0; N];
                for (place, name) in places.iter_mut().zip(names) {
                    *place = find(name, first)
                        .map_err(|what| format!("{what}: {}, or --no-header if this line is data", choose::<N>()))?;
                }
                Ok(places)
            }
            Columns::Numbered(places) => match places.iter().find(|&&place| place >= first.len()) {
                Some(place) => Err(format!("{}: there is no column {} ({})", columns(first), place + 1, self.rule)),
                None => Ok(*places),
            },
        }
    }
}

fn find(name: &str, header: &[&str]) -> Result<usize, String> {
    let mut found = header.iter().enumerate().filter(|(_, field)| **field == name).map(|(place, _)| place);
    match (found.next(), found.next()) {
        (Some(place), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("several columns are named '{name}'")),
        (None, _) => {
            let names: Vec<String> = header.iter().take(NAMES).map(|field| format!("'{}'", short(field))).collect();
            let more = if header.len() > NAMES { ", ..." } else { "" };
            Err(format!("there is no column '{name}'; the columns are {}{more}", names.join(", ")))
        }
    }
}

fn short(name: &str) -> String {
    match name.char_indices().nth(NAME) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_string(),
    }
}

/// How many columns a line has.
fn columns(fields: &[&str]) -> String {
    match fields {
        [""] => "an empty line".to_string(),
        [_] => "1 column".to_string(),
        fields => format!("{} columns", fields.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: [&str; 2]) -> Table<2> {
        Table::new(Columns::Named(names.map(str::to_string)), "the rule")
    }

    #[test]
    fn a_header_is_no_record_and_its_names_find_the_columns() {
        let mut table = named(["passage", "query"]);
        assert!(table.end().is_err());
        assert_eq!(table.texts(&["query", "id", "passage"]), Ok(None));
        assert_eq!(table.texts(&["q", "1", "p"]), Ok(Some(["p".to_string(), "q".to_string()])));
        assert_eq!(table.end(), Ok(()));
        let mut table = Table::new(Columns::Numbered([2, 2]), "");
        assert_eq!(table.end(), Ok(()));
        assert_eq!(table.texts(&["a", "b", "c"]), Ok(Some(["c".to_string(), "c".to_string()])));
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_there() {
        let long = "x".repeat(100);
        let message = named(["a", "b"]).texts(&["a", &long]).unwrap_err();
        let expected = format!(
            "there is no column 'b'; the columns are 'a', '{}...': choose two by --columns A,B, or --no-header if this line \
             is data",
            &long[..NAME]
        );
        assert_eq!(message, expected);
        assert!(named(["a", "b"]).texts(&["b", "a", "b"]).unwrap_err().contains("several columns are named 'b'"));
        let message = named(["a", "b"]).texts(&["c"; 50]).unwrap_err();
        assert_eq!(message.matches("'c'").count(), NAMES);

        let mut table = Table::new(Columns::Numbered([0, 1]), "the rule");
        assert_eq!(table.texts(&["a"]).unwrap_err(), "1 column: there is no column 2 (the rule)");
        table.texts(&["a", "b"]).unwrap();
        assert_eq!(table.texts(&[""]).unwrap_err(), "an empty line, where the first line has 2 (the rule)");
        assert_eq!(table.texts(&["", "", ""]).unwrap_err(), "3 columns, where the first line has 2 (the rule)");
    }
}
