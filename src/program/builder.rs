//! Builds a program: one method an op, each returning the value it writes. Shapes follow from the arguments.

use super::*;
use crate::error::{Error, Result};
use std::collections::HashMap;

/// Collects the steps of a program. A model's `build` function calls it as a forward pass is written.
#[derive(Default)]
pub struct Builder<'a> {
    source: Option<&'a dyn WeightSource>,
    steps: Vec<Step>,
    weights: Vec<WeightSpec>,
    ids: HashMap<WeightSpec, WeightId>,
    module: usize,
    label: String,
    padding: Option<u32>,
    trim: Option<u32>,
    wide: bool,
    limit: Option<usize>,
    hidden_states: Vec<Value>,
}

impl<'a> Builder<'a> {
    /// An empty program.
    pub fn new() -> Builder<'a> {
        Builder::default()
    }

    /// An empty program of a model that is stored: what is there, and some of its numbers, decide what is computed.
    pub fn with_weights(source: &'a dyn WeightSource) -> Builder<'a> {
        Builder { source: Some(source), ..Builder::default() }
    }

    /// The numbers of the tensor `name`, `[n]`, of the current module, where they are part of the program.
    ///
    /// # Errors
    /// [`Error::Weight`] if there is no such tensor, or no weights to look at.
    pub fn numbers(&self, name: impl Into<String>, n: usize) -> Result<Vec<f32>> {
        let tensor = self.tensor(name, vec![n]);
        match self.source {
            Some(source) => source.read(&tensor, 0..n),
            None => {
                let (expected, found) = (format!("[{n}]"), "no weights to read it from".to_string());
                Err(Error::Weight { name: tensor.name, expected, found })
            }
        }
    }

    /// The same of one number.
    ///
    /// # Errors
    /// As [`Builder::numbers`].
    pub fn number(&self, name: impl Into<String>) -> Result<f32> {
        Ok(self.numbers(name, 1)?[0])
    }

    /// The shape of the tensor `name` of the current module, as it is stored. `None` if it is not, or without weights to look at.
    pub fn stored_shape(&self, name: &str) -> Option<Vec<usize>> {
        self.source?.shape(self.module, name)
    }

    /// Weights that are named from now on belong to this module of the repository.
    pub fn module(&mut self, module: usize) {
        self.module = module;
    }

    /// Steps from now on carry this label.
    pub fn label(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    /// Tokens of this id take no position.
    pub fn padding(&mut self, id: u32) {
        self.padding = Some(id);
    }

    /// No sequence will be longer than this: tables that are computed end there.
    pub fn set_limit(&mut self, tokens: Option<usize>) {
        self.limit = tokens;
    }

    /// The most tokens of a sequence, if that is known.
    pub fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Notes a hidden state: of the embeddings, then of each layer.
    pub fn hidden_state(&mut self, x: Value) {
        self.hidden_states.push(x);
    }

    /// The hidden states that were noted.
    pub fn hidden_states(&self) -> &[Value] {
        &self.hidden_states
    }

    /// A table of rotary positions. Equal tables are one weight.
    pub fn rotary_table(&mut self, table: RotaryTable) -> WeightId {
        self.weight(vec![Part::Rotary(table)])
    }

    /// Tokens of this id at the end of a sequence are left away.
    pub fn trim(&mut self, id: u32) {
        self.trim = Some(id);
    }

    /// Hidden states leave the range of f16.
    pub fn wide(&mut self) {
        self.wide = true;
    }

    /// A matrix `[rows, cols]` of the current module.
    pub fn matrix(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> WeightId {
        let part = self.tensor(name, vec![rows, cols]);
        self.weight(vec![part.into()])
    }

    /// A vector `[n]` of the current module.
    pub fn vector(&mut self, name: impl Into<String>, n: usize) -> WeightId {
        let part = self.tensor(name, vec![n]);
        self.weight(vec![part.into()])
    }

    /// A tensor of the current module, as a part for [`Builder::weight`].
    pub fn tensor(&self, name: impl Into<String>, shape: Vec<usize>) -> TensorSpec {
        TensorSpec { module: self.module, name: name.into(), shape }
    }

    /// The rows of several parts stacked, e.g. the weights of q, k and v. The same parts give the same weight.
    pub fn weight(&mut self, parts: Vec<Part>) -> WeightId {
        let spec = WeightSpec::stacked(parts);
        if let Some(&id) = self.ids.get(&spec) {
            return id;
        }
        let id = WeightId(self.weights.len() as u32);
        self.weights.push(spec.clone());
        self.ids.insert(spec, id);
        id
    }

    /// [`Op::Embed`] without a norm: `[tokens, cols of the tables]`.
    pub fn embed(&mut self, lookups: Vec<Lookup>) -> Value {
        self.embed_op(Embed { lookups, norm: None })
    }

    /// [`Op::Embed`] with a norm: `[tokens, cols of the tables]`.
    pub fn embed_normed(&mut self, lookups: Vec<Lookup>, norm: RowNorm) -> Value {
        self.embed_op(Embed { lookups, norm: Some(norm) })
    }

    fn embed_op(&mut self, op: Embed) -> Value {
        let cols = self.weights[op.lookups[0].table.index()].cols;
        assert!(op.lookups.iter().all(|lookup| self.weights[lookup.table.index()].cols == cols));
        op.norm.iter().for_each(|norm| self.check_norm(norm, cols));
        self.push(Op::Embed(op), Shape { rows: Rows::Tokens, cols })
    }

    /// [`Op::Linear`]: `[rows of x, rows of the weight]`.
    pub fn linear(&mut self, op: Linear) -> Value {
        let (x, weight) = (self.shape(op.x), &self.weights[op.weight.index()]);
        let shape = Shape { rows: x.rows, cols: weight.rows };
        assert_eq!(x.cols, weight.cols, "{}: columns of x and of the weight", self.label);
        assert!(op.bias.is_none_or(|bias| self.weights[bias.index()].rows == shape.cols));
        assert!(op.residual.is_none_or(|residual| self.shape(residual) == shape));
        self.push(Op::Linear(op), shape)
    }

    /// [`Op::Norm`]: `[as x]`.
    pub fn norm(&mut self, op: Norm) -> Value {
        let shape = self.shape(op.x);
        self.check_norm(&op.norm, shape.cols);
        assert!(op.residual.is_none_or(|residual| self.shape(residual) == shape));
        self.push(Op::Norm(op), shape)
    }

    /// [`Op::Glu`]: `[rows of x, half the columns]`.
    pub fn glu(&mut self, op: Glu) -> Value {
        let x = self.shape(op.x);
        assert!(x.cols.is_multiple_of(2), "{}: columns of x", self.label);
        self.push(Op::Glu(op), Shape { cols: x.cols / 2, ..x })
    }

    /// [`Op::Mixture`]: `[rows of x, rows of down]`.
    pub fn mixture(&mut self, op: Mixture) -> Value {
        let (x, logits) = (self.shape(op.x), self.shape(op.logits));
        let (up, down) = (&self.weights[op.up.index()], &self.weights[op.down.index()]);
        let shape = Shape { rows: x.rows, cols: down.rows };
        assert!(x.rows == logits.rows && x.cols == up.cols, "{}: columns of x and of the experts", self.label);
        assert!(up.rows == down.cols && up.rows.is_multiple_of(logits.cols), "{}: width of the experts", self.label);
        assert!((1..=logits.cols).contains(&op.top));
        assert!(op.bias.is_none_or(|bias| self.weights[bias.index()].rows == shape.cols));
        assert!(op.residual.is_none_or(|residual| self.shape(residual) == shape));
        self.push(Op::Mixture(op), shape)
    }

    /// [`Op::HeadNorm`]: `[as qkv]`.
    pub fn head_norm(&mut self, op: HeadNorm) -> Value {
        let shape = self.shape(op.qkv);
        assert!(shape.rows == Rows::Tokens && op.groups.iter().sum::<usize>() * op.group <= shape.cols);
        let parts = if op.groups[2] > 0 { 3 } else { 2 };
        assert_eq!(self.weights[op.weight.index()].rows, parts * op.group, "{}: rows of the weight", self.label);
        self.push(Op::HeadNorm(op), shape)
    }

    /// [`Op::Rotary`]: `[as qkv]`.
    pub fn rotary(&mut self, op: Rotary) -> Value {
        let shape = self.shape(op.qkv);
        assert!(shape.rows == Rows::Tokens && op.heads * op.head_dim <= shape.cols && op.head_dim.is_multiple_of(2));
        assert_eq!(self.weights[op.table.index()].cols, op.head_dim, "{}: columns of the table", self.label);
        self.push(Op::Rotary(op), shape)
    }

    /// [`Op::Attention`]: `[tokens, heads * head_dim]`.
    pub fn attention(&mut self, op: Attention) -> Value {
        let (cols, qkv) = (op.heads * op.head_dim, Shape { rows: Rows::Tokens, cols: op.qkv_cols() });
        assert_eq!(self.shape(op.qkv), qkv, "{}: columns of qkv", self.label);
        assert!(op.kv_heads > 0 && op.heads.is_multiple_of(op.kv_heads), "{}: heads over those of k and v", self.label);
        let is_disentangled = matches!(op.bias, Some(PositionBias::Disentangled { .. }));
        assert!(op.softcap.is_none_or(|softcap| softcap > 0.0 && !is_disentangled), "{}: the softcap", self.label);
        let table = op.table().map(|table| &self.weights[table.index()]);
        match op.bias {
            Some(PositionBias::Relative { .. }) => {
                assert!(table.is_some_and(|table| table.rows == op.heads && !table.cols.is_multiple_of(2)));
            }
            Some(PositionBias::Disentangled { distances, .. }) => {
                assert!(table.is_some_and(|table| (table.rows, table.cols) == (4 * distances.span, cols)));
                assert_eq!(op.kv_heads, op.heads, "{}: heads of k", self.label);
            }
            Some(PositionBias::Alibi) | None => {}
        }
        self.push(Op::Attention(op), Shape { rows: Rows::Tokens, cols })
    }

    /// [`Op::ShortConv`]: `[tokens, a third of the columns]`.
    pub fn short_conv(&mut self, op: ShortConv) -> Value {
        let (shape, weight) = (self.shape(op.bcx), &self.weights[op.weight.index()]);
        let cols = weight.cols;
        assert!(shape == Shape { rows: Rows::Tokens, cols: 3 * cols } && weight.rows > 0, "{}: columns", self.label);
        assert!(op.bias.is_none_or(|bias| self.weights[bias.index()].rows == cols));
        self.push(Op::ShortConv(op), Shape { cols, ..shape })
    }

    /// [`Op::Sum`]: `[as x]`.
    pub fn sum(&mut self, op: Sum) -> Value {
        let shape = self.shape(op.x);
        assert_eq!(self.shape(op.other), shape, "{}: the terms of a sum", self.label);
        self.push(Op::Sum(op), shape)
    }

    /// `x + other`.
    pub fn add(&mut self, x: Value, other: Value) -> Value {
        self.sum(Sum { x, x_factor: 1.0, other, factor: 1.0 })
    }

    /// [`Op::Join`]: `[rows, all columns]`. One value is itself.
    pub fn join(&mut self, parts: Vec<Value>) -> Value {
        if let [part] = parts[..] {
            return part;
        }
        assert!(!parts.is_empty(), "{}: nothing to join", self.label);
        let shapes: Vec<Shape> = parts.iter().map(|&part| self.shape(part)).collect();
        assert!(shapes.iter().all(|shape| shape.rows == shapes[0].rows), "{}: the rows of parts", self.label);
        let whole = |shape: &Shape| shape.cols.is_multiple_of(4);
        assert!(shapes[..shapes.len() - 1].iter().all(whole), "{}: the columns of parts", self.label);
        let cols = shapes.iter().map(|shape| shape.cols).sum();
        self.push(Op::Join(Join { parts }), Shape { cols, ..shapes[0] })
    }

    /// [`Op::Pool`]: `[sequences, modes * cols of x]`.
    pub fn pool(&mut self, op: Pool) -> Value {
        let x = self.shape(op.x);
        assert!(x.rows == Rows::Tokens && !op.modes.is_empty());
        assert!(!op.normalize || op.modes.len() == 1, "{}: only one mode is normalised at once", self.label);
        let cols = x.cols * op.modes.len();
        self.push(Op::Pool(op), Shape { rows: Rows::Sequences, cols })
    }

    /// [`Op::Normalize`]: `[as x]`.
    pub fn normalize(&mut self, x: Value) -> Value {
        self.push(Op::Normalize(Normalize { x }), self.shape(x))
    }

    /// The shape of a value.
    pub fn shape(&self, value: Value) -> Shape {
        self.steps[value.index()].shape
    }

    /// The columns of a weight.
    pub fn cols(&self, weight: WeightId) -> usize {
        self.weights[weight.index()].cols
    }

    /// The program, with its two outputs.
    pub fn finish(self, sentences: Value, tokens: Value) -> Program {
        Program {
            steps: self.steps,
            weights: self.weights,
            sentences,
            tokens,
            padding: self.padding,
            trim: self.trim,
            wide: self.wide,
        }
    }

    fn check_norm(&self, norm: &RowNorm, cols: usize) {
        let fits = |weight: WeightId| self.weights[weight.index()].rows == cols;
        assert!(norm.weights().all(fits), "{}: columns of x and of the norm", self.label);
    }

    fn push(&mut self, op: Op, shape: Shape) -> Value {
        let value = Value(self.steps.len() as u32);
        assert!(op.inputs().iter().all(|input| *input < value));
        self.steps.push(Step { op, shape, label: self.label.clone() });
        value
    }
}
