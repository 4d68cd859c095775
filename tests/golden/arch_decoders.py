"""Decoders used as encoders: Qwen3, Qwen2, Mistral, Llama, Gemma 3."""

from sentence_transformers.sentence_transformer.modules import Pooling as AnyPooling
from transformers import (
    Gemma2Config, Gemma2Model, Gemma3TextConfig, Gemma3TextModel, GemmaConfig, GemmaModel, Lfm2Config, Lfm2Model, LlamaConfig, LlamaModel, MistralConfig, MistralModel, Qwen2Config, Qwen2Model, Qwen3Config,
    Qwen3Model, Qwen3VLTextConfig, Qwen3VLTextModel,
)  # fmt: skip

import arch_tokenizers as tokenizers
from arch_build import Normalize, Pooling, dense

SMALL = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32)
INSTRUCT = "Instruct: Given a question, find the answer\nQuery:"


def theta(value, **more):
    return {"rope_type": "default", "rope_theta": value, **more}


def qwen3(b):
    words = tokenizers.qwen(model_max_length=280)
    base = dict(
        **SMALL,
        head_dim=8,
        vocab_size=len(words) + 3,
        max_position_embeddings=300,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    )
    base.update(bos_token_id=words.eos_token_id, eos_token_id=words.eos_token_id)
    config = Qwen3Config(**base, rope_parameters=theta(1000000.0))
    wrong = [{"rope_parameters": theta(10000.0)}, {"is_causal": False}, {"rms_norm_eps": 0.1}]
    modules = [Pooling(24, "lasttoken"), Normalize()]
    options = {"prompts": {"query": INSTRUCT, "document": ""}}
    b.sentence("qwen3", "qwen3", Qwen3Model(config), words, modules, seed=121, wrong=wrong, options=options)
    # The config of the published checkpoints, and the same weights seen by every token.
    old = {
        "architectures": ["Qwen3ForCausalLM"],
        "rope_parameters": ...,
        "rope_theta": 1000000,
        "rope_scaling": None,
        "layer_types": ...,
        "sliding_window": None,
        "use_sliding_window": False,
        "max_window_layers": 2,
    }
    b.overlay("qwen3-old", "qwen3", config=old)
    b.overlay(
        "qwen3-bidirectional", "qwen3", config={"is_causal": False}, **{"1_Pooling/config": {"pooling_mode": "mean"}}
    )
    # What sentence-transformers makes of a folder without modules.json: see _load_default_modules.
    config = Qwen3Config(
        **base,
        rope_parameters=theta(10000.0),
        use_sliding_window=True,
        sliding_window=6,
        max_window_layers=1,
        attention_bias=True,
    )
    wrong = [
        {"sliding_window": 7},
        {"sliding_window": 5},
        {"layer_types": ["sliding_attention", "full_attention"]},
        {"layer_types": ["full_attention", "full_attention"]},
    ]
    b.plain("qwen3-window", "qwen3", Qwen3Model(config), words, seed=122, wrong=wrong)
    # There the last token stands for the text if the checkpoint is a causal model's, else the mean.
    b.overlay("qwen3-window-causal", "qwen3-window", config={"architectures": ["Qwen3ForCausalLM"]})
    # And there (only there) a chat template is applied: every text becomes the message of a user.
    folder = b.overlay("qwen3-window-chat", "qwen3-window", chat=True)
    (folder / "chat_template.jinja").write_text(
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}",
        "utf-8",
    )


def qwen3_vl(b):
    words = tokenizers.qwen(model_max_length=200)
    rope = theta(5000000.0, mrope_section=[2, 1, 1], mrope_interleaved=True)
    config = Qwen3VLTextConfig(**SMALL, head_dim=8, vocab_size=len(words), max_position_embeddings=256, rope_parameters=rope)
    modules = [Pooling(24, "lasttoken"), Normalize()]
    wrong = [{"rope_parameters": {**rope, "rope_theta": 10000.0}}]
    b.sentence("qwen3-vl", "qwen3_vl_text", Qwen3VLTextModel(config), words, modules, seed=176, wrong=wrong)


