//! Element-wise functions.

/// An element-wise function: PyTorch's modules of the same name, with their default parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the formulas stand beside each name
pub enum Activation {
    /// `x`
    Identity,
    /// `x * 0.5 * (1 + erf(x / sqrt 2))`: the exact form
    Gelu,
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`: gelu_new, gelu_pytorch_tanh, gelu_fast
    GeluTanh,
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `x * sigmoid(x)`: swish
    Silu,
    /// `tanh x`
    Tanh,
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` above 0, else `slope x`: LeakyReLU (0.01), RReLU (11 / 48 outside training), PReLU (learned)
    LeakyRelu(Slope),
    /// `x` above 0, else `e^x - 1`; CELU with alpha 1 is the same function
    Elu,
    /// `1.0507 * (x above 0, else 1.67326 (e^x - 1))`
    Selu,
    /// `x * tanh(softplus(x))`
    Mish,
    /// `ln(1 + e^x)`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `ln(sigmoid(x))`
    LogSigmoid,
    /// `x - tanh x`
    Tanhshrink,
    /// `x` where `|x| > 0.5`, else 0
    Hardshrink,
    /// `x - 0.5` above 0.5, `x + 0.5` below -0.5, else 0
    Softshrink,
    /// `min(max(x / 6 + 1/2, 0), 1)`
    Hardsigmoid,
    /// `x * hardsigmoid(x)`
    Hardswish,
    /// `min(max(x, -1), 1)`
    Hardtanh,
    /// `ln(1 + max(x, 0))`
    Log1pRelu,
    /// `ln(1 + ln(1 + max(x, 0)))`
    Log1pLog1pRelu,
}

/// The factor below 0 of [`Activation::LeakyRelu`]: an f32 as its bits, so that programs can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slope(u32);

impl Slope {
    /// That of torch.nn.LeakyReLU.
    pub const LEAKY: Slope = Slope::new(0.01);
    /// That of torch.nn.RReLU outside training: the middle of 1/8 and 1/3.
    pub const RRELU: Slope = Slope::new(11.0 / 48.0);

    /// A slope of this value.
    pub const fn new(value: f32) -> Slope {
        Slope(value.to_bits())
    }

    /// Its value.
    pub const fn value(self) -> f32 {
        f32::from_bits(self.0)
    }
}

impl Activation {
    /// Every activation, for tables of tests and messages.
    pub const ALL: [Activation; 24] = {
        use Activation::*;
        [
            Identity,
            Gelu,
            GeluTanh,
            QuickGelu,
            Relu,
            Silu,
            Tanh,
            Sigmoid,
            Relu6,
            LeakyRelu(Slope::LEAKY),
            Elu,
            Selu,
            Mish,
            Softplus,
            Softsign,
            LogSigmoid,
            Tanhshrink,
            Hardshrink,
            Softshrink,
            Hardsigmoid,
            Hardswish,
            Hardtanh,
            Log1pRelu,
            Log1pLog1pRelu,
        ]
    };

    /// The name in printed programs, and of the WGSL function.
    pub fn name(self) -> &'static str {
        use Activation::*;
        match self {
            Identity => "identity",
            Gelu => "gelu",
            GeluTanh => "gelu_tanh",
            QuickGelu => "quick_gelu",
            Relu => "relu",
            Silu => "silu",
            Tanh => "tanh",
            Sigmoid => "sigmoid",
            Relu6 => "relu6",
            LeakyRelu(_) => "leaky_relu",
            Elu => "elu",
            Selu => "selu",
            Mish => "mish",
            Softplus => "softplus",
            Softsign => "softsign",
            LogSigmoid => "log_sigmoid",
            Tanhshrink => "tanhshrink",
            Hardshrink => "hardshrink",
            Softshrink => "softshrink",
            Hardsigmoid => "hardsigmoid",
            Hardswish => "hardswish",
            Hardtanh => "hardtanh",
            Log1pRelu => "log1p_relu",
            Log1pLog1pRelu => "log1p_log1p_relu",
        }
    }
}
