"""Encoders that transformers itself knows: MPNet, ModernBERT, DeBERTa, T5, ALBERT, ELECTRA, EuroBERT, RoBERTa and kin."""

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig, AlbertModel, CamembertConfig, CamembertModel, DebertaV2Config, DebertaV2Model, DistilBertConfig,
    DistilBertModel, ElectraConfig, ElectraModel, EuroBertConfig, EuroBertModel, ModernBertConfig, ModernBertModel,
    MPNetConfig, MPNetModel, RobertaConfig, RobertaModel, T5Config, T5EncoderModel, XLMRobertaConfig, XLMRobertaModel,
)  # fmt: skip

import arch_tokenizers as tokenizers
from arch_build import Normalize, Pooling, dense

SMALL = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32)
TINY = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24)


def mpnet(b):
    words = tokenizers.mpnet(model_max_length=180)
    config = MPNetConfig(
        **SMALL, vocab_size=len(words), max_position_embeddings=182, layer_norm_eps=1e-5, relative_attention_num_buckets=32,
        pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    b.sentence(
        "mpnet",
        "mpnet",
        MPNetModel(config),
        words,
        [Pooling(24, "mean"), Normalize()],
        seed=101,
        scale={"word": 0.8, "position": 1.3},
    )


def modernbert_config(words, **changes):
    settings = dict(
        **SMALL, vocab_size=len(words) + 1, max_position_embeddings=300, local_attention=8, pad_token_id=words.pad_token_id,
        cls_token_id=words.cls_token_id, sep_token_id=words.sep_token_id, bos_token_id=words.cls_token_id,
        eos_token_id=words.sep_token_id, global_attn_every_n_layers=3,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 160000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    )  # fmt: skip
    settings.update({"num_hidden_layers": 4, **changes})
    return ModernBertConfig(**settings)


# The published dialect: see ModernBertConfig.__post_init__ and convert_rope_params_to_dict.
MODERNBERT_OLD = dict(
    rope_parameters=..., layer_types=..., global_rope_theta=160000.0, local_rope_theta=10000.0, global_attn_every_n_layers=3,
    position_embedding_type="absolute", reference_compile=None,
)  # fmt: skip


def modernbert(b):
    words = tokenizers.modernbert(model_max_length=280)
    types = lambda *kinds: {"layer_types": [f"{kind}_attention" for kind in kinds]}  # noqa: E731
    wrong = [
        {"local_attention": 6}, {"local_attention": 10}, types("full", "sliding", "sliding", "sliding"),
        types("sliding", "sliding", "sliding", "full"),
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 160000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 160000.0}}},
    ]  # fmt: skip
    model = ModernBertModel(modernbert_config(words))
    b.sentence("modernbert-mean", "modernbert", model, words, [Pooling(24, "mean")], seed=102, wrong=wrong)
    b.overlay(
        "modernbert-old",
        "modernbert-mean",
        config=MODERNBERT_OLD,
        wrong=[{"global_rope_theta": 10000.0}, {"local_attention": 6}],
    )
    # Every bias there is, another activation, odd window, every second layer global, cls.
    config = modernbert_config(
        words, num_hidden_layers=3, norm_bias=True, attention_bias=True, mlp_bias=True, hidden_activation="silu", local_attention=7,
        layer_types=["full_attention", "sliding_attention", "full_attention"], norm_eps=1e-3,
    )  # fmt: skip
    wrong = [
        {"norm_eps": 1e-5},
        {"hidden_activation": "gelu"},
        {"local_attention": 8},
        {"attention_bias": False},
        {"mlp_bias": False},
    ]
    b.sentence(
        "modernbert-biased",
        "modernbert",
        ModernBertModel(config),
        words,
        [Pooling(24, "cls"), Normalize()],
        seed=103,
        wrong=wrong,
    )


def eurobert(b):
    words = tokenizers.llama3(model_max_length=200)
    config = EuroBertConfig(
        **{**SMALL, "num_attention_heads": 4}, num_key_value_heads=2, vocab_size=len(words), max_position_embeddings=256, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 250000.0}, pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id, mask_token_id=words.mask_token_id,
    )  # fmt: skip
    wrong = [{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}, {"hidden_act": "gelu"}]
    b.sentence("eurobert", "eurobert", EuroBertModel(config), words, [Pooling(24, "mean")], seed=104, wrong=wrong)
    b.overlay(
        "eurobert-old",
        "eurobert",
        config={
            "rope_parameters": ...,
            "rope_theta": 250000,
            "rope_scaling": None,
            "auto_map": {
                "AutoConfig": "configuration_eurobert.EuroBertConfig",
                "AutoModel": "modeling_eurobert.EuroBertModel",
            },
            "clf_pooling": "late",
        },
    )


def deberta_config(words, **changes):
    settings = dict(
        **SMALL, vocab_size=len(words), max_position_embeddings=64, relative_attention=True, max_relative_positions=-1,
        position_buckets=8, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type="p2c|c2p", position_biased_input=False,
        type_vocab_size=0, layer_norm_eps=1e-7, pad_token_id=0, pooler_hidden_size=24, pooler_hidden_act="gelu",
    )  # fmt: skip
    settings.update(changes)
    return DebertaV2Config(**settings)


