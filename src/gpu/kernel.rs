//! A kernel as data: its WGSL file, the parts that it shares with others, and what it binds. Its text is
//! prelude + parts + file; equal texts are one pipeline.
//!
//! Conventions of every kernel:
//!
//! - The file `shaders/X.wgsl` has the entry point `X`, and opens with what one workgroup computes.
//! - `@group(0)` is the batch (`shaders/common/batch.wgsl`), the same bind group for all launches. `@group(1)` is the
//!   step's own: binding `i` is `Kernel::bindings[i]`.
//! - The prelude defines `Elem` and `Elem4` (what activations and matrices are stored in), the constants of the step, and
//!   `activation(x: vec4<f32>)`. Sums are in f32; conversions are written out: `vec4<f32>(x[i])`, `Elem4(sum)`.
//! - Rows of activations are padded to whole `Elem4`s. Padded columns hold any finite number; weights are zero there.
//! - A grid that is too long for one axis is folded, and one that takes too long is computed in several dispatches:
//!   `group_index` in `batch.wgsl` undoes both.
//! - At most 5 storage buffers in `@group(1)` (the batch has 3, and 8 a stage is wgpu's default limit), 256 invocations
//!   and 16 KiB of workgroup memory, unless `Target::limits` grants more.

use super::options::{Dtype, Features};
use super::tuning::Tuning;
use crate::program::Activation;
use std::borrow::Cow;
use std::fmt::Write as _;

/// A kernel: one WGSL file and what it binds in `@group(1)`.
#[derive(Debug)]
pub struct Kernel {
    /// The file's stem, the entry point, the debug label.
    pub name: &'static str,
    /// The file.
    pub source: &'static str,
    /// Files of `shaders/common/` that stand before it; `batch.wgsl` always does.
    pub parts: &'static [&'static str],
    /// `@group(1)`, in order of the binding numbers.
    pub bindings: &'static [Binding],
}

/// One binding of `@group(1)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// `var<uniform>`: the launch's `params`.
    Params,
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
}

/// The number of storage buffers that [`BATCH_PART`] binds.
pub const BATCH_STORAGE_BUFFERS: u32 = 3;

/// `@group(0)`: part of every kernel.
pub const BATCH_PART: &str = include_str!("../../shaders/common/batch.wgsl");

const ACTIVATION_PART: &str = include_str!("../../shaders/common/activation.wgsl");

/// What is generated before a kernel's own text: everything that is constant for a pipeline. The only place that writes
/// `enable`.
#[derive(Debug, Clone, PartialEq)]
pub struct Prelude {
    dtype: Dtype,
    activation: Activation,
    cooperative: bool,
    constants: Vec<(&'static str, Constant)>,
    parts: Vec<Cow<'static, str>>,
}

/// The value of a prelude constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Constant {
    /// `u32`
    U32(u32),
    /// `f32`, finite.
    F32(f32),
    /// `bool`
    Bool(bool),
}

impl From<u32> for Constant {
    fn from(value: u32) -> Constant {
        Constant::U32(value)
    }
}

impl From<usize> for Constant {
    fn from(value: usize) -> Constant {
        Constant::U32(value as u32)
    }
}

impl From<f32> for Constant {
    fn from(value: f32) -> Constant {
        Constant::F32(value)
    }
}

impl From<bool> for Constant {
    fn from(value: bool) -> Constant {
        Constant::Bool(value)
    }
}

impl Prelude {
    /// A prelude that stores in `dtype` and has no constants yet.
    pub fn new(dtype: Dtype) -> Prelude {
        Prelude {
            dtype,
            activation: Activation::Identity,
            cooperative: false,
            constants: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// `const NAME: type = value;`
    pub fn constant(mut self, name: &'static str, value: impl Into<Constant>) -> Prelude {
        self.constants.push((name, value.into()));
        self
    }

    /// What `activation(x)` computes: the identity otherwise.
    pub fn activation(mut self, activation: Activation) -> Prelude {
        self.activation = activation;
        self
    }

    /// The kernel uses cooperative matrices.
    pub fn cooperative(mut self) -> Prelude {
        self.cooperative = true;
        self
    }

    /// A file of `shaders/common/` that only this variant of the kernel includes, or generated text.
    pub fn part(mut self, text: impl Into<Cow<'static, str>>) -> Prelude {
        self.parts.push(text.into());
        self
    }

    /// What it stores in.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The whole text of a kernel: what is compiled, and the key of its pipeline.
    pub fn text(&self, kernel: &Kernel) -> String {
        let mut text = String::new();
        // No `enable subgroups;`: naga 30 refuses the line although it knows the functions.
        if self.dtype == Dtype::F16 {
            text.push_str("enable f16;\n");
        }
        if self.cooperative {
            text.push_str("enable wgpu_cooperative_matrix;\n");
        }
        let elem = self.dtype.name();
        let _ = writeln!(text, "alias Elem = {elem};\nalias Elem4 = vec4<{elem}>;");
        for (name, value) in &self.constants {
            let _ = match value {
                Constant::U32(value) => writeln!(text, "const {name}: u32 = {value}u;"),
                Constant::F32(value) => writeln!(text, "const {name}: f32 = {value:?};"),
                Constant::Bool(value) => writeln!(text, "const {name}: bool = {value};"),
            };
        }
        if self.activation != Activation::Identity {
            let _ = writeln!(text, "const STORES_F16: bool = {};", self.dtype == Dtype::F16);
            text.push_str(ACTIVATION_PART);
        }
        match self.activation {
            Activation::Identity => text.push_str("fn activation(x: vec4<f32>) -> vec4<f32> { return x; }\n"),
            Activation::LeakyRelu(slope) => {
                let call = format!("act_leaky_relu(x, {:?})", slope.value());
                let _ = writeln!(text, "fn activation(x: vec4<f32>) -> vec4<f32> {{ return {call}; }}");
            }
            other => {
                let call = format!("act_{}(x)", other.name());
                let call = match other {
                    // They multiply by x.
                    Activation::Gelu | Activation::GeluTanh | Activation::QuickGelu | Activation::Silu => call,
                    _ => format!("keep_nan({call}, x)"),
                };
                let _ = writeln!(text, "fn activation(x: vec4<f32>) -> vec4<f32> {{ return {call}; }}");
            }
        }
        let variant = self.parts.iter().map(AsRef::as_ref);
        for part in [BATCH_PART].into_iter().chain(kernel.parts.iter().copied()).chain(variant).chain([kernel.source]) {
            text.push_str(part);
            text.push('\n');
        }
        text
    }
}

/// The device that launches are chosen for.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is stored, and multiplied where nothing else is said: `F32` or `F16`.
    pub dtype: Dtype,
    /// Linear ops over tokens are computed in 8 bits.
    pub int8: bool,
    /// The device's features, masked by the caller's options.
    pub features: Features,
    /// The device's limits.
    pub limits: wgpu::Limits,
    /// A software adapter: unrolled loops compile slowly there (2 s for an 8x8 register tile on lavapipe), and many
    /// small workgroups cost more than few large ones.
    pub software: bool,
    /// Which kernels to take; the defaults for what it does not say.
    pub tuning: Tuning,
}

/// `cols` in whole `Elem4`s: the stride of an activation's rows.
pub fn stride4(cols: usize) -> usize {
    cols.div_ceil(4)
}
