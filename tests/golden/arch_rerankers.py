"""Cross-encoders of every architecture: classification heads, and causal models that answer yes or no."""

from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder.modules import LogitScore
from transformers import (
    AlbertConfig, AlbertForSequenceClassification, DebertaV2ForSequenceClassification, EuroBertConfig,
    EuroBertForSequenceClassification, GemmaConfig, GemmaForCausalLM, ModernBertForSequenceClassification, MPNetConfig, MPNetForSequenceClassification, Qwen2Config,
    Qwen2ForCausalLM, Qwen2ForSequenceClassification, Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification,
)  # fmt: skip

import arch_tokenizers as tokenizers
from arch_build import edit_json
from arch_decoders import theta
from arch_encoders import deberta_config, modernbert_config
from arch_texts import EMPTY

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
DECODER = dict(
    **{**SMALL, "num_attention_heads": 4},
    num_key_value_heads=2,
    rope_parameters=theta(10000.0),
    max_position_embeddings=512,
)


def labels(*names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}


ONE = labels("LABEL_0")


def classifiers(b):
    words = tokenizers.modernbert(model_max_length=300)
    config = modernbert_config(
        words, **SMALL, **ONE, classifier_pooling="cls", classifier_bias=False, local_attention=12
    )
    wrong = [{"classifier_pooling": "mean"}, {"classifier_activation": "relu"}, {"local_attention": 8}]
    b.plain(
        "modernbert-reranker",
        "modernbert",
        ModernBertForSequenceClassification(config),
        words,
        seed=301,
        scale={"classifier.": 2.0},
        wrong=wrong,
    )
    b.overlay("modernbert-reranker-mean", "modernbert-reranker", config={"classifier_pooling": "mean"})

    words = tokenizers.deberta(model_max_length=200)
    config = deberta_config(
        words,
        **SMALL,
        **labels("contradiction", "entailment", "neutral"),
        pooler_hidden_size=16,
        max_position_embeddings=200,
    )
    b.plain(
        "deberta-nli",
        "deberta-v2",
        DebertaV2ForSequenceClassification(config),
        words,
        seed=302,
        wrong=[{"pooler_hidden_act": "relu"}, {"pos_att_type": "c2p"}],
    )
    config = deberta_config(
        words, **SMALL, **ONE, pooler_hidden_size=16, max_position_embeddings=200, type_vocab_size=2
    )
    b.plain(
        "deberta-reranker",
        "deberta-v2",
        DebertaV2ForSequenceClassification(config),
        words,
        seed=303,
        scale={"classifier.": 2.0},
    )
    # Whether the model gets segment ids is up to the class of the tokenizer, and to what it stores of its own.
    b.overlay(
        "deberta-reranker-generic", "deberta-reranker", tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"}
    )
    b.overlay(
        "deberta-reranker-untyped",
        "deberta-reranker",
        tokenizer_config={"model_input_names": ["input_ids", "attention_mask"]},
    )

    words = tokenizers.mpnet(model_max_length=180)
    config = MPNetConfig(
        **SMALL, **ONE, vocab_size=len(words), max_position_embeddings=182, layer_norm_eps=1e-5, pad_token_id=1
    )
    b.plain(
        "mpnet-reranker",
        "mpnet",
        MPNetForSequenceClassification(config),
        words,
        seed=304,
        scale={"classifier.": 1.5, "word": 0.8},
    )

    words = tokenizers.albert(model_max_length=200)
    config = AlbertConfig(
        **SMALL,
        **labels("no", "perhaps", "yes"),
        vocab_size=len(words),
        embedding_size=12,
        max_position_embeddings=200,
        hidden_act="gelu_new",
    )
    b.plain("albert-reranker", "albert", AlbertForSequenceClassification(config), words, seed=305)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    b.overlay("albert-reranker-typed", "albert-reranker", tokenizer_config={"model_input_names": names})

    words = tokenizers.llama3(model_max_length=300)
    config = EuroBertConfig(
        **DECODER, **ONE, vocab_size=len(words), pad_token_id=words.pad_token_id, bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id, mask_token_id=words.mask_token_id, classifier_pooling="late",
    )  # fmt: skip
    wrong = [{"classifier_pooling": "bos"}, {"classifier_pooling": "mean"}]
    b.plain(
        "eurobert-reranker",
        "eurobert",
        EuroBertForSequenceClassification(config),
        words,
        seed=306,
        scale={"classifier.": 4.0, "embed": 1.3},
        wrong=wrong,
    )
    b.overlay("eurobert-reranker-bos", "eurobert-reranker", config={"classifier_pooling": "bos"})
    b.overlay("eurobert-reranker-mean", "eurobert-reranker", config={"classifier_pooling": "mean"})


