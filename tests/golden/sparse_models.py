"""The tiny sparse encoders: SPLADE on every masked language model, routers with static query weights, CSR.

All that is here must stay small: vocabularies are cut down, every model but bert has one layer of width 8, and whatever can
be is an overlay. Weights are F16. The head's bias makes about 10 to 40 % of the vocabulary active for a text.
"""

import shutil

import torch
from sentence_transformers import SparseEncoder
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import SparseAutoEncoder, SparseStaticEmbedding, SpladePooling
from tokenizers import AddedToken
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig, BertForMaskedLM, BertTokenizer, DistilBertConfig, DistilBertForMaskedLM,
    ElectraConfig, ElectraForMaskedLM, ModernBertConfig, ModernBertForMaskedLM, MPNetConfig, MPNetForMaskedLM,
    MPNetTokenizer, XLMRobertaConfig, XLMRobertaForMaskedLM, XLMRobertaTokenizer,
)  # fmt: skip

from arch_weights import randomise
from build import compact, read_json, write_json
from cross_models import pieces
from texts import uncased_vocabulary

PROMPTS = {"query": "find: ", "document": ""}
LENGTH = 18
KEPT = "the of and to in is on for one two it he she his cat dog book night river sea garden teacher student song red old small warm good read wrote sings sun rain market price text what who".split()  # fmt: skip
MLM, OLD = "sentence_transformers.sparse_encoder.models.MLMTransformer", "sentence_transformers.sparse_encoder.models"


def words():
    """Whole words, a few letters and endings; what it cannot spell is unknown."""
    special, rest = uncased_vocabulary(), ["##s", "##ing", "##er", "##ed", "##t", *".,!?:-()", *"abeost"]
    return [*list(special)[:5], *rest, *KEPT, "find"]


def bert_tokenizer():
    return BertTokenizer(vocab={token: i for i, token in enumerate(words())}, do_lower_case=True, model_max_length=LENGTH)


def mpnet_tokenizer():
    tokens = ["<s>", "<pad>", "</s>", "[UNK]", *words()[5:], "<mask>"]
    return MPNetTokenizer(vocab={token: i for i, token in enumerate(tokens)}, model_max_length=LENGTH)


def xlm_roberta_tokenizer():
    special = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    small = [(piece, score) for piece, score in pieces() if piece.removeprefix("▁") in (*KEPT, *"etaoinshrdl.,!?:", "")]
    mask = AddedToken("<mask>", lstrip=True, special=True)
    return XLMRobertaTokenizer(vocab=special + small + [("<mask>", 0.0)], mask_token=mask, model_max_length=LENGTH)


SMALL = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=20)


class SparseBuilder:
    def __init__(self, root):
        self.root = root
        self.scratch = root.parent / "scratch"
        self.names = []
        self.bases = {}

    def transformer(self, model, words, *, seed, shift, spread=2.2):
        """A Transformer module of these weights, with the task fill-mask."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        scale = {"word_embeddings.weight": 0.45, "tok_embeddings.weight": 0.45, "position_embeddings.weight": 0.3, "token_type_embeddings.weight": 0.3}  # fmt: skip
        scale.update({name: 0.45 for name, _ in model.named_parameters() if name.endswith("decoder.weight")})
        norms = ("transform.LayerNorm.weight", "vocab_layer_norm.weight", "lm_head.layer_norm.weight", "head.norm.weight", "predictions.LayerNorm.weight")  # fmt: skip
        scale.update(dict.fromkeys(norms, spread))
        biases = ("predictions.bias", "decoder.bias", "vocab_projector.bias", "lm_head.bias")
        randomise(model, seed, scale, dict.fromkeys(biases, shift))
        model.half().save_pretrained(self.scratch)
        words.save_pretrained(self.scratch)
        return Transformer(str(self.scratch), transformer_task="fill-mask", model_kwargs={"dtype": torch.float16})

    def save(self, name, modules, **options):
        encoder = SparseEncoder(modules=modules, device="cpu", **{"prompts": PROMPTS, "similarity_fn_name": "dot", **options})
        encoder.save_pretrained(str(self.root / name), create_model_card=False)
        for path in (self.root / name).rglob("generation_config.json"):
            path.unlink()
        self.names.append(name)

    def splade(self, name, model, words, **weights):
        self.save(name, [self.transformer(model, words, **weights), SpladePooling("max", embedding_dimension=len(words))])
        if name != "bert":
            self.share(name, "bert")

    def overlay(self, name, base, files):
        """Keys of JSON files to set, by path; a list replaces the file."""
        self.names.append(name)
        self.bases[name] = base
        for path, change in files.items():
            origin, target = self.root / base / path, self.root / name / path
            if isinstance(change, list):
                write_json(target, change)
                continue
            value = {**(read_json(origin) if origin.exists() else {}), **change}
            write_json(target, {key: entry for key, entry in value.items() if entry is not ...})

    def share(self, name, base):
        """Makes a saved model an overlay: drops the files that are the base's."""
        self.bases[name] = base
        for path in [path for path in (self.root / name).rglob("*") if path.is_file()]:
            origin = self.root / base / path.relative_to(self.root / name)
            if origin.exists() and origin.read_bytes() == path.read_bytes():
                path.unlink()
        for path in [path for path in (self.root / name).iterdir() if path.is_dir() and not any(path.iterdir())]:
            path.rmdir()


