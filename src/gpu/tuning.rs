//! Which kernel each class of shapes gets on a device, as plain data: measured (`measure.rs`), or given.

use super::kernels::linear::Variant;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Rows of a product, as far as they decide about its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowClass {
    /// Up to 16: one short text. Reading the weight is all that takes time.
    Few,
    /// Up to 256: too few for large tiles to keep a large GPU busy.
    Medium,
    /// More.
    Many,
}

impl RowClass {
    /// All, in ascending order.
    pub const ALL: [RowClass; 3] = [RowClass::Few, RowClass::Medium, RowClass::Many];

    /// Its numbers of rows.
    pub fn range(self) -> Range<u32> {
        match self {
            RowClass::Few => 0..17,
            RowClass::Medium => 17..257,
            RowClass::Many => 257..u32::MAX,
        }
    }
}

/// Shapes of a product that get the same kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Class {
    /// Its rows.
    pub rows: RowClass,
    /// More than [`WIDE`] output columns.
    pub wide: bool,
}

/// Output columns beyond which a product counts as wide.
pub const WIDE: usize = 768;

impl Class {
    /// The class of a product with so many output columns.
    pub fn new(rows: RowClass, outer: usize) -> Class {
        Class { rows, wide: outer > WIDE }
    }
}

/// `17 to 256 rows, beyond 768 columns`
impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = self.rows.range();
        match self.rows {
            RowClass::Many => write!(f, "{} rows and more", range.start)?,
            _ => write!(f, "{} to {} rows", range.start.max(1), range.end - 1)?,
        }
        write!(f, ", {} {WIDE} columns", if self.wide { "beyond" } else { "up to" })
    }
}

/// The kernels of a device. A class that is not listed gets the default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Tuning {
    linear: Vec<(Class, Variant)>,
}

impl Tuning {
    /// The same kernel for every product that it can compute.
    pub fn only(variant: Variant) -> Tuning {
        let classes = RowClass::ALL.into_iter().flat_map(|rows| [false, true].map(|wide| Class { rows, wide }));
        Tuning { linear: classes.map(|class| (class, variant)).collect() }
    }

    /// The kernel of a class of products.
    pub fn linear(&self, class: Class) -> Option<Variant> {
        self.linear.iter().find(|(of, _)| *of == class).map(|&(_, variant)| variant)
    }

    /// Sets it.
    pub fn set_linear(&mut self, class: Class, variant: Variant) {
        self.linear.retain(|(of, _)| *of != class);
        self.linear.push((class, variant));
    }

    /// Whether every class gets the default.
    pub fn is_empty(&self) -> bool {
        self.linear.is_empty()
    }
}
