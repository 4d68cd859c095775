"""The mathematics of families whose published repositories carry code of their own, in plain PyTorch.

transformers 5 cannot run that code any more: GTE v1.5 (`NewModel` of Alibaba-NLP/new-impl), JinaBERT v2
(jinaai/jina-bert-implementation, and jinaai/jina-bert-v2-qk-post-norm), the original Nomic BERT
(nomic-ai/nomic-bert-2048) and its mixture of experts. Written from the description of the architectures, not from that
code; parameters have the names of the published checkpoints. Every model takes one text: token ids and segment ids, [n].
Where transformers has a port of its own (GTE, Nomic v1.5), arch_cases.py checks that both agree.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "gelu_new": lambda x: F.gelu(x, approximate="tanh")}


def rotations(length, width, base, divide=1.0):
    """Cosines and sines, [length, width], of the half-split layout."""
    frequencies = 1.0 / (base ** (torch.arange(0, width, 2).float() / width)) / divide
    angles = torch.outer(torch.arange(length).float(), frequencies)
    return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def rotate(x, cos, sin):
    """x is [heads, n, width]; only the first columns turn where the rotation is narrower."""
    turned, rest = x[..., : cos.shape[-1]], x[..., cos.shape[-1] :]
    first, second = turned.chunk(2, -1)
    return torch.cat([turned * cos + torch.cat([-second, first], -1) * sin, rest], -1)


def split(x, heads):
    return x.reshape(x.shape[0], heads, -1).transpose(0, 1)


def attend(query, key, value, bias=0.0):
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + bias
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def holder(**modules):
    """A module that only names others."""
    module = nn.Module()
    for name, value in modules.items():
        setattr(module, name, value)
    return module


class Embeddings(nn.Module):
    def __init__(self, config, norm=True):
        super().__init__()
        self.word_embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        if config["type_vocab_size"] > 0:
            self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], config["hidden_size"])
        if norm:
            self.LayerNorm = nn.LayerNorm(config["hidden_size"], eps=config["layer_norm_eps"])

    def forward(self, ids, types):
        hidden = self.word_embeddings(ids)
        if hasattr(self, "token_type_embeddings"):
            hidden = hidden + self.token_type_embeddings(types)
        return self.LayerNorm(hidden) if hasattr(self, "LayerNorm") else hidden


class NewModel(nn.Module):
    """GTE v1.5. The `ntk` scaling is in force at every length: theta times the factor, then divided by factor^(2/width)."""

    def __init__(self, config, pooler=False):
        super().__init__()
        self.config = config
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        norm = lambda: nn.LayerNorm(hidden, eps=config["layer_norm_eps"])  # noqa: E731
        self.embeddings = Embeddings(config)
        layers = [
            holder(
                attention=holder(qkv_proj=nn.Linear(hidden, 3 * hidden), o_proj=nn.Linear(hidden, hidden)),
                mlp=holder(up_gate_proj=nn.Linear(hidden, 2 * inner, bias=False), down_proj=nn.Linear(inner, hidden)),
                attn_ln=norm(),
                mlp_ln=norm(),
            )
            for _ in range(config["num_hidden_layers"])
        ]
        self.encoder = holder(layer=nn.ModuleList(layers))
        if pooler:
            self.pooler = holder(dense=nn.Linear(hidden, hidden))

    def forward(self, ids, types):
        config, heads = self.config, self.config["num_attention_heads"]
        width, base, divide = config["hidden_size"] // heads, config["rope_theta"], 1.0
        if config["rope_scaling"] is not None:
            factor = config["rope_scaling"]["factor"]
            base, divide = base * factor, factor ** (2 / width)
        cos, sin = rotations(len(ids), width, base, divide)
        x = self.embeddings(ids, types)
        for layer in self.encoder.layer:
            query, key, value = (split(part, heads) for part in layer.attention.qkv_proj(x).chunk(3, -1))
            mixed = attend(rotate(query, cos, sin), rotate(key, cos, sin), value)
            x = layer.attn_ln(x + layer.attention.o_proj(mixed))
            up, gate = layer.mlp.up_gate_proj(x).chunk(2, -1)
            x = layer.mlp_ln(x + layer.mlp.down_proj(ACTIVATIONS[config["hidden_act"]](gate) * up))
        return x


class NewForSequenceClassification(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.new = NewModel(config, pooler=True)
        self.classifier = nn.Linear(config["hidden_size"], len(config["id2label"]))

    def forward(self, ids, types):
        return self.classifier(self.new.pooler.dense(self.new(ids, types)[0]).tanh())


def slopes(heads):
    """ALiBi's slope of every head."""
    power = 2 ** math.floor(math.log2(heads))
    found = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    if power < heads:
        found += slopes(2 * power)[0::2][: heads - power]
    return found


