//! Which value lives in which buffer, decided without a device.

use super::{Program, Shape, Value};

/// The buffers of a program. A step's output buffer is never one of its inputs' (a GPU may not bind a buffer for reading
/// and for writing in one dispatch), and the two outputs survive to the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// For each value, its buffer.
    pub buffer_of: Vec<usize>,
    /// The buffers: what they have a row of, and columns for the widest value that lives in them.
    pub buffers: Vec<Shape>,
}

impl Plan {
    /// A buffer is reused once the last reader of its value is done.
    pub fn reusing(program: &Program) -> Plan {
        let mut last_use: Vec<usize> = (0..program.steps.len()).collect();
        for (i, step) in program.steps.iter().enumerate() {
            for input in step.op.inputs() {
                last_use[input.index()] = i;
            }
        }
        for output in [program.sentences, program.tokens] {
            last_use[output.index()] = usize::MAX;
        }

        let mut plan = Plan { buffer_of: Vec::new(), buffers: Vec::new() };
        let mut free: Vec<usize> = Vec::new();
        for (i, step) in program.steps.iter().enumerate() {
            let buffer = plan.take(step.shape, &mut free);
            plan.buffer_of.push(buffer);
            // Freed only after the output has its buffer, so that no step writes what it reads. An unread value too.
            let mut done: Vec<Value> = step.op.inputs();
            done.push(Value(i as u32));
            done.sort_unstable();
            done.dedup();
            free.extend(done.iter().filter(|v| last_use[v.index()] == i).map(|v| plan.buffer_of[v.index()]));
        }
        plan
    }

    /// A buffer for each value: for traces.
    pub fn keeping_all(program: &Program) -> Plan {
        Plan {
            buffer_of: (0..program.steps.len()).collect(),
            buffers: program.steps.iter().map(|step| step.shape).collect(),
        }
    }

    /// Numbers that all buffers hold together for a batch.
    pub fn elements(&self, tokens: usize, sequences: usize) -> usize {
        self.buffers.iter().map(|shape| shape.rows_in(tokens, sequences) * shape.cols).sum()
    }

    /// The free buffer of the same rows that wastes least, widened if none is wide enough; else a new one.
    fn take(&mut self, shape: Shape, free: &mut Vec<usize>) -> usize {
        let best = (0..free.len()).filter(|&i| self.buffers[free[i]].rows == shape.rows).min_by_key(|&i| {
            let cols = self.buffers[free[i]].cols;
            if cols >= shape.cols { (0, cols - shape.cols) } else { (1, shape.cols - cols) }
        });
        match best {
            Some(i) => {
                let buffer = free.swap_remove(i);
                self.buffers[buffer].cols = self.buffers[buffer].cols.max(shape.cols);
                buffer
            }
            None => {
                self.buffers.push(shape);
                self.buffers.len() - 1
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::program::*;

    /// A tower of `layers` post-norm layers of seven steps each, pooled and normalised.
    pub fn tower(layers: usize, mode: PoolMode) -> Program {
        let mut b = Builder::new();
        let table = b.matrix("word", 100, 8);
        let norm = b.vector("norm", 8);
        let layer_norm = RowNorm { kind: NormKind::Layer, weight: norm, bias: None, eps: 1e-5 };
        let mut x = b.embed_normed(vec![Lookup { table, index: Index::Ids, offset: 0 }], layer_norm);
        for layer in 0..layers {
            let mut linear = |x, rows, cols, residual| {
                let weight = b.matrix(format!("{layer}.{rows}x{cols}"), rows, cols);
                b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual })
            };
            let qkv = linear(x, 24, 8, None);
            let a = b.attention(Attention { scale: 0.5, ..Attention::new(qkv, 2, 4) });
            let mut linear = |x, rows, cols, residual| {
                let weight = b.matrix(format!("{layer}.{rows}x{cols}"), rows, cols);
                b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual })
            };
            let h = linear(a, 8, 8, Some(x));
            let h = b.norm(Norm { x: h, norm: layer_norm, residual: None });
            let mut linear = |x, rows, cols, residual| {
                let weight = b.matrix(format!("{layer}.{rows}x{cols}"), rows, cols);
                b.linear(Linear { x, weight, bias: None, activation: Activation::Identity, residual })
            };
            let m = linear(h, 32, 8, None);
            let y = linear(m, 8, 32, Some(h));
            x = b.norm(Norm { x: y, norm: layer_norm, residual: None });
        }
        let out = b.pool(Pool { normalize: true, ..Pool::new(x, mode) });
        b.finish(out, x)
    }

    /// A step reads a value twice, and another between.
    fn joined() -> Program {
        let mut b = Builder::new();
        let mut embed = |name| {
            let table = b.matrix(name, 100, 8);
            b.embed(vec![Lookup { table, index: Index::Ids, offset: 0 }])
        };
        let (x, y) = (embed("x"), embed("y"));
        let twice = b.join(vec![x, y, x]);
        let [weight, other] = ["weight", "other"].map(|name| b.matrix(name, 8, 24));
        let linear = |b: &mut Builder, weight| {
            b.linear(Linear { x: twice, weight, bias: None, activation: Activation::Identity, residual: None })
        };
        let parts = [weight, other].map(|weight| linear(&mut b, weight));
        let sum = b.add(parts[0], parts[1]);
        b.finish(sum, sum)
    }

    #[test]
    fn no_step_writes_what_a_later_reader_still_needs() {
        let towers = [tower(1, PoolMode::Mean), tower(3, PoolMode::Mean), tower(3, PoolMode::Cls).pooled_early()];
        for program in towers.into_iter().chain([joined()]) {
            for plan in [Plan::reusing(&program), Plan::keeping_all(&program)] {
                // Replay: a buffer holds the value written last; every read must find its value still there.
                let mut holds = vec![None; plan.buffers.len()];
                for (i, step) in program.steps.iter().enumerate() {
                    let out = plan.buffer_of[i];
                    for input in step.op.inputs() {
                        let buffer = plan.buffer_of[input.index()];
                        assert_eq!(holds[buffer], Some(input));
                        assert_ne!(buffer, out);
                    }
                    assert!(plan.buffers[out].cols >= step.shape.cols && plan.buffers[out].rows == step.shape.rows);
                    holds[out] = Some(Value(i as u32));
                }
                for output in [program.sentences, program.tokens] {
                    assert_eq!(holds[plan.buffer_of[output.index()]], Some(output));
                }
            }
        }
    }

    #[test]
    fn depth_costs_no_memory() {
        let (one, ten) = (Plan::reusing(&tower(1, PoolMode::Mean)), Plan::reusing(&tower(10, PoolMode::Mean)));
        assert_eq!(one.buffers.len(), ten.buffers.len());
        assert_eq!(one.elements(1000, 10), ten.elements(1000, 10));
    }

    #[test]
    fn a_program_prints_one_line_a_step() {
        let program = tower(1, PoolMode::Mean);
        let text = program.to_string();
        assert_eq!(text.lines().count(), program.steps.len() + 1);
        assert!(text.contains("%2 [tokens, 8] = attention %1, 2 heads of 4, scale 0.5"), "{text}");
    }
}
