"""Tiny tokenizers in the shape of each family's own: WordPiece, byte-level BPE, SentencePiece BPE and unigram."""

import functools
import json

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertTokenizer, DebertaV2Tokenizer, MPNetTokenizer, PreTrainedTokenizerFast, RobertaTokenizer, T5Tokenizer,
    XLMRobertaTokenizer,
)  # fmt: skip
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from build import tokenizer as bert_tokenizer
from cross_models import camembert_tokenizer, distilbert_tokenizer, pieces
from texts import NORMAL, uncased_vocabulary

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def generic(backend, **special):
    """A tokenizer that is nothing but its tokenizer.json."""
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def add_special(backend, tokens):
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])


def template(backend, single, pair=None):
    names = {part.split(":")[0] for part in f"{single} {pair or ''}".split() if not part.startswith("$")}
    pair = pair or f"{single} {single.replace('$A', '$B')}"
    backend.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(name, backend.token_to_id(name)) for name in sorted(names)]
    )


@functools.cache
def byte_level(size=330):
    """Byte-level BPE of 256 bytes and a few merges, without special tokens."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(
        NORMAL, trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


@functools.cache
def spaced(size=140):
    """SentencePiece-like BPE: pieces with ▁ for the space, and their merges."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trained.train_from_iterator(NORMAL, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [tuple(merge) for merge in model["merges"]]


def mpnet(**kwargs):
    words = [word for word in uncased_vocabulary() if word not in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    tokens = ["<s>", "<pad>", "</s>", "[UNK]", *words, "<mask>"]
    return MPNetTokenizer(vocab={token: i for i, token in enumerate(tokens)}, **kwargs)


def modernbert(**kwargs):
    """ModernBERT's: byte-level BPE, the special tokens after the vocabulary, no token types."""
    vocabulary, merges = byte_level()
    backend = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=merges))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, lstrip=token == "[MASK]")
            for token in ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
        ]
    )
    template(backend, "[CLS]:0 $A:0 [SEP]:0", "[CLS]:0 $A:0 [SEP]:0 $B:0 [SEP]:0")
    special = dict(unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", mask_token="[MASK]")
    return generic(backend, model_input_names=["input_ids", "attention_mask"], **special, **kwargs)


def qwen(append=True, words=(), **kwargs):
    """Qwen's: byte-level BPE behind its own pattern, left padding; embedding models append <|endoftext|>."""
    vocabulary, merges = byte_level()
    vocabulary, merges = dict(vocabulary), list(merges)
    for word in words:  # each becomes one token
        letters = list(word)
        while len(letters) > 1:
            pair = letters[0] + letters[1]
            if pair not in vocabulary:
                vocabulary[pair] = len(vocabulary)
                merges.append((letters[0], letters[1]))
            letters[:2] = [pair]
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False, byte_fallback=False))
    backend.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    add_special(backend, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    if append:
        template(backend, "$A:0 <|endoftext|>:0", "$A:0 <|endoftext|>:0 $B:0 <|endoftext|>:0")
    return generic(
        backend,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        **kwargs,
    )


def llama3(**kwargs):
    """EuroBERT's and Llama 3's: byte-level BPE between <|begin_of_text|> and <|end_of_text|>."""
    vocabulary, merges = byte_level()
    backend = Tokenizer(models.BPE(vocab=dict(vocabulary), merges=merges, ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    add_special(backend, ["<|begin_of_text|>", "<|end_of_text|>", "<|mask|>", "<|pad|>"])
    template(
        backend,
        "<|begin_of_text|>:0 $A:0 <|end_of_text|>:0",
        "<|begin_of_text|>:0 $A:0 <|end_of_text|>:0 $B:0 <|end_of_text|>:0",
    )
    return generic(
        backend,
        bos_token="<|begin_of_text|>",
        eos_token="<|end_of_text|>",
        mask_token="<|mask|>",
        pad_token="<|pad|>",
        model_input_names=["input_ids", "attention_mask"],
        **kwargs,
    )


def llama(append=True, **kwargs):
    """Llama 2's and Mistral's: SentencePiece BPE with bytes to fall back on; e5-mistral appends </s>."""
    tokens, merges = spaced()
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *tokens]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    add_special(backend, ["<unk>", "<s>", "</s>"])
    template(backend, "<s>:0 $A:0 </s>:0" if append else "<s>:0 $A:0")
    return generic(
        backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="</s>",
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        **kwargs,
    )


def gemma(**kwargs):
    """Gemma's: BPE on the whole text with ▁ for spaces, bytes to fall back on, <bos> and <eos>."""
    tokens, merges = spaced()
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *BYTES, *tokens]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    add_special(backend, ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"])
    template(backend, "<bos>:0 $A:0 <eos>:0", "<bos>:0 $A:0 <eos>:0 <bos>:1 $B:1 <eos>:1")
    return generic(
        backend,
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
        **kwargs,
    )


def t5(**kwargs):
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    extra = [("<extra_id_1>", 0.0), ("<extra_id_0>", 0.0)]
    return T5Tokenizer(vocab=special + pieces() + extra, extra_ids=2, **kwargs)


def deberta(**kwargs):
    special = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0)]
    return DebertaV2Tokenizer(vocab=special + pieces() + [("[MASK]", 0.0)], **kwargs)


def albert(**kwargs):
    special = [("<pad>", 0.0), ("<unk>", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[MASK]", 0.0)]
    return AlbertTokenizer(vocab=special + pieces(), **kwargs)


def roberta(**kwargs):
    """RoBERTa's and JinaBERT code's: byte-level BPE between <s> and </s>."""
    vocabulary, merges = byte_level()
    shifted = {token: i + 4 for token, i in vocabulary.items()}
    whole = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **shifted, "<mask>": len(shifted) + 4}
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return RobertaTokenizer(vocab=whole, merges=merges, mask_token=mask, **kwargs)


def xlm_roberta(**kwargs):
    special = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(vocab=special + pieces() + [("<mask>", 0.0)], mask_token=mask, **kwargs)


def bert(**kwargs):
    return bert_tokenizer(**kwargs)


def camembert(**kwargs):
    return camembert_tokenizer(**kwargs)


def distilbert(**kwargs):
    return distilbert_tokenizer(**kwargs)
