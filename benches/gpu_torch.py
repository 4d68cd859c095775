#!/usr/bin/env python3
"""A preset of `lexel bench` in PyTorch: the same shape, lengths and pooling, for `benches/gpu.sh` to divide by.

    benches/gpu_torch.py --preset bert-base --lengths short --texts 2000

Random weights, float16 and scaled dot product attention, on CUDA where there is one (else float32 on the CPU). As
sentence-transformers does: texts sorted by length, in batches of one count, padded to the longest of each. The best of several
batch sizes counts, after a warm-up of every shape. Plain torch, so that nothing else need be installed.
"""
import argparse, json, statistics, time

import torch
import torch.nn.functional as F

# vocabulary, hidden, layers, heads, intermediate, longest
BERTS = {
    "all-MiniLM-L6-v2": (30522, 384, 6, 12, 1536, 256),
    "bert-base": (30522, 768, 12, 12, 3072, 512),
    "bge-large": (30522, 1024, 24, 16, 4096, 512),
    "xlm-r-base": (250002, 768, 12, 12, 3072, 512),
    "modernbert-base": (50368, 768, 22, 12, 1152, 8192),
}
BATCHES = [32, 128, 512, 2048]
MOST_TOKENS = 131072  # a batch, padding included


def lengths(kind, count, longest):
    """The distributions of `lexel bench --lengths`: log-normal, clamped."""
    torch.manual_seed(1)
    if kind == "short":
        values = (26.3 * (0.36 * torch.randn(count)).exp()).round().clamp(8, 128)
    elif kind == "mixed":
        values = (40.0 * (1.05 * torch.randn(count)).exp()).round().clamp(8, 512)
    else:
        values = torch.full((count,), 256.0 if kind == "long" else float(kind))
    return sorted((min(int(value), longest) for value in values), reverse=True)


class Layer(torch.nn.Module):
    """BERT's layer (post-norm), or ModernBERT's (pre-norm, rotary, gated, local attention on two layers of three)."""

    def __init__(self, hidden, heads, inner, modern, local):
        super().__init__()
        self.heads, self.modern, self.local = heads, modern, local
        linear = lambda i, o: torch.nn.Linear(i, o, bias=not modern)
        self.qkv, self.out = linear(hidden, 3 * hidden), linear(hidden, hidden)
        self.up, self.down = linear(hidden, 2 * inner if modern else inner), linear(inner, hidden)
        self.norm1, self.norm2 = (torch.nn.LayerNorm(hidden, bias=not modern) for _ in range(2))

    def attend(self, x, masks, rotary):
        b, n, h = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, h // self.heads).permute(2, 0, 3, 1, 4)
        if self.modern:
            cos, sin = rotary
            turn = lambda t: t * cos + torch.cat([-t[..., t.shape[-1] // 2 :], t[..., : t.shape[-1] // 2]], -1) * sin
            q, k = turn(q), turn(k)
        a = F.scaled_dot_product_attention(q, k, v, attn_mask=masks[self.local])
        return self.out(a.transpose(1, 2).reshape(b, n, h))

    def forward(self, x, masks, rotary):
        if self.modern:
            x = x + self.attend(self.norm1(x), masks, rotary)
            gate, value = self.up(self.norm2(x)).chunk(2, -1)
            return x + self.down(F.gelu(gate) * value)
        x = self.norm1(x + self.attend(x, masks, rotary))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class Encoder(torch.nn.Module):
    def __init__(self, preset):
        super().__init__()
        vocabulary, hidden, layers, heads, inner, longest = BERTS[preset]
        self.modern = preset == "modernbert-base"
        self.cls = preset == "bge-large"
        self.head_dim = hidden // heads
        self.word = torch.nn.Embedding(vocabulary, hidden)
        self.position = None if self.modern else torch.nn.Embedding(longest + 2, hidden)
        self.norm = torch.nn.LayerNorm(hidden)
        self.layers = torch.nn.ModuleList(Layer(hidden, heads, inner, self.modern, self.modern and i % 3 != 0) for i in range(layers))

    def forward(self, ids, mask, full):
        n = ids.shape[1]
        at = torch.arange(n, device=ids.device)
        x = self.word(ids)
        x = self.norm(x if self.modern else x + self.position(at))
        # Without padding, no mask: the fastest kernels take none.
        everyone = None if full else mask[:, None, None, :]
        masks, rotary = {False: everyone}, None
        if self.modern:
            near = (at[:, None] - at[None, :]).abs() <= 64
            masks[True] = near[None, None] if everyone is None else near[None, None] & everyone
            frequencies = 1e4 ** (-torch.arange(0, self.head_dim, 2, device=ids.device) / self.head_dim)
            angles = torch.outer(at.float(), frequencies).repeat(1, 2)
            rotary = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
        for layer in self.layers:
            x = layer(x, masks, rotary)
        if self.cls:
            pooled = x[:, 0]
        else:
            weights = mask[..., None].to(x.dtype)
            pooled = (x * weights).sum(1) / weights.sum(1)
        return F.normalize(pooled.float(), dim=-1)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--preset", required=True, choices=BERTS)
    p.add_argument("--lengths", default="short", help="short, mixed, long or a number")
    p.add_argument("--texts", type=int, default=2000)
    p.add_argument("--repeats", type=int, default=3)
    a = p.parse_args()
    cuda = torch.cuda.is_available()
    device, dtype = ("cuda", torch.float16) if cuda else ("cpu", torch.float32)
    model = Encoder(a.preset).to(device, dtype).eval()
    texts = lengths(a.lengths, a.texts, BERTS[a.preset][-1])
    vocabulary = BERTS[a.preset][0]

    def batches(size):
        for first in range(0, len(texts), size):
            some = texts[first : first + size]
            ids = torch.randint(vocabulary, (len(some), some[0]))
            yield ids, torch.arange(some[0])[None] < torch.tensor(some)[:, None]

    @torch.inference_mode()
    def run(data):
        # Results are fetched a batch at a time, as sentence-transformers does for convert_to_numpy.
        for ids, mask in data:
            model(ids.to(device, non_blocking=True), mask.to(device, non_blocking=True), bool(mask.all())).cpu()

    best = None
    for size in BATCHES:
        if size > BATCHES[0] and (size * texts[0] > MOST_TOKENS or size >= 2 * len(texts)):
            continue
        data = list(batches(size))
        run(data[:: max(1, len(data) // 8)] if not cuda else data)
        seconds = []
        for _ in range(a.repeats):
            begun = time.perf_counter()
            run(data)
            seconds.append(time.perf_counter() - begun)
        median = statistics.median(seconds)
        if best is None or median < best[0]:
            best = median, size
    median, size = best
    name = torch.cuda.get_device_name() if cuda else "cpu"
    print(json.dumps({"preset": a.preset, "lengths": a.lengths, "texts_per_s": len(texts) / median, "tokens_per_s": sum(texts) / median,
                      "batch": size, "device": name, "dtype": str(dtype).removeprefix("torch."), "texts": len(texts)}, separators=(",", ":")))


if __name__ == "__main__":
    main()
