"""Encoders of the years 2020 to 2026 that came to lexel late: ERNIE, data2vec, jina-embeddings-v3, UltraBERT, EmbeddingGemma 2."""

import torch
from transformers import (
    Data2VecTextConfig, Data2VecTextModel, EmbeddingGemma2TextConfig, EmbeddingGemma2TextModel, ErnieConfig, ErnieModel,
    JinaEmbeddingsV3Config, JinaEmbeddingsV3ForSequenceClassification, JinaEmbeddingsV3Model, UltrabertConfig,
    UltrabertForSequenceClassification, UltrabertModel,
)  # fmt: skip

import arch_tokenizers as tokenizers
from arch_build import Normalize, Pooling

TINY = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)


def theta(value, **more):
    return {"rope_type": "default", "rope_theta": value, **more}


def ernie(b):
    words = tokenizers.bert(model_max_length=120)
    config = ErnieConfig(**TINY, vocab_size=len(words), max_position_embeddings=120, use_task_id=True)
    wrong = [{"use_task_id": False}]
    b.sentence("ernie", "ernie", ErnieModel(config), words, [Pooling(16, "mean")], seed=151, wrong=wrong)
    b.overlay("ernie-no-task", "ernie", config={"use_task_id": False})


def data2vec(b):
    words = tokenizers.roberta(model_max_length=120)
    settings = dict(**TINY, type_vocab_size=1, layer_norm_eps=1e-5, max_position_embeddings=122, pad_token_id=1)
    model = Data2VecTextModel(Data2VecTextConfig(**settings, vocab_size=len(words)))
    b.sentence("data2vec", "data2vec-text", model, words, [Pooling(16, "mean")], seed=152)


def jina_v3(b):
    words = tokenizers.xlm_roberta(model_max_length=200)
    settings = dict(
        **TINY, vocab_size=len(words), max_position_embeddings=202, type_vocab_size=1, pad_token_id=1,
        rope_parameters=theta(20000.0),
    )  # fmt: skip
    wrong = [{"rope_parameters": theta(1000.0)}, {"hidden_act": "relu"}, {"layer_norm_eps": 0.1}]
    model = JinaEmbeddingsV3Model(JinaEmbeddingsV3Config(**settings))
    modules = [Pooling(16, "mean"), Normalize()]
    b.sentence("jina-v3", "jina_embeddings_v3", model, words, modules, seed=153, wrong=wrong)
    model = JinaEmbeddingsV3ForSequenceClassification(JinaEmbeddingsV3Config(**settings, num_labels=1))
    b.plain("jina-v3-reranker", "jina_embeddings_v3", model, words, seed=154, scale={"out_proj": 2.5})


def ultrabert(b):
    words = tokenizers.llama3(model_max_length=200)
    settings = dict(
        hidden_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32, vocab_size=len(words),
        max_position_embeddings=256, sliding_window=5, pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )  # fmt: skip
    wrong = [
        {"sliding_window": 4}, {"sliding_window": 6}, {"layer_types": ["full_attention"] * 3},
        {"rope_parameters": {"sliding_attention": theta(10000.0), "full_attention": theta(10000.0)}},
        {"rope_parameters": {"sliding_attention": theta(2560000.0), "full_attention": theta(2560000.0)}},
    ]  # fmt: skip
    model = UltrabertModel(UltrabertConfig(**settings))
    b.sentence("ultrabert", "ultrabert", model, words, [Pooling(24, "mean")], seed=155, wrong=wrong)
    # Once, lists said what each layer has.
    old = {
        "sliding_window": ...,
        "layer_types": ...,
        "rope_parameters": ...,
        "attention_windows": [5, 5, 0],
        "rope_theta": [10000.0, 10000.0, 2560000.0],
    }
    b.overlay("ultrabert-old", "ultrabert", config=old)
    for pooling in ("cls", "mean"):
        config = UltrabertConfig(**settings, num_labels=1, classifier_pooling=pooling)
        model = UltrabertForSequenceClassification(config)
        b.plain(f"ultrabert-reranker-{pooling}", "ultrabert", model, words, seed=156, scale={"classifier": 2.5})


def embedding_gemma2(b):
    words = tokenizers.gemma(model_max_length=280)
    settings = dict(
        vocab_size=len(words), hidden_size=24, intermediate_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        head_dim=10, max_position_embeddings=300, sliding_window=5, hidden_size_per_layer_input=8, embedding_dim=20,
        global_head_dim=12, num_global_key_value_heads=1, sliding_window_pattern=2,
    )  # fmt: skip
    wrong = [
        {"sliding_window": 4}, {"sliding_window": 6}, {"hidden_activation": "silu"}, {"rms_norm_eps": 0.01},
        {"rope_parameters": {"sliding_attention": theta(10000.0), "full_attention": theta(10000.0)}},
        {"rope_parameters": {"sliding_attention": theta(1000000.0), "full_attention": theta(1000000.0)}},
    ]  # fmt: skip
    model = EmbeddingGemma2TextModel(EmbeddingGemma2TextConfig(**settings))
    with torch.no_grad():
        for i, layer in enumerate(model.layers):  # no parameter, but stored
            layer.layer_scalar.fill_((0.5, 1.25, 0.75, 1.5)[i])
    prompts = {"query": "task: search result | query: ", "document": "title: none | text: "}
    modules = [Pooling(20, "mean"), Normalize()]
    options = {"prompts": prompts}
    b.sentence("embedding-gemma2", "embedding_gemma2_text", model, words, modules, seed=157, wrong=wrong, options=options)
    half = {
        "sliding_attention": theta(10000.0),
        "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.5},
    }
    less = {**half, "full_attention": {**half["full_attention"], "partial_rotary_factor": 0.25}}
    wrong = [{"rope_parameters": less}]
    b.overlay("embedding-gemma2-half", "embedding-gemma2", config={"rope_parameters": half}, wrong=wrong)


FAMILIES = (ernie, data2vec, jina_v3, ultrabert, embedding_gemma2)