# After Qwen3-Reranker's and mxbai-rerank-v2's own, shorter.
CHAT = """{%- set task = messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Find the answer", true) -%}
<|im_start|>system
Say yes or no.<|im_end|>
<|im_start|>user
<Instruct>: {{ task }}
<Query>: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
<Document>: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}<|im_end|>
<|im_start|>assistant
<think>

</think>

"""
SHORT_CHAT = """<|im_start|>user
query: {{ messages | selectattr("role", "eq", "query") | map(attribute="content") | first }}
document: {{ messages | selectattr("role", "eq", "document") | map(attribute="content") | first }}
Answer 1 or 0.<|im_end|>
{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def decoders(b):
    words = tokenizers.qwen(model_max_length=300)
    base = dict(vocab_size=len(words), pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id)
    config = Qwen3Config(**DECODER, **ONE, **base, head_dim=6, tie_word_embeddings=True)
    b.plain(
        "qwen3-classifier",
        "qwen3",
        Qwen3ForSequenceClassification(config),
        words,
        seed=311,
        scale={"score": 2.0},
        wrong=[{"is_causal": False}],
    )
    config = Qwen2Config(**DECODER, **labels("no", "yes"), **base, tie_word_embeddings=False)
    b.plain("qwen2-classifier", "qwen2", Qwen2ForSequenceClassification(config), words, seed=312)


def generators(b):
    words = tokenizers.qwen(append=False, words=("yes", "no"), model_max_length=400)
    yes, no = words.convert_tokens_to_ids("yes"), words.convert_tokens_to_ids("no")
    assert words.tokenize("yes no")[0] == "yes" and None not in (yes, no)
    base = dict(vocab_size=len(words), pad_token_id=words.pad_token_id, eos_token_id=words.eos_token_id)

    # As the library saves it: modules.json, LogitScore, a chat template for both roles. The output matrix is the embedding.
    config = Qwen3Config(**DECODER, **base, head_dim=6, tie_word_embeddings=True)
    words.chat_template = CHAT
    folder = b.plain(
        "qwen3-reranker",
        "qwen3",
        Qwen3ForCausalLM(config),
        words,
        seed=313,
        scale={"norm.weight": 1.0, "embed": 1.2},
        chat=True,
    )
    save_generator(b, folder, LogitScore(yes, no), prompts={"web": "Find pages"})

    # Without modules.json: "yes" and "no" of the tokenizer; with a template, and with none.
    words.chat_template = None
    b.plain(
        "qwen3-reranker-bare",
        "qwen3",
        Qwen3ForCausalLM(Qwen3Config(**DECODER, **base, head_dim=6, tie_word_embeddings=False)),
        words,
        seed=314,
    )
    b.models["qwen3-reranker-bare"]["blank"] = [[EMPTY, EMPTY]]
    folder = b.overlay("qwen3-reranker-bare-chat", "qwen3-reranker-bare", chat=True)
    b.models["qwen3-reranker-bare-chat"]["blank"] = None
    (folder / "chat_template.jinja").write_text(CHAT, "utf-8")

    # A tied output matrix, and a table of tokens that is scaled where it is read.
    b.plain("gemma-reranker", "gemma", GemmaForCausalLM(GemmaConfig(**DECODER, **base, head_dim=6)), words, seed=316)
    b.models["gemma-reranker"]["blank"] = [[EMPTY, EMPTY]]

    # As mxbai-rerank-v2: 1 and 0, the template's last line by request, an activation of its own; its own output matrix.
    words.chat_template = SHORT_CHAT
    config = Qwen2Config(**DECODER, **base, tie_word_embeddings=False)
    folder = b.plain(
        "qwen2-reranker", "qwen2", Qwen2ForCausalLM(config), words, seed=315, chat=True, scale={"lm_head": 0.5}
    )
    one, zero = words.convert_tokens_to_ids("1"), words.convert_tokens_to_ids("0")
    save_generator(b, folder, LogitScore(one, zero), activation="torch.nn.modules.linear.Identity")
    edit_json(
        folder / "sentence_bert_config.json", processing_kwargs={"chat_template": {"add_generation_prompt": True}}
    )
    b.overlay("qwen2-reranker-true", "qwen2-reranker", **{"1_LogitScore/config": {"false_token_id": None}})


def save_generator(b, folder, score, prompts=None, activation=None):
    """Turns a plain causal model into what CrossEncoder.save_pretrained writes for it."""
    from sentence_transformers.sentence_transformer.modules import Transformer

    transformer = Transformer(str(folder), transformer_task="text-generation", model_kwargs={"dtype": "auto"})
    whole = CrossEncoder(modules=[transformer, score], device="cpu", prompts=prompts)
    for path in folder.iterdir():
        path.unlink()
    whole.save_pretrained(str(folder), create_model_card=False)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if activation is not None:
        edit_json(folder / "config_sentence_transformers.json", activation_fn=activation)


FAMILIES = (classifiers, decoders, generators)