def deberta(b):
    words = tokenizers.deberta(model_max_length=200)
    wrong = [
        {"position_buckets": 7}, {"max_position_embeddings": 80}, {"norm_rel_ebd": "none"}, {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"]}, {"relative_attention": False},
    ]  # fmt: skip
    wrong[0] = {"max_relative_positions": 40}
    b.sentence(
        "deberta-v3",
        "deberta-v2",
        DebertaV2Model(deberta_config(words)),
        words,
        [Pooling(24, "mean")],
        seed=105,
        wrong=wrong,
    )
    b.overlay("deberta-v3-list", "deberta-v3", config={"pos_att_type": ["p2c", "c2p"], "max_relative_positions": 64})
    # Own projections for positions, absolute positions as well, token types, a narrower embedding, a convolution.
    config = deberta_config(
        words, share_att_key=False, pos_att_type="c2p|p2c", position_biased_input=True, type_vocab_size=2, embedding_size=16,
        max_position_embeddings=200, max_relative_positions=50, norm_rel_ebd="none",
    )  # fmt: skip
    b.sentence(
        "deberta-own",
        "deberta-v2",
        DebertaV2Model(config),
        words,
        [Pooling(24, "cls")],
        seed=106,
        wrong=[{"max_relative_positions": 40}],
    )
    config = deberta_config(
        words,
        conv_kernel_size=3,
        conv_act="tanh",
        position_buckets=-1,
        max_relative_positions=20,
        norm_rel_ebd="layer_norm",
    )
    b.sentence(
        "deberta-v2-conv",
        "deberta-v2",
        DebertaV2Model(config),
        words,
        [Pooling(24, "mean")],
        seed=107,
        wrong=[{"conv_act": "gelu"}],
    )


def t5(b):
    words = tokenizers.t5(model_max_length=256)
    base = dict(
        vocab_size=len(words) + 3, d_model=24, d_kv=6, num_heads=5, num_layers=3, d_ff=32, relative_attention_num_buckets=32,
        relative_attention_max_distance=128, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    wrong = [{"relative_attention_max_distance": 64}, {"layer_norm_epsilon": 0.1}]
    # As sentence-t5 and gtr: mean, Dense without bias and activation, Normalize.
    modules = [Pooling(24, "mean"), dense(24, 20, 208), Normalize()]
    b.sentence(
        "t5-relu",
        "t5",
        T5EncoderModel(T5Config(**base, feed_forward_proj="relu")),
        words,
        modules,
        seed=108,
        wrong=wrong,
        scale={".q.": 0.4},
    )
    # Only the encoder's name of the embedding, and a part of the decoder that was left in the file.
    stored = load_file(b.root / "t5-relu/model.safetensors")
    stored["encoder.embed_tokens.weight"] = stored.pop("shared.weight")
    stored["decoder.final_layer_norm.weight"] = torch.ones(24).half()
    folder = b.overlay(
        "t5-names", "t5-relu", config={"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}
    )
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    # INSTRUCTOR's: the prompt does not count.
    modules = [Pooling(24, "mean", include_prompt=False), Normalize()]
    model = T5EncoderModel(
        T5Config(
            **{**base, "relative_attention_num_buckets": 16, "relative_attention_max_distance": 40},
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
        )
    )
    b.sentence(
        "t5-gated",
        "t5",
        model,
        words,
        modules,
        seed=109,
        scale={".q.": 0.4},
        wrong=[
            {"dense_act_fn": "silu"},
            {"dense_act_fn": "gelu", "least": 1e-4},
            {"relative_attention_max_distance": 128},
        ],
        options={"prompts": {"query": "what is: ", "document": ""}},
    )
    # Published configs say it in one key; where the others stand as well, they win.
    b.overlay(
        "t5-gated-old",
        "t5-gated",
        config={"dense_act_fn": ..., "is_gated_act": ..., "scale_decoder_outputs": ..., "tie_word_embeddings": False},
        wrong=[{"feed_forward_proj": "gated-silu"}],
    )


def albert(b):
    words = tokenizers.albert(model_max_length=120)
    config = AlbertConfig(
        **{**TINY, "num_hidden_layers": 4}, vocab_size=len(words), embedding_size=10, num_hidden_groups=2, inner_group_num=2,
        max_position_embeddings=120, hidden_act="gelu_new", pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    wrong = [{"hidden_act": "gelu", "least": 1e-4}, {"num_hidden_layers": 3}]
    b.sentence("albert", "albert", AlbertModel(config), words, [Pooling(16, "mean")], seed=110, wrong=wrong)


def classic(b):
    """Families whose cross-encoders have golden data of their own already."""
    words = tokenizers.bert(model_max_length=120)
    config = ElectraConfig(**TINY, vocab_size=len(words), embedding_size=10, max_position_embeddings=120)
    b.sentence("electra", "electra", ElectraModel(config), words, [Pooling(16, "mean")], seed=111)
    words = tokenizers.roberta(model_max_length=120)
    settings = dict(**TINY, type_vocab_size=1, layer_norm_eps=1e-5, max_position_embeddings=122, pad_token_id=1)
    b.sentence(
        "roberta",
        "roberta",
        RobertaModel(RobertaConfig(**settings, vocab_size=len(words))),
        words,
        [Pooling(16, "mean")],
        seed=112,
    )
    words = tokenizers.xlm_roberta(model_max_length=120)
    b.sentence(
        "xlm-roberta",
        "xlm-roberta",
        XLMRobertaModel(XLMRobertaConfig(**settings, vocab_size=len(words))),
        words,
        [Pooling(16, "cls"), Normalize()],
        seed=113,
    )
    words = tokenizers.camembert(model_max_length=120)
    b.sentence(
        "camembert",
        "camembert",
        CamembertModel(CamembertConfig(**settings, vocab_size=len(words))),
        words,
        [Pooling(16, "mean")],
        seed=114,
    )
    words = tokenizers.distilbert(model_max_length=120)
    config = DistilBertConfig(
        vocab_size=len(words), dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=120
    )
    b.sentence(
        "distilbert",
        "distilbert",
        DistilBertModel(config),
        words,
        [Pooling(16, "mean"), dense(16, 12, 215, bias=True)],
        seed=115,
    )


FAMILIES = (mpnet, modernbert, eurobert, deberta, t5, albert, classic)
