"""Folders in the shape of published repositories with code of their own; arch_reference.py computes them."""

import torch
from safetensors.torch import save_file
from transformers import GteConfig, GteModel, NomicBertConfig
from transformers import NomicBertModel as NativeNomicBertModel

import arch_tokenizers as tokenizers
from arch_build import Normalize, Pooling, write_json
from arch_reference import model_of
from formula import randomise

OLD = "sentence_transformers.models"


def auto_map(repository, configuration, modeling, config_class, **classes):
    """`configuration` and `modeling` are files of another repository."""
    found = {"AutoConfig": f"{repository}--{configuration}.{config_class}"}
    found.update({auto: f"{repository}--{modeling}.{name}" for auto, name in classes.items()})
    return found


def repository(
    b,
    name,
    family,
    config,
    words,
    *,
    seed,
    pooling=None,
    limit=None,
    prefix="",
    normalize=True,
    wrong=(),
    dtype=torch.float16,
    extra=None,
    **options,
):
    """`pooling` (cls, mean) makes it an embedding model of sentence-transformers 2; without, it is a plain classifier."""
    folder = b.folder(name, family, wrong=list(wrong), reference="arch_reference.py", cross=pooling is None)
    model = randomise(model_of(config), seed, **options)
    tensors = {prefix + key: value.to(dtype).contiguous() for key, value in model.state_dict().items()}
    save_file({**tensors, **(extra or {})}, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    words.save_pretrained(folder)
    if pooling is None:
        return folder
    types = [("", "Transformer"), ("1_Pooling", "Pooling")] + ([("2_Normalize", "Normalize")] if normalize else [])
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": path, "type": f"{OLD}.{kind}"} for i, (path, kind) in enumerate(types)],
    )
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    write_json(folder / "1_Pooling/config.json", {
        "word_embedding_dimension": config.get("hidden_size") or config["n_embd"], "pooling_mode_cls_token": pooling == "cls",
        "pooling_mode_mean_tokens": pooling == "mean", "pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False,
    })  # fmt: skip
    return folder


def new_config(words, **changes):
    classes = {
        "AutoModel": "NewModel",
        "AutoModelForMaskedLM": "NewForMaskedLM",
        "AutoModelForSequenceClassification": "NewForSequenceClassification",
    }
    config = dict(
        architectures=["NewModel"], attention_probs_dropout_prob=0.0,
        auto_map=auto_map("Alibaba-NLP/new-impl", "configuration", "modeling", "NewConfig", **classes), classifier_dropout=None,
        hidden_act="gelu", hidden_dropout_prob=0.1, hidden_size=24, id2label={"0": "LABEL_0"}, initializer_range=0.02,
        intermediate_size=32, label2id={"LABEL_0": 0}, layer_norm_eps=1e-12, layer_norm_type="layer_norm", logn_attention_clip1=False,
        logn_attention_scale=False, max_position_embeddings=512, model_type="new", num_attention_heads=3, num_hidden_layers=2,
        pack_qkv=True, pad_token_id=words.pad_token_id, position_embedding_type="rope", rope_scaling={"factor": 2.0, "type": "ntk"}, rope_theta=500000,
        torch_dtype="float16", transformers_version="4.39.1", type_vocab_size=0, unpad_inputs=False,
        use_memory_efficient_attention=False, vocab_size=len(words),
    )  # fmt: skip
    return {**config, **changes}