def qwen2(b):
    words = tokenizers.qwen(model_max_length=200)
    config = Qwen2Config(
        **SMALL,
        vocab_size=len(words),
        max_position_embeddings=256,
        rope_parameters=theta(1000000.0),
        rms_norm_eps=1e-6,
        tie_word_embeddings=False,
    )
    modules = [Pooling(24, "lasttoken"), Normalize()]
    b.sentence(
        "qwen2",
        "qwen2",
        Qwen2Model(config),
        words,
        modules,
        seed=123,
        wrong=[{"rope_parameters": theta(10000.0)}, {"is_causal": False}],
    )
    # Of all flags for this transformers looks only at `is_causal`, except in Gemma 3.
    b.overlay(
        "qwen2-bidirectional", "qwen2", config={"is_causal": False, "rope_parameters": ..., "rope_theta": 1000000.0}
    )


def mistral(b):
    words = tokenizers.llama(model_max_length=200)
    base = dict(
        **SMALL, vocab_size=len(words), max_position_embeddings=256, rms_norm_eps=1e-5, rope_parameters=theta(10000.0)
    )
    config = MistralConfig(**base, head_dim=6, sliding_window=7)
    modules = [Pooling(24, "lasttoken"), Normalize()]
    wrong = [{"sliding_window": 8}, {"sliding_window": 6}, {"sliding_window": None}]
    b.sentence("mistral", "mistral", MistralModel(config), words, modules, seed=124, wrong=wrong)
    # Where every token sees both sides, the window includes its width: |i - j| <= 7, not < 7.
    b.overlay(
        "mistral-bidirectional",
        "mistral",
        config={"is_causal": False},
        wrong=[{"sliding_window": 6}, {"sliding_window": None}],
    )
    b.overlay(
        "mistral-full",
        "mistral",
        config={"sliding_window": None, "rope_parameters": ..., "rope_theta": 10000.0, "head_dim": ...},
    )


def llama(b):
    words = tokenizers.llama(append=False, model_max_length=200)
    base = dict(**SMALL, vocab_size=len(words), max_position_embeddings=256, rms_norm_eps=1e-5)
    config = LlamaConfig(**base, rope_parameters=theta(10000.0))
    b.sentence(
        "llama",
        "llama",
        LlamaModel(config),
        words,
        [AnyPooling(24, "weightedmean")],
        seed=125,
        wrong=[{"is_causal": False}],
    )
    # Llama 3's frequencies: three bands.
    scaled = dict(
        rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
    )
    b.overlay(
        "llama3-rope",
        "llama",
        config={"rope_parameters": {**scaled, "rope_theta": 10000.0}},
        wrong=[{"rope_parameters": theta(10000.0)}],
    )
    b.overlay(
        "llama3-rope-old", "llama", config={"rope_parameters": ..., "rope_theta": 10000.0, "rope_scaling": scaled}
    )


