"""Random weights for any architecture: no bias is zero, no norm is one, and attention is not uniform."""

import torch
from torch import nn

QUERY_KEY = ("query", "key", "q_proj", "k_proj", "q_lin", "k_lin", ".q.", ".k.", "query_proj", "key_proj")
RELATIVE = ("relative_attention_bias", "rel_embeddings")


def is_norm(module):
    return "norm" in type(module).__name__.lower()


def spread_of(name, parameter, module):
    """The standard deviation and the mean of a parameter's numbers."""
    shape = parameter.shape
    if is_norm(module):
        # Gemma multiplies by one plus the weight.
        return 0.2, 0.0 if type(module).__name__.startswith("Gemma") or name.endswith("bias") else 1.0
    if isinstance(module, nn.Embedding):
        if any(part in name for part in RELATIVE):
            return 1.0, 0.0
        return 0.4 if "position" in name or "token_type" in name else 0.7, 0.0
    if "experts" in name and len(shape) == 2:  # [experts * inner, hidden], one matrix below the other
        return 1.4 / shape[1] ** 0.5, 0.0
    if "experts" in name or len(shape) == 1:
        return 0.3 if any(part in name for part in QUERY_KEY) else 0.15, 0.0
    gain = 1.6 if any(part in name for part in QUERY_KEY) else 1.3
    if "Wqkv" in name or "qkv_proj" in name:
        gain = 1.5
    if "router" in name:
        gain = 2.5
    return gain / shape[-1] ** 0.5, 0.0


def parameters_of(model, scale=None, bias=None):
    """Every parameter with the standard deviation and mean that it gets, in a fixed order.

    `scale` multiplies those whose name contains a key, `bias` is added likewise.
    """
    owners = {
        f"{prefix}.{name}" if prefix else name: module
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }
    for name, parameter in sorted(model.named_parameters()):
        deviation, mean = spread_of(name, parameter, owners[name])
        for part, factor in (scale or {}).items():
            if part in name:
                deviation, mean = deviation * factor, mean * factor
        mean += sum(shift for part, shift in (bias or {}).items() if part in name)
        yield parameter, deviation, mean


def randomise(model, seed, scale=None, bias=None):
    """Overwrites every parameter; see `parameters_of`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter, deviation, mean in parameters_of(model, scale, bias):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation + mean)
    return model