def splade(b):
    settings = {**SMALL, "vocab_size": len(words())}
    # What everything else is compared with: two layers, and as `save_pretrained` of 6.2.0 stores it.
    b.splade("bert", BertForMaskedLM(BertConfig(**{**settings, "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32})), bert_tokenizer(), seed=701, shift=-1.8, spread=1.0)  # fmt: skip
    # The other sum, the other activation, and both.
    pooling = "1_SpladePooling/config.json"
    b.overlay("bert-sum", "bert", {pooling: {"pooling_strategy": "sum"}})
    b.overlay("bert-log1p", "bert", {pooling: {"activation_function": "log1p_relu", "embedding_dimension": None}})
    b.overlay("bert-sum-log1p", "bert", {pooling: {"pooling_strategy": "sum", "activation_function": "log1p_relu"}})
    # Settings that change what encode and similarity return.
    b.overlay("bert-limit", "bert", {"config_sentence_transformers.json": {"max_active_dims": 5, "similarity_fn_name": "cosine"}})
    # As 5.0 to 5.3 stored it: classes by their old modules, the old key, only two keys for the transformer.
    types = [("", MLM), ("1_SpladePooling", f"{OLD}.SpladePooling")]
    versions = {"sentence_transformers": "5.0.0", "transformers": "4.50.3", "pytorch": "2.6.0+cu124"}
    b.overlay(
        "bert-old", "bert",
        {
            "modules.json": [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(types)],
            pooling: {"embedding_dimension": ..., "word_embedding_dimension": len(words())},
            "sentence_bert_config.json": {**dict.fromkeys(read_json(b.root / "bert/sentence_bert_config.json"), ...), "max_seq_length": LENGTH, "do_lower_case": False},
            "config_sentence_transformers.json": {"__version__": versions},
        },
    )  # fmt: skip
    # Untied: its decoder is not the embedding, and has a bias of its own; cls.predictions.bias is stored, but not read.
    b.splade("bert-untied", BertForMaskedLM(BertConfig(**settings, tie_word_embeddings=False)), bert_tokenizer(), seed=702, shift=-1.6, spread=1.8)  # fmt: skip


def architectures(b):
    settings = {**SMALL, "vocab_size": len(words())}
    distil = DistilBertConfig(vocab_size=len(words()), dim=8, n_layers=1, n_heads=2, hidden_dim=16, max_position_embeddings=20)
    b.splade("distilbert", DistilBertForMaskedLM(distil), bert_tokenizer(), seed=713, shift=-2.1, spread=1.2)
    tokens = xlm_roberta_tokenizer()
    ids = dict(vocab_size=len(tokens), type_vocab_size=1, pad_token_id=1, bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5)
    b.splade("xlm-roberta", XLMRobertaForMaskedLM(XLMRobertaConfig(**{**settings, **ids})), tokens, seed=704, shift=-2.0, spread=2.2)
    # The same under other names; the tokenizer stays, which their own repositories would not have.
    for name, kind in (("roberta", "Roberta"), ("camembert", "Camembert")):
        b.overlay(name, "xlm-roberta", {"config.json": {"model_type": name, "architectures": [f"{kind}ForMaskedLM"]}})
    modern = dict(pad_token_id=0, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, decoder_bias=True, local_attention=4)
    b.splade("modernbert", ModernBertForMaskedLM(ModernBertConfig(**settings, **modern)), bert_tokenizer(), seed=705, shift=-2.2, spread=1.6)  # fmt: skip
    tokens = mpnet_tokenizer()
    b.splade("mpnet", MPNetForMaskedLM(MPNetConfig(**{**settings, "vocab_size": len(tokens)})), tokens, seed=706, shift=-2.2, spread=1.7)
    # Embeddings narrower than the layers, and the head as narrow as they are.
    b.splade("albert", AlbertForMaskedLM(AlbertConfig(**settings, embedding_size=6, inner_group_num=1)), bert_tokenizer(), seed=712, shift=-1.9)  # fmt: skip
    b.splade("electra", ElectraForMaskedLM(ElectraConfig(**settings, embedding_size=6)), bert_tokenizer(), seed=707, shift=-1.9)  # fmt: skip


def routers(b):
    """Queries by a table of weights, documents by a transformer."""
    settings = {**SMALL, "vocab_size": len(words())}
    weights = torch.rand(len(words()), generator=torch.Generator().manual_seed(709)).half() * 2
    weights[::7] = 0
    query = [SparseStaticEmbedding(bert_tokenizer(), weight=weights)]
    document = [b.transformer(BertForMaskedLM(BertConfig(**settings)), bert_tokenizer(), seed=710, shift=-2.0, spread=1.3), SpladePooling("max")]
    b.save("router", [Router.for_query_document(query_modules=query, document_modules=document)])
    # Weights by token in idf.json, which `path` names (from the working directory), under the old classes' names. Tokens
    # that are not listed weigh 0. (One that is not in the vocabulary would give its weight to [UNK]; lexel refuses it.)
    types = {
        "query_0_SparseStaticEmbedding": f"{OLD}.SparseStaticEmbedding.SparseStaticEmbedding",
        "document_0_Transformer": f"{MLM}.MLMTransformer",
        "document_1_SpladePooling": f"{OLD}.SpladePooling.SpladePooling",
    }
    b.overlay("router-idf", "router", {
        "router_config.json": {"types": types},
        "query_0_SparseStaticEmbedding/config.json": {"frozen": True, "path": "idf.json"},
    })  # fmt: skip
    idf = {token: round(0.31 + 0.17 * (5 * i % 23), 2) for i, token in enumerate(words()) if i % 4}
    write_json(b.root / "router-idf/idf.json", idf)


def csr(b):
    """A backbone (bert's, so its head is left unread), mean pooling, and an autoencoder that keeps the largest."""
    backbone = Transformer(str(b.root / "bert"), transformer_task="feature-extraction", model_kwargs={"dtype": torch.float16})
    coder = randomise(SparseAutoEncoder(16, hidden_dim=64, k=6, k_aux=8), 711, bias={"pre_bias": 0.2, "latent_bias": -0.1})
    b.save("csr", [backbone, Pooling(16, "mean"), coder.half()], similarity_fn_name=None, prompts=None)
    b.bases["csr"] = "bert"
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (b.root / "csr" / name).unlink()
    b.overlay("csr-normalized", "csr", {"2_SparseAutoEncoder/config.json": {"normalize": True}})


def bare(b):
    """A masked language model of transformers alone, so max pooling and no prompts: bert, without what the library adds.
    An overlay can remove nothing, so bert becomes one of this."""
    folder = b.root / "bert-bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        (b.root / "bert" / name).rename(folder / name)
    b.names.insert(0, "bert-bare")
    b.bases["bert"] = "bert-bare"


def build_sparse_encoders(root):
    """Builds every model; returns their names, each with its base."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    b = SparseBuilder(root)
    for family in (splade, architectures, routers, csr, bare):
        family(b)
    shutil.rmtree(b.scratch)
    compact(root)
    return {name: b.bases.get(name) for name in b.names}