def gemma3(b):
    words = tokenizers.gemma(model_max_length=280)
    config = Gemma3TextConfig(
        **{**SMALL, "num_hidden_layers": 4, "num_attention_heads": 3, "num_key_value_heads": 1}, head_dim=10, vocab_size=len(words),
        max_position_embeddings=300, query_pre_attn_scalar=20, sliding_window=8, use_bidirectional_attention=True,
        layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={"sliding_attention": theta(10000.0), "full_attention": theta(1000000.0)},
    )  # fmt: skip
    wrong = [
        {"sliding_window": 6}, {"sliding_window": 10}, {"query_pre_attn_scalar": 10}, {"use_bidirectional_attention": False},
        {"hidden_activation": "silu"}, {"layer_types": ["full_attention"] * 4},
        {"rope_parameters": {"sliding_attention": theta(10000.0), "full_attention": theta(10000.0)}},
        {"rope_parameters": {"sliding_attention": theta(1000000.0), "full_attention": theta(1000000.0)}},
    ]  # fmt: skip
    modules = [Pooling(24, "mean"), dense(24, 32, 226), dense(32, 24, 227), Normalize()]
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    b.sentence(
        "gemma3",
        "gemma3_text",
        Gemma3TextModel(config),
        words,
        modules,
        seed=126,
        wrong=wrong,
        options={"prompts": prompts},
    )
    old = {
        "rope_parameters": ...,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": None,
        "layer_types": ...,
        "sliding_window_pattern": 3,
        "_sliding_window_pattern": ...,
    }
    b.overlay("gemma3-old", "gemma3", config=old, wrong=[{"sliding_window_pattern": 2}])
    b.overlay(
        "gemma3-causal",
        "gemma3",
        config={"use_bidirectional_attention": False, "sliding_window": 5},
        wrong=[{"sliding_window": 4}, {"sliding_window": 6}],
    )
    # Another flag for it, by which a window is as wide as it says on each side.
    config = {"use_bidirectional_attention": False, "is_causal": False, "sliding_window": 5}
    wrong = [{"sliding_window": 4}, {"sliding_window": 6}]
    b.overlay("gemma3-uncausal", "gemma3", config=config, wrong=wrong)


def gemma(b):
    words = tokenizers.gemma(model_max_length=280)
    base = dict(
        **{**SMALL, "num_attention_heads": 3, "num_key_value_heads": 1}, head_dim=10, vocab_size=len(words), max_position_embeddings=300,
    )  # fmt: skip
    wrong = [{"is_causal": False}, {"hidden_act": "relu"}]
    modules = [Pooling(24, "lasttoken"), Normalize()]
    b.sentence("gemma", "gemma", GemmaModel(GemmaConfig(**base)), words, modules, seed=171, wrong=wrong)
    b.overlay("gemma-gelu", "gemma", config={"hidden_act": "gelu"})
    # Caps that are felt, and a window in every second layer.
    config = Gemma2Config(**{**base, "num_hidden_layers": 3}, query_pre_attn_scalar=20, sliding_window=6, attn_logit_softcapping=2.0)
    wrong = [
        {"sliding_window": 5}, {"sliding_window": 7}, {"query_pre_attn_scalar": 10}, {"attn_logit_softcapping": 3.0},
        {"attn_logit_softcapping": None}, {"layer_types": ["full_attention"] * 3}, {"is_causal": False},
    ]  # fmt: skip
    b.sentence("gemma2", "gemma2", Gemma2Model(config), words, modules, seed=173, wrong=wrong)
    b.overlay("gemma2-bidirectional", "gemma2", config={"is_causal": False, "layer_types": ...})


def lfm2(b):
    words = tokenizers.qwen(model_max_length=200)
    base = dict(
        **{**SMALL, "num_hidden_layers": 4}, vocab_size=len(words), max_position_embeddings=256, rope_parameters=theta(10000.0),
        pad_token_id=words.pad_token_id, bos_token_id=words.eos_token_id, eos_token_id=words.eos_token_id, block_multiple_of=8,
        layer_types=["conv", "conv", "full_attention", "conv"],
    )  # fmt: skip
    modules = [Pooling(24, "mean")]
    wrong = [{"rope_parameters": theta(100.0)}, {"norm_eps": 0.1}]
    b.sentence("lfm2", "lfm2", Lfm2Model(Lfm2Config(**base)), words, modules, seed=174, wrong=wrong)
    old = {"layer_types": ..., "full_attn_idxs": [2], "rope_parameters": ..., "rope_theta": 10000.0, "intermediate_size": ..., "block_ff_dim": 32}
    b.overlay("lfm2-old", "lfm2", config=old)
    # Another number of taps, biases, and widths as they are stated.
    config = Lfm2Config(**base, conv_L_cache=4, conv_bias=True, block_auto_adjust_ff_dim=False, head_dim=8)
    b.sentence("lfm2-biased", "lfm2", Lfm2Model(config), words, modules, seed=175)


FAMILIES = (qwen3, qwen3_vl, gemma, lfm2, gemma3, qwen2, mistral, llama)
