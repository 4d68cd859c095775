//! Which kernel each class of shapes gets on a device, as plain data: measured (`measure/`), or given.

use super::kernels::attention::Variant as AttentionVariant;
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

/// Batches by their longest sequence, as far as it decides about the kernel of attention. Batches are of like lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LengthClass {
    /// Up to 16: titles, queries.
    Tiny,
    /// Up to 32: sentences.
    Short,
    /// Up to 64.
    Medium,
    /// More.
    Long,
}

impl LengthClass {
    /// All, in ascending order.
    pub const ALL: [LengthClass; 4] = [LengthClass::Tiny, LengthClass::Short, LengthClass::Medium, LengthClass::Long];

    /// Its lengths.
    pub fn range(self) -> Range<u32> {
        match self {
            LengthClass::Tiny => 0..17,
            LengthClass::Short => 17..33,
            LengthClass::Medium => 33..65,
            LengthClass::Long => 65..u32::MAX,
        }
    }

    /// The longest that a sequence may be.
    pub fn most(self) -> usize {
        self.range().end as usize - 1
    }
}

/// Attention that gets the same kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AttentionClass {
    /// The batch.
    pub length: LengthClass,
    /// Heads of more than [`WIDE_HEAD`] columns.
    pub wide: bool,
}

/// Columns of a head beyond which it counts as wide.
pub const WIDE_HEAD: usize = 32;

impl AttentionClass {
    /// The class of attention with heads of so many columns.
    pub fn new(length: LengthClass, head_dim: usize) -> AttentionClass {
        AttentionClass { length, wide: head_dim > WIDE_HEAD }
    }
}

/// `17 to 32 tokens, heads beyond 32 columns`
impl std::fmt::Display for AttentionClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let range = self.length.range();
        match self.length {
            LengthClass::Long => write!(f, "{} tokens and more", range.start)?,
            _ => write!(f, "{} to {} tokens", range.start.max(1), range.end - 1)?,
        }
        write!(f, ", heads {} {WIDE_HEAD} columns", if self.wide { "beyond" } else { "up to" })
    }
}

/// The kernels of a device. A class that is not listed gets the default.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuning {
    linear: Vec<(Class, Variant)>,
    attention: Vec<(AttentionClass, AttentionVariant)>,
    /// Whether no kernel uses subgroup operations, because the device failed with them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_subgroups: bool,
}

impl Tuning {
    /// The same kernel for every product that it can compute.
    pub fn only(variant: Variant) -> Tuning {
        let classes = RowClass::ALL.into_iter().flat_map(|rows| [false, true].map(|wide| Class { rows, wide }));
        Tuning { linear: classes.map(|class| (class, variant)).collect(), ..Tuning::default() }
    }

    /// The same kernel for all attention that it can compute.
    pub fn only_attention(variant: AttentionVariant) -> Tuning {
        let classes = LengthClass::ALL.into_iter().flat_map(|length| [false, true].map(|wide| (length, wide)));
        let class = |(length, wide)| (AttentionClass { length, wide }, variant);
        Tuning { attention: classes.map(class).collect(), ..Tuning::default() }
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

    /// The kernel of a class of attention.
    pub fn attention(&self, class: AttentionClass) -> Option<AttentionVariant> {
        self.attention.iter().find(|(of, _)| *of == class).map(|&(_, variant)| variant)
    }

    /// Sets it.
    pub fn set_attention(&mut self, class: AttentionClass, variant: AttentionVariant) {
        self.attention.retain(|(of, _)| *of != class);
        self.attention.push((class, variant));
    }
}
