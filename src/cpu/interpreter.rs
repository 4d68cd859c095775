//! The loop over a program's steps.

use super::kernel::{Kernel, Products};
use super::team::Team;
use super::weights::Weights;
use super::{attention, embed, glu, head_norm, join, mixture, norm, normalize, packed, pool, rotary, short_conv, sum};
use crate::batch::Batch;
use crate::executor::Dtype;
use crate::program::{Mixture, Op, Plan, Program, Value};
use std::ops::Range;

/// Memory that a thread keeps from batch to batch: it grows to the largest batch, and a batch allocates nothing.
#[derive(Default)]
pub struct Workspace {
    /// The plan's buffers. A value's rows lie at the front of its buffer, without gaps.
    pub buffers: Vec<Vec<f32>>,
    /// Of an embedding with a norm.
    sums: Vec<f32>,
    linear: packed::Scratch,
    mixture: mixture::Scratch,
}

impl Workspace {
    /// Makes room for a batch.
    pub fn prepare(&mut self, plan: &Plan, batch: &Batch) {
        self.buffers.resize_with(plan.buffers.len(), Vec::new);
        for (buffer, shape) in self.buffers.iter_mut().zip(&plan.buffers) {
            let len = shape.rows_in(batch.tokens(), batch.sequences()) * shape.cols;
            if buffer.len() < len {
                buffer.resize(len, 0.0);
            }
        }
    }
}

/// What one thread computes steps of.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    pub program: &'a Program,
    pub weights: &'a Weights,
    pub dtype: Dtype,
    pub plan: &'a Plan,
    pub team: &'a Team<'a>,
    pub batch: &'a Batch,
}

impl Pass<'_> {
    /// Computes the steps that are `needed`; `done(i)` is called after step `i`.
    pub fn run(&self, needed: &[bool], workspace: &mut Workspace, mut done: impl FnMut(usize)) {
        workspace.prepare(self.plan, self.batch);
        for i in (0..self.program.steps.len()).filter(|&i| needed[i]) {
            self.step(i, workspace);
            done(i);
        }
    }

    /// A value in the workspace's buffers, as long as the plan keeps it.
    pub fn value<'w>(&self, value: Value, buffers: &'w [Vec<f32>]) -> &'w [f32] {
        let shape = self.program.shape(value);
        let rows = shape.rows_in(self.batch.tokens(), self.batch.sequences());
        &buffers[self.plan.buffer_of[value.index()]][..rows * shape.cols]
    }

    /// The matrices of a mixture.
    pub fn experts(&self, op: &Mixture) -> mixture::Experts<'_> {
        let (up, down) = (self.weights.blocks(op.up), self.weights.blocks(op.down));
        let width = self.program.weight(op.up).rows / up.len();
        mixture::Experts { up, activation: op.activation, down, width }
    }

    /// Computes step `i`, after those that it reads, in a workspace that is prepared for the batch.
    pub fn step(&self, i: usize, workspace: &mut Workspace) {
        let Pass { program, weights, dtype, plan, team, batch } = *self;
        let step = &program.steps[i];
        // A step's own buffer is none of its inputs', so it can be taken out while they are read.
        let mut buffer = std::mem::take(&mut workspace.buffers[plan.buffer_of[i]]);
        let (rows, cols) = (step.shape.rows_in(batch.tokens(), batch.sequences()), step.shape.cols);
        let out = &mut buffer[..rows * cols];
        let value = |value: Value| self.value(value, &workspace.buffers);
        let part = |of: Value, rows: &Range<usize>| {
            let cols = program.shape(of).cols;
            &self.value(of, &workspace.buffers)[rows.start * cols..rows.end * cols]
        };
        match &step.op {
            Op::Embed(op) => embed::embed(op, batch, weights, cols, &mut workspace.sums, out),
            Op::Linear(op) => {
                let bias = op.bias.map(|bias| weights.rows(bias));
                let residual = op.residual.map(value);
                let (x, scratch) = (value(op.x), &mut workspace.linear);
                weights.packed(op.weight).multiply(team, x, bias, op.activation, residual, scratch, out);
            }
            Op::Norm(op) => team.run_rows(out, cols, &|rows, out| {
                norm::rows(&op.norm, part(op.x, &rows), weights, out);
                if let Some(residual) = op.residual {
                    sum::add(part(residual, &rows), out);
                }
            }),
            Op::Glu(op) => team.run_rows(out, cols, &|rows, out| {
                glu::glu(part(op.x, &rows), cols, op.activation, op.activated, out);
            }),
            Op::Mixture(op) => {
                match op.residual {
                    Some(residual) => out.copy_from_slice(value(residual)),
                    None => out.fill(0.0),
                }
                if let Some(bias) = op.bias {
                    out.chunks_exact_mut(cols).for_each(|out| sum::add(weights.rows(bias), out));
                }
                let (x, logits) = ((value(op.x), program.shape(op.x).cols), (value(op.logits), op.top));
                let (scratch, products) = (&mut workspace.mixture, &mut workspace.linear);
                mixture::mixture(team, self.experts(op), x, logits, scratch, products, (out, cols));
            }
            Op::HeadNorm(op) => team.run_rows(out, cols, &|rows, out| {
                head_norm::head_norm(op, part(op.qkv, &rows), cols, weights, out);
            }),
            Op::Rotary(op) => team.run_rows(out, cols, &|rows, out| {
                let positions = &batch.positions[rows.clone()];
                rotary::rotary(op, part(op.qkv, &rows), cols, weights.rows(op.table), positions, out);
            }),
            Op::Attention(op) => {
                let bias = attention::Bias::new(op, weights);
                let kernel = Kernel::best(Products::of_attention(dtype));
                let least_keys = attention::least_keys(kernel);
                attention::attention(kernel, least_keys, team, op, value(op.qkv), &bias, batch, out);
            }
            Op::ShortConv(op) => {
                let bias = op.bias.map(|bias| weights.rows(bias));
                short_conv::short_conv(value(op.bcx), weights.rows(op.weight), bias, cols, batch, out);
            }
            Op::Sum(op) => team.run_rows(out, cols, &|rows, out| {
                sum::sum(part(op.x, &rows), op.x_factor, part(op.other, &rows), op.factor, out);
            }),
            Op::Join(op) => join::join(op.parts.iter().map(|&part| (value(part), program.shape(part).cols)), cols, out),
            Op::Pool(op) => pool::pool(op, value(op.x), program.shape(op.x).cols, batch, out),
            Op::Normalize(op) => normalize::normalize(value(op.x), cols, out),
        }
        workspace.buffers[plan.buffer_of[i]] = buffer;
    }
}
