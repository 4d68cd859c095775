//! The names under which configurations store activations.

use crate::checkpoint::JsonFile;
use crate::error::Result;
use crate::program::{Activation, Slope};

/// The activation that a backbone's `config.json` names under `key`.
pub(super) fn hidden_act(config: &JsonFile, key: &str, default: &str) -> Result<Activation> {
    named(config, key, config.str_or(key, default)?)
}

/// The activation of that name, which stands under `key` alone or with something else.
pub(super) fn named(config: &JsonFile, key: &str, name: &str) -> Result<Activation> {
    find(HIDDEN_ACT, name).map_err(|known| config.unsupported(key, known))
}

/// `hidden_act` and its relatives: the keys of transformers' `ACT2FN`.
const HIDDEN_ACT: &[(&str, Activation)] = &[
    ("gelu", Activation::Gelu),
    ("gelu_python", Activation::Gelu),
    ("gelu_new", Activation::GeluTanh),
    ("gelu_fast", Activation::GeluTanh),
    ("gelu_accurate", Activation::GeluTanh),
    ("gelu_pytorch_tanh", Activation::GeluTanh),
    ("gelu_python_tanh", Activation::GeluTanh),
    ("quick_gelu", Activation::QuickGelu),
    ("relu", Activation::Relu),
    ("relu6", Activation::Relu6),
    ("leaky_relu", Activation::LeakyRelu(Slope::LEAKY)),
    ("silu", Activation::Silu),
    ("swish", Activation::Silu),
    ("mish", Activation::Mish),
    ("tanh", Activation::Tanh),
    ("sigmoid", Activation::Sigmoid),
    ("linear", Activation::Identity),
];

/// `activation_function` of a Dense module: the last component of the PyTorch class path, whose parameters are the
/// defaults (the reference stores only the class). PReLU, whose slope is learned, is not here: `head.rs` reads it.
pub(super) const TORCH_CLASS: &[(&str, Activation)] = &[
    ("Identity", Activation::Identity),
    ("Tanh", Activation::Tanh),
    ("GELU", Activation::Gelu),
    ("ReLU", Activation::Relu),
    ("Sigmoid", Activation::Sigmoid),
    ("SiLU", Activation::Silu),
    ("ReLU6", Activation::Relu6),
    ("LeakyReLU", Activation::LeakyRelu(Slope::LEAKY)),
    ("RReLU", Activation::LeakyRelu(Slope::RRELU)),
    ("ELU", Activation::Elu),
    ("CELU", Activation::Elu),
    ("SELU", Activation::Selu),
    ("Mish", Activation::Mish),
    ("Softplus", Activation::Softplus),
    ("Softsign", Activation::Softsign),
    ("LogSigmoid", Activation::LogSigmoid),
    ("Tanhshrink", Activation::Tanhshrink),
    ("Hardshrink", Activation::Hardshrink),
    ("Softshrink", Activation::Softshrink),
    ("Hardsigmoid", Activation::Hardsigmoid),
    ("Hardswish", Activation::Hardswish),
    ("Hardtanh", Activation::Hardtanh),
];

/// The activation of that name, or the list of known names for the error.
pub(super) fn find(table: &[(&str, Activation)], name: &str) -> Result<Activation, String> {
    let found = table.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation);
    found.ok_or_else(|| table.iter().map(|(known, _)| *known).collect::<Vec<_>>().join(", "))
}
