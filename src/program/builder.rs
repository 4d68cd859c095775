//! Builds a program: one method an op, each returning the value it writes. Shapes follow from the arguments.

use super::*;
use std::collections::HashMap;

/// Collects the steps of a program. A model's `build` function calls it as a forward pass is written.
#[derive(Debug, Default)]
pub struct Builder {
    steps: Vec<Step>,
    weights: Vec<WeightSpec>,
    ids: HashMap<WeightSpec, WeightId>,
    module: usize,
    label: String,
}

impl Builder {
    /// An empty program.
    pub fn new() -> Builder {
        Builder::default()
    }

    /// Weights that are named from now on belong to this module of the repository.
    pub fn module(&mut self, module: usize) {
        self.module = module;
    }

    /// Steps from now on carry this label.
    pub fn label(&mut self, label: impl Into<String>) {
        self.label = label.into();
    }

    /// A matrix `[rows, cols]` of the current module.
    pub fn matrix(&mut self, name: impl Into<String>, rows: usize, cols: usize) -> WeightId {
        let part = self.tensor(name, vec![rows, cols]);
        self.weight(vec![part])
    }

    /// A vector `[n]` of the current module.
    pub fn vector(&mut self, name: impl Into<String>, n: usize) -> WeightId {
        let part = self.tensor(name, vec![n]);
        self.weight(vec![part])
    }

    /// A tensor of the current module, as a part for [`Builder::weight`].
    pub fn tensor(&self, name: impl Into<String>, shape: Vec<usize>) -> TensorSpec {
        TensorSpec { module: self.module, name: name.into(), shape }
    }

    /// The rows of several tensors stacked, e.g. the weights of q, k and v. The same parts give the same weight.
    pub fn weight(&mut self, parts: Vec<TensorSpec>) -> WeightId {
        let spec = WeightSpec::stacked(parts);
        if let Some(&id) = self.ids.get(&spec) {
            return id;
        }
        let id = WeightId(self.weights.len() as u32);
        self.weights.push(spec.clone());
        self.ids.insert(spec, id);
        id
    }

    /// [`Op::Embed`]: `[tokens, cols of the tables]`.
    pub fn embed(&mut self, lookups: Vec<Lookup>) -> Value {
        let cols = self.weights[lookups[0].table.index()].cols;
        assert!(lookups.iter().all(|lookup| self.weights[lookup.table.index()].cols == cols));
        self.push(Op::Embed(Embed { lookups }), Shape { rows: Rows::Tokens, cols })
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
        assert_eq!(self.weights[op.weight.index()].rows, shape.cols, "{}: columns of x and of the norm", self.label);
        self.push(Op::Norm(op), shape)
    }

    /// [`Op::Attention`]: `[tokens, heads * head_dim]`.
    pub fn attention(&mut self, op: Attention) -> Value {
        let cols = op.heads * op.head_dim;
        assert_eq!(self.shape(op.qkv), Shape { rows: Rows::Tokens, cols: 3 * cols }, "{}: columns of qkv", self.label);
        self.push(Op::Attention(op), Shape { rows: Rows::Tokens, cols })
    }

    /// [`Op::Pool`]: `[sequences, modes * cols of x]`.
    pub fn pool(&mut self, op: Pool) -> Value {
        let x = self.shape(op.x);
        assert!(x.rows == Rows::Tokens && !op.modes.is_empty());
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

    /// The program, with its two outputs.
    pub fn finish(self, sentences: Value, tokens: Value) -> Program {
        Program { steps: self.steps, weights: self.weights, sentences, tokens }
    }

    fn push(&mut self, op: Op, shape: Shape) -> Value {
        let value = Value(self.steps.len() as u32);
        assert!(op.inputs().iter().all(|input| *input < value));
        self.steps.push(Step { op, shape, label: self.label.clone() });
        value
    }
}
