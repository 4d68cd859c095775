//! The definition of every op in f64, straight from the formulas in `src/program/op.rs`: plain loops over plain indices, no
//! blocking, nothing shared with an executor. What it says is right.

use lexel::batch::Batch;
use lexel::matrix::Matrix;
use lexel::program::{Activation, Attention, Embed, Index, Linear, Norm, Op, Pool, PoolMode};
use lexel::program::{Program, Rows, Value, WeightId, WeightSource};

/// A matrix of f64, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Wide {
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<f64>,
}

impl Wide {
    fn zeros(rows: usize, cols: usize) -> Wide {
        Wide { rows, cols, data: vec![0.0; rows * cols] }
    }

    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.cols..(row + 1) * self.cols]
    }

    fn row_mut(&mut self, row: usize) -> &mut [f64] {
        &mut self.data[row * self.cols..(row + 1) * self.cols]
    }
}

impl From<&Matrix> for Wide {
    fn from(matrix: &Matrix) -> Wide {
        Wide { rows: matrix.rows, cols: matrix.cols, data: matrix.data.iter().map(|&x| f64::from(x)).collect() }
    }
}

/// Every step's value, in order.
pub fn run(program: &Program, weights: &dyn WeightSource, batch: &Batch) -> Vec<Wide> {
    let mut values: Vec<Wide> = Vec::new();
    for i in 0..program.steps.len() {
        let value = step(program, weights, batch, i, |input| values[input.index()].clone());
        values.push(value);
    }
    values
}

/// The value of step `i`, from the values that it reads.
pub fn step(
    program: &Program,
    weights: &dyn WeightSource,
    batch: &Batch,
    i: usize,
    value: impl Fn(Value) -> Wide,
) -> Wide {
    let weight = |id: WeightId| {
        let spec = program.weight(id);
        let data = spec.read_all(weights).expect("the weights of a test exist");
        Wide { rows: spec.rows, cols: spec.cols, data: data.into_iter().map(f64::from).collect() }
    };
    match &program.steps[i].op {
        Op::Embed(op) => embed(op, batch, weight),
        Op::Linear(op) => linear(op, &value(op.x), op.residual.map(value), weight),
        Op::Norm(op) => norm(op, &value(op.x), weight),
        Op::Attention(op) => attention(op, batch, &value(op.qkv)),
        Op::Pool(op) => pool(op, batch, &value(op.x)),
        Op::Normalize(op) => normalize(&value(op.x)),
    }
}

/// Rows of a value of this batch.
pub fn rows(rows: Rows, batch: &Batch) -> usize {
    match rows {
        Rows::Tokens => batch.ids.len(),
        Rows::Sequences => batch.starts.len() - 1,
    }
}

fn embed(op: &Embed, batch: &Batch, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let tables: Vec<Wide> = op.lookups.iter().map(|lookup| weight(lookup.table)).collect();
    let mut y = Wide::zeros(batch.ids.len(), tables[0].cols);
    for t in 0..y.rows {
        for (lookup, table) in op.lookups.iter().zip(&tables) {
            let number = match lookup.index {
                Index::Ids => batch.ids[t],
                Index::Positions => batch.positions[t],
                Index::Types => batch.types[t],
            };
            for c in 0..y.cols {
                y.row_mut(t)[c] += table.row((number + lookup.offset) as usize)[c];
            }
        }
    }
    y
}

fn linear(op: &Linear, x: &Wide, residual: Option<Wide>, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let (w, bias) = (weight(op.weight), op.bias.map(&weight));
    let mut y = Wide::zeros(x.rows, w.rows);
    for r in 0..y.rows {
        for c in 0..y.cols {
            let mut sum: f64 = x.row(r).iter().zip(w.row(c)).map(|(a, b)| a * b).sum();
            sum += bias.as_ref().map_or(0.0, |bias| bias.data[c]);
            let residual = residual.as_ref().map_or(0.0, |residual| residual.row(r)[c]);
            y.row_mut(r)[c] = activation(op.activation, sum) + residual;
        }
    }
    y
}

fn norm(op: &Norm, x: &Wide, weight: impl Fn(WeightId) -> Wide) -> Wide {
    let (w, bias) = (weight(op.weight), op.bias.map(&weight));
    let mut y = Wide::zeros(x.rows, x.cols);
    for r in 0..x.rows {
        let n = x.cols as f64;
        let mean = x.row(r).iter().sum::<f64>() / n;
        let variance = x.row(r).iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
        for c in 0..x.cols {
            let bias = bias.as_ref().map_or(0.0, |bias| bias.data[c]);
            y.row_mut(r)[c] = (x.row(r)[c] - mean) / (variance + f64::from(op.eps)).sqrt() * w.data[c] + bias;
        }
    }
    y
}

