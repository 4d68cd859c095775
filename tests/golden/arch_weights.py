"""Random weights for any architecture: no bias is zero, no norm is one, and attention is not uniform."""

import torch
from torch import nn

QUERY_KEY = ("query", "key", "q_proj", "k_proj", "q_lin", "k_lin", ".q.", ".k.", "query_proj", "key_proj")
RELATIVE = ("relative_attention_bias", "rel_embeddings")


def is_norm(module):
    return "norm" in type(module).__name__.lower()


def value_of(name, parameter, module, normal):
    shape = parameter.shape
    if is_norm(module):
        # Gemma multiplies by one plus the weight.
        centre = 0.0 if type(module).__name__.startswith("Gemma") or name.endswith("bias") else 1.0
        return normal(shape, 0.2, centre)
    if isinstance(module, nn.Embedding):
        if any(part in name for part in RELATIVE):
            return normal(shape, 1.0)
        small = "position" in name or "token_type" in name
        return normal(shape, 0.4 if small else 0.7)
    if "experts" in name and len(shape) == 2:  # [experts * inner, hidden], one matrix below the other
        return normal(shape, 1.4 / shape[1] ** 0.5)
    if "experts" in name or len(shape) == 1:
        return normal(shape, 0.3 if any(part in name for part in QUERY_KEY) else 0.15)
    gain = 1.6 if any(part in name for part in QUERY_KEY) else 1.3
    if "Wqkv" in name or "qkv_proj" in name:
        gain = 1.5
    if "router" in name:
        gain = 2.5
    return normal(shape, gain / shape[-1] ** 0.5)


def randomise(model, seed, scale=None, bias=None):
    """Overwrites every parameter. `scale` multiplies those whose name contains a key, `bias` is added likewise."""
    generator = torch.Generator().manual_seed(seed)
    owners = {
        f"{prefix}.{name}" if prefix else name: module
        for prefix, module in model.named_modules()
        for name, _ in module.named_parameters(recurse=False)
    }

    def normal(shape, std, mean=0.0):
        return torch.randn(shape, generator=generator) * std + mean

    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            value = value_of(name, parameter, owners[name], normal)
            for part, factor in (scale or {}).items():
                if part in name:
                    value = value * factor
            for part, shift in (bias or {}).items():
                if part in name:
                    value = value + shift
            parameter.copy_(value)
    return model