class JinaBertModel(nn.Module):
    """JinaBERT v2; the two published implementations differ in names and norms.

    With qk-post-norm the attention block ends in its own norm *and* is added to the layer's input once more:
    layer_norm_1(x + output.LayerNorm(x + dense(...))).
    """

    def __init__(self, config, pooler=False):
        super().__init__()
        self.config = config
        self.code = "qk-post-norm" in config["_name_or_path"]
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        norm = lambda: nn.LayerNorm(hidden, eps=config["layer_norm_eps"])  # noqa: E731
        self.embeddings = Embeddings(config)
        layers = []
        for _ in range(config["num_hidden_layers"]):
            projections = {name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")}
            if self.code:
                projections.update(layer_norm_q=norm(), layer_norm_k=norm())
            output = holder(dense=nn.Linear(hidden, hidden), LayerNorm=norm())
            layer = holder(attention=holder(self=holder(**projections), output=output))
            if self.code:
                layer.mlp = holder(
                    up_gated_layer=nn.Linear(hidden, 2 * inner, bias=False), down_layer=nn.Linear(inner, hidden)
                )
                layer.layer_norm_1, layer.layer_norm_2 = norm(), norm()
            else:
                layer.mlp = holder(
                    gated_layers=nn.Linear(hidden, 2 * inner, bias=False), wo=nn.Linear(inner, hidden), layernorm=norm()
                )
            layers.append(layer)
        self.encoder = holder(layer=nn.ModuleList(layers))
        if pooler:
            self.pooler = holder(dense=nn.Linear(hidden, hidden))

    def forward(self, ids, types):
        heads = self.config["num_attention_heads"]
        act = {"geglu": F.gelu, "reglu": F.relu}[self.config["feed_forward_type"]]
        places = torch.arange(len(ids))
        alibi = -torch.tensor(slopes(heads))[:, None, None] * (places[:, None] - places[None]).abs()
        x = self.embeddings(ids, types)
        for layer in self.encoder.layer:
            part = getattr(layer.attention, "self")
            query, key, value = part.query(x), part.key(x), part.value(x)
            if self.code:
                query, key = part.layer_norm_q(query), part.layer_norm_k(key)
            mixed = attend(split(query, heads), split(key, heads), split(value, heads), alibi)
            mixed = layer.attention.output.LayerNorm(x + layer.attention.output.dense(mixed))
            if self.code:
                x = layer.layer_norm_1(x + mixed)
                up, gate = layer.mlp.up_gated_layer(x).chunk(2, -1)
                x = layer.layer_norm_2(x + layer.mlp.down_layer(up * act(gate)))
            else:
                gate, up = layer.mlp.gated_layers(mixed).chunk(2, -1)
                x = layer.mlp.layernorm(mixed + layer.mlp.wo(act(gate) * up))
        return x


class JinaBertForSequenceClassification(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.bert = JinaBertModel(config, pooler=True)
        self.classifier = nn.Linear(config["hidden_size"], len(config["id2label"]))

    def forward(self, ids, types):
        return self.classifier(self.bert.pooler.dense(self.bert(ids, types)[0]).tanh())


class NomicBertModel(nn.Module):
    """Nomic BERT in its original dialect.

    Experts in every layer i with i mod `moe_every_n_layers` = 1: the weights are a softmax over all of them, the best
    `moe_top_k` count with just these weights, and the bias is added once. Beyond `max_trained_positions` a
    `rotary_scaling_factor` makes RoPE's base grow with the length.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        hidden, inner = config["n_embd"], config["n_inner"]
        norm = lambda: nn.LayerNorm(hidden, eps=config["layer_norm_epsilon"])  # noqa: E731
        first, second, own = config["mlp_fc1_bias"], config["mlp_fc2_bias"], config["qkv_proj_bias"]
        sizes = {
            "vocab_size": config["vocab_size"],
            "hidden_size": hidden,
            "type_vocab_size": config["type_vocab_size"],
        }
        self.embeddings = Embeddings(sizes, norm=False)
        self.emb_ln = norm()
        layers = []
        for i in range(config["n_layer"]):
            layer = holder(norm1=norm(), norm2=norm())
            layer.attn = holder(
                Wqkv=nn.Linear(hidden, 3 * hidden, bias=own), out_proj=nn.Linear(hidden, hidden, bias=own)
            )
            if self.is_moe(i):
                count = config["num_experts"]
                weights = nn.ParameterDict(
                    {name: nn.Parameter(torch.empty(count * inner, hidden)) for name in ("w1", "w2")}
                )
                experts = holder(mlp=weights, bias=nn.Parameter(torch.empty(hidden)))
                layer.mlp = holder(router=holder(layer=nn.Linear(hidden, count, bias=False)), experts=experts)
            elif config["activation_function"] in ("swiglu", "geglu", "glu"):
                layer.mlp = holder(
                    fc11=nn.Linear(hidden, inner, bias=first), fc12=nn.Linear(hidden, inner, bias=first), fc2=nn.Linear(inner, hidden, bias=second)
                )  # fmt: skip
            else:
                layer.mlp = holder(fc1=nn.Linear(hidden, inner, bias=first), fc2=nn.Linear(inner, hidden, bias=second))
            layers.append(layer)
        self.encoder = holder(layers=nn.ModuleList(layers))

    def is_moe(self, i):
        every = self.config.get("moe_every_n_layers", 0)
        return every > 0 and i % every == 1

    def rotations(self, length, width):
        base, factor, trained = (
            self.config.get(key) for key in ("rotary_emb_base", "rotary_scaling_factor", "max_trained_positions")
        )
        if factor and length > trained:
            base = base * (factor * length / trained - (factor - 1)) ** (width / (width - 2))
        return rotations(length, width, base)

    def experts(self, mlp, x):
        inner = self.config["n_inner"]
        best, chosen = mlp.router.layer(x).softmax(-1).topk(self.config["moe_top_k"], dim=-1)
        rows = []
        for token, weights, experts in zip(x, best, chosen):
            row = torch.zeros_like(token)
            for weight, expert in zip(weights, experts.tolist()):
                part = slice(expert * inner, (expert + 1) * inner)
                row = row + weight * (F.gelu(mlp.experts.mlp["w1"][part] @ token) @ mlp.experts.mlp["w2"][part])
            rows.append(row)
        return torch.stack(rows) + mlp.experts.bias

    def feed(self, layer, x):
        mlp, name = layer.mlp, self.config["activation_function"]
        if hasattr(mlp, "router"):
            return self.experts(mlp, x)
        if hasattr(mlp, "fc1"):
            return mlp.fc2(F.gelu(mlp.fc1(x)))
        gate = {"swiglu": F.silu, "geglu": F.gelu, "glu": torch.sigmoid}[name](mlp.fc12(x))
        return mlp.fc2(mlp.fc11(x) * gate)

    def forward(self, ids, types):
        heads = self.config["n_head"]
        width = int(self.config["n_embd"] // heads * self.config["rotary_emb_fraction"])
        cos, sin = self.rotations(len(ids), width)
        x = self.emb_ln(self.embeddings(ids, types))
        for layer in self.encoder.layers:
            query, key, value = (split(part, heads) for part in layer.attn.Wqkv(x).chunk(3, -1))
            mixed = attend(rotate(query, cos, sin), rotate(key, cos, sin), value)
            x = layer.norm1(x + layer.attn.out_proj(mixed))
            x = layer.norm2(x + self.feed(layer, x))
        return x


def model_of(config):
    """The class that config.json asks for, without weights."""
    name = config["architectures"][0]
    if name == "JinaBertForMaskedLM":  # the embedding models' checkpoints say so
        return JinaBertModel(config)
    return globals()[name](config)