fn attention(op: &Attention, batch: &Batch, qkv: &Wide) -> Wide {
    let (d, all) = (op.head_dim, op.heads * op.head_dim);
    let mut y = Wide::zeros(qkv.rows, all);
    for s in 0..batch.starts.len() - 1 {
        let tokens = batch.starts[s] as usize..batch.starts[s + 1] as usize;
        for head in 0..op.heads {
            let (q, k, v) = (head * d, all + head * d, 2 * all + head * d);
            for t in tokens.clone() {
                let query = &qkv.row(t)[q..q + d];
                let score = |u: usize| {
                    let key = &qkv.row(u)[k..k + d];
                    f64::from(op.scale) * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>()
                };
                let scores: Vec<f64> = tokens.clone().map(score).collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let exps: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let total: f64 = exps.iter().sum();
                for (u, e) in tokens.clone().zip(&exps) {
                    for c in 0..d {
                        y.row_mut(t)[q + c] += e / total * qkv.row(u)[v + c];
                    }
                }
            }
        }
    }
    y
}

fn pool(op: &Pool, batch: &Batch, x: &Wide) -> Wide {
    let mut y = Wide::zeros(batch.starts.len() - 1, op.modes.len() * x.cols);
    for s in 0..y.rows {
        let (first, end) = (batch.starts[s] as usize, batch.starts[s + 1] as usize);
        let taking_part: Vec<usize> = (first..end).skip(batch.skip[s] as usize).collect();
        for (block, mode) in op.modes.iter().enumerate() {
            for c in 0..x.cols {
                let column = || taking_part.iter().map(|&t| x.row(t)[c]);
                let count = taking_part.len() as f64;
                y.row_mut(s)[block * x.cols + c] = match (mode, taking_part.first(), taking_part.last()) {
                    (PoolMode::Cls, None, _) if first < end => x.row(first)[c],
                    (_, None, _) | (_, _, None) => 0.0,
                    (PoolMode::Cls, Some(&t), _) => x.row(t)[c],
                    (PoolMode::LastToken, _, Some(&t)) => x.row(t)[c],
                    (PoolMode::Max, ..) => column().fold(f64::NEG_INFINITY, f64::max),
                    (PoolMode::Mean, ..) => column().sum::<f64>() / count,
                    (PoolMode::MeanSqrtLenTokens, ..) => column().sum::<f64>() / count.sqrt(),
                    (PoolMode::WeightedMean, ..) => {
                        let place = |t: usize| (t - first + 1) as f64;
                        let weighted: f64 = taking_part.iter().map(|&t| place(t) * x.row(t)[c]).sum();
                        weighted / taking_part.iter().map(|&t| place(t)).sum::<f64>()
                    }
                };
            }
        }
    }
    y
}

fn normalize(x: &Wide) -> Wide {
    let mut y = x.clone();
    for r in 0..x.rows {
        let length = x.row(r).iter().map(|x| x * x).sum::<f64>().sqrt();
        y.row_mut(r).iter_mut().for_each(|x| *x /= length.max(1e-12));
    }
    y
}

/// PyTorch's functions with their default parameters; erf from libm.
pub fn activation(activation: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p(); // ln(1 + e^x) without overflow
    let elu = |x: f64| if x > 0.0 { x } else { x.exp_m1() };
    let hardsigmoid = |x: f64| (x / 6.0 + 0.5).clamp(0.0, 1.0);
    match activation {
        Activation::Identity => x,
        Activation::Gelu => x * 0.5 * libm::erfc(-x / 2f64.sqrt()), // 1 + erf(z) = erfc(-z)
        Activation::GeluTanh => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            0.5 * x * (1.0 + inner.tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Relu => x.max(0.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Sigmoid => sigmoid(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::LeakyRelu(slope) => x.max(0.0) + f64::from(slope.value()) * x.min(0.0),
        Activation::Elu => elu(x),
        Activation::Selu if x > 0.0 => SELU_SCALE * x,
        Activation::Selu => SELU_SCALE * SELU_ALPHA * x.exp_m1(),
        Activation::Mish => x * softplus(x).tanh(),
        Activation::Softplus => softplus(x),
        Activation::Softsign => x / (1.0 + x.abs()),
        Activation::LogSigmoid => -softplus(-x),
        Activation::Tanhshrink => x - x.tanh(),
        Activation::Hardshrink if x.abs() > 0.5 => x,
        Activation::Hardshrink => 0.0,
        Activation::Softshrink => (x.abs() - 0.5).max(0.0).copysign(x),
        Activation::Hardsigmoid => hardsigmoid(x),
        Activation::Hardswish => x * hardsigmoid(x),
        Activation::Hardtanh => x.clamp(-1.0, 1.0),
    }
}

/// PyTorch's constants in full.
const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