def gte(b):
    words = tokenizers.bert(model_max_length=512)
    wrong = [
        {"rope_scaling": None},
        {"rope_scaling": {"factor": 4.0, "type": "ntk"}},
        {"rope_theta": 10000},
        {"hidden_act": "relu"},
    ]
    # As gte-base-en-v1.5 (no token types), gte-large-en-v1.5 and stella (two), gte-multilingual-base (one, no scaling).
    repository(b, "gte-new", "new", new_config(words), words, seed=131, pooling="cls", limit=200, wrong=wrong)
    config = new_config(
        words, type_vocab_size=2, rope_theta=160000, num_attention_heads=2, rope_scaling={"factor": 8.0, "type": "ntk"}
    )
    repository(b, "gte-new-types", "new", config, words, seed=132, pooling="mean", limit=200, wrong=wrong[:1])
    words = tokenizers.xlm_roberta(model_max_length=512)
    config = new_config(
        words,
        type_vocab_size=1,
        rope_theta=20000,
        rope_scaling=None,
        hidden_act="gelu",
        architectures=["NewForSequenceClassification"],
    )
    config["auto_map"].pop("AutoModelForMaskedLM")
    repository(
        b,
        "gte-reranker",
        "new",
        config,
        words,
        seed=133,
        scale={"classifier.weight": 2.5},
        wrong=[{"rope_theta": 1000}],
    )
    # An embedding model that was saved with the prefix of its classifier, as gte-multilingual-base is.
    config = {**config, "architectures": ["NewModel"]}
    generator = torch.Generator().manual_seed(1)
    extra = {
        "classifier.weight": torch.randn(1, 24, generator=generator).half(),
        "classifier.bias": torch.zeros(1).half(),
    }
    repository(b, "gte-prefix", "new", config, words, seed=134, pooling="cls", prefix="new.", limit=512, extra=extra)
    # transformers' own port.
    config = GteConfig(
        vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, type_vocab_size=1,
        max_position_embeddings=300, rope_parameters={"rope_type": "default", "rope_theta": 20000.0}, pad_token_id=1,
    )  # fmt: skip
    words = tokenizers.xlm_roberta(model_max_length=280)
    b.sentence(
        "gte-native",
        "gte",
        GteModel(config),
        words,
        [Pooling(24, "cls")],
        seed=135,
        wrong=[{"rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}}],
    )


def nomic_config(words, **changes):
    code = ("nomic-ai/nomic-bert-2048", "configuration_hf_nomic_bert", "modeling_hf_nomic_bert", "NomicBertConfig")
    config = dict(
        activation_function="swiglu", architectures=["NomicBertModel"], attn_pdrop=0.0,
        auto_map=auto_map(*code, AutoModel="NomicBertModel", AutoModelForMaskedLM="NomicBertForPreTraining"), bos_token_id=None,
        causal=False, dense_seq_output=True, embd_pdrop=0.0, eos_token_id=None, fused_bias_fc=True, fused_dropout_add_ln=True,
        initializer_range=0.02, layer_norm_epsilon=1e-12, max_trained_positions=2048, mlp_fc1_bias=False, mlp_fc2_bias=False,
        model_type="nomic_bert", n_embd=24, n_head=3, n_inner=32, n_layer=2, n_positions=8192, pad_vocab_size_multiple=64,
        parallel_block=False, parallel_block_tied_norm=False, prenorm=False, qkv_proj_bias=False, reorder_and_upcast_attn=False,
        resid_pdrop=0.0, rotary_emb_base=1000, rotary_emb_fraction=1.0, rotary_emb_interleaved=False, rotary_emb_scale_base=None,
        rotary_scaling_factor=None, scale_attn_by_inverse_layer_idx=False, scale_attn_weights=True, summary_activation=None,
        summary_first_dropout=0.0, summary_proj_to_labels=True, summary_type="cls_index", summary_use_proj=True, torch_dtype="float32",
        transformers_version="4.37.2", type_vocab_size=2, use_cache=True, use_flash_attn=True, use_rms_norm=False, use_xentropy=True,
        vocab_size=(len(words) + 63) // 64 * 64,
    )  # fmt: skip
    return {**config, **changes}


def nomic(b):
    words = tokenizers.bert(model_max_length=512)
    wrong = [{"rotary_emb_base": 10000}, {"n_head": 4}]
    repository(
        b,
        "nomic-v1.5",
        "nomic_bert",
        nomic_config(words),
        words,
        seed=141,
        pooling="mean",
        limit=200,
        normalize=False,
        wrong=wrong,
    )
    # Biases, GeGLU, and a base that grows beyond 32 tokens.
    config = nomic_config(
        words,
        activation_function="geglu",
        qkv_proj_bias=True,
        mlp_fc1_bias=True,
        mlp_fc2_bias=True,
        rotary_scaling_factor=2,
        max_trained_positions=32,
    )
    wrong = [{"rotary_scaling_factor": None}, {"activation_function": "swiglu"}, {"max_trained_positions": 64}]
    repository(b, "nomic-scaled", "nomic_bert", config, words, seed=142, pooling="cls", limit=300, wrong=wrong)
    words = tokenizers.xlm_roberta(model_max_length=512)
    config = nomic_config(
        words, activation_function="gelu", qkv_proj_bias=True, mlp_fc1_bias=True, mlp_fc2_bias=True, type_vocab_size=1, n_layer=4,
        moe_every_n_layers=2, moe_top_k=2, num_experts=4, num_shared_experts=0, moe_impl="megablocks", moe_normalize_expert_weights=False,
        moe_resid_pdrop=0.0, moe_loss_weight=0, expert_choice_router=False, ffn_div=1, router_aux_loss_coef=0.1, rotary_emb_base=10000,
        layer_norm_epsilon=1e-5, pad_token_id=1, n_inner=16, torch_dtype="float16",
    )  # fmt: skip
    folder = repository(
        b,
        "nomic-v2-moe",
        "nomic_bert",
        config,
        words,
        seed=1434,  # no token's second and third expert are within 0.0029 of each other, which f16 would exchange
        pooling="mean",
        limit=200,
        wrong=[{"moe_top_k": 1}, {"moe_top_k": 3}],
    )
    prompts = {"query": "search_query: ", "passage": "search_document: ", "Classification": "classification: "}
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "__version__": {"sentence_transformers": "3.3.0"},
            "prompts": prompts,
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    # transformers' own port.
    words = tokenizers.bert(model_max_length=280)
    config = NomicBertConfig(
        vocab_size=len(words), hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=32, max_position_embeddings=300,
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
    )  # fmt: skip
    b.sentence(
        "nomic-native",
        "nomic_bert",
        NativeNomicBertModel(config),
        words,
        [Pooling(24, "mean"), Normalize()],
        seed=144,
        wrong=[{"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}],
    )


def jina_config(words, name, **changes):
    code = "jina-bert-v2-qk-post-norm" if "qk-post-norm" in name else "jina-bert-implementation"
    config = dict(
        _name_or_path=name, architectures=["JinaBertForMaskedLM"], attention_probs_dropout_prob=0.0, attn_implementation="torch",
        auto_map=auto_map(f"jinaai/{code}", "configuration_bert", "modeling_bert", "JinaBertConfig", AutoModel="JinaBertModel", AutoModelForMaskedLM="JinaBertForMaskedLM", AutoModelForSequenceClassification="JinaBertForSequenceClassification"),
        classifier_dropout=None, emb_pooler="mean", feed_forward_type="geglu", gradient_checkpointing=False, hidden_act="gelu",
        hidden_dropout_prob=0.1, hidden_size=24, initializer_range=0.02, intermediate_size=32, layer_norm_eps=1e-12,
        max_position_embeddings=8192, model_max_length=8192, model_type="bert", num_attention_heads=6, num_hidden_layers=2, pad_token_id=0,
        position_embedding_type="alibi", torch_dtype="float16", transformers_version="4.30.2", type_vocab_size=2, use_cache=True,
        vocab_size=len(words),
    )  # fmt: skip
    return {**config, **changes}


def jina(b):
    words = tokenizers.bert(model_max_length=512)
    config = jina_config(words, "jinaai/jina-bert-implementation")
    wrong = [{"feed_forward_type": "reglu"}, {"num_attention_heads": 4}]
    repository(
        b, "jina-v2", "jina_bert", config, words, seed=151, pooling="mean", limit=300, normalize=False, wrong=wrong
    )
    config = jina_config(
        words,
        "jinaai/jina-bert-implementation",
        feed_forward_type="reglu",
        num_attention_heads=4,
        architectures=["JinaBertForSequenceClassification"],
        id2label={"0": "LABEL_0"},
        label2id={"LABEL_0": 0},
        num_labels=1,
    )
    repository(
        b,
        "jina-reranker-v1",
        "jina_bert",
        config,
        words,
        seed=152,
        scale={"classifier.weight": 2.5},
        wrong=[{"feed_forward_type": "geglu"}],
    )
    words = tokenizers.roberta(model_max_length=512)
    config = jina_config(words, "jinaai/jina-bert-v2-qk-post-norm", num_attention_heads=3, pad_token_id=1)
    repository(
        b,
        "jina-v2-code",
        "jina_bert",
        config,
        words,
        seed=153,
        pooling="mean",
        limit=300,
        normalize=False,
        wrong=[{"num_attention_heads": 4}],
    )


FAMILIES = (nomic, gte, jina)
