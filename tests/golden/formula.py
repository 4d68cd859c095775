"""Weights by a formula: the repository holds a line for each tensor and not its bytes.

Of a tensor with the seed s, mean m and amplitude a, the number i is m + a * u, rounded to float32 and then to float16, where
u is one of 2^24 values in [-1, 1):

    u = (z >> 40) / 2^23 - 1,    z = SplitMix64's mix of (s << 32 | i) + 1 steps (Steele et al. 2014)

`store` replaces each file X.safetensors that has no other tensors, but for single numbers, by X.formula.json, an object of
`name: [shape, s, m, a]`.
`tests/support/formula.rs` makes the file again.
"""

import json
import math

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from arch_weights import parameters_of

DEVIATION = math.sqrt(1 / 3)  # of u

known = {}  # the bytes of each tensor that was made so, and what makes them


def numbers(shape, seed, mean, amplitude):
    """As float32 that float16 holds exactly."""
    with np.errstate(over="ignore"):
        z = (np.uint64(seed << 32) + np.arange(math.prod(shape), dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    u = (z >> np.uint64(40)).astype(np.float64) / 2**23 - 1
    return (mean + amplitude * u).astype(np.float32).astype(np.float16).reshape(shape)


def randomise(model, seed, scale=None, bias=None):
    """As arch_weights.randomise, but by the formula."""
    with torch.no_grad():
        for i, (parameter, deviation, mean) in enumerate(parameters_of(model, scale, bias)):
            shape = tuple(parameter.shape)
            made = (seed * 1000 + i, round(mean, 6), float(f"{deviation / DEVIATION:.6g}"))
            values = numbers(shape, *made)
            known[values.tobytes()] = [list(shape), *made]
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    return model


def formula_of(values):
    """None if there is none."""
    if values.dtype == np.float16 and values.shape == (1,):
        return [[1], 0, float(values[0]), 0.0]
    formula = known.get(values.tobytes()) if values.dtype == np.float16 else None
    return formula if formula and formula[0] == list(values.shape) else None


def store(root):
    """Replaces what can be replaced, below `root`."""
    for path in sorted(root.rglob("*.safetensors")):
        try:
            formulas = {name: formula_of(values) for name, values in load_file(path).items()}
        except TypeError:  # bfloat16
            continue
        if all(formulas.values()):
            path.with_suffix(".formula.json").write_text(json.dumps(formulas, separators=(",", ":")) + "\n", "utf-8")
            path.unlink()


def expand(folder):
    """Makes the files again, in place of the formulas."""
    for path in sorted(folder.rglob("*.formula.json")):
        made = {name: numbers(*formula) for name, formula in json.loads(path.read_text("utf-8")).items()}
        save_file(made, path.with_name(path.name.replace(".formula.json", ".safetensors")), metadata={"format": "pt"})
        path.unlink()
