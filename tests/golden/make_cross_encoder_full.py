"""Makes full-size random cross-encoders, and scores pairs with the reference library: for a comparison at real sizes.

    python tests/golden/make_cross_encoder_full.py models OUTPUT TEXTS MINILM
    python tests/golden/make_cross_encoder_full.py scores MODEL PAIRS OUTPUT [--count N] [--logits] [--double]

`models` writes two repositories with random weights of a fixed seed, float32, in the form of their models on the hub:

    OUTPUT/ce-distilroberta   as cross-encoder/stsb-distilroberta-base: RoBERTa, 6 layers of 768, 1 label, Sigmoid. The
                              tokenizer is a byte-level BPE of some 5,000 tokens learnt from the file TEXTS; the embedding
                              keeps all 50,265 rows.
    OUTPUT/ce-minilm          as cross-encoder/ms-marco-MiniLM-L6-v2: BERT, 6 layers of 384, 1 label, Identity. The tokenizer
                              is that of the folder MINILM, all-MiniLM-L6-v2.

`scores` writes what CrossEncoder.predict gives for the first N lines of PAIRS (a query, a tab, a passage) as a NumPy array,
float32, each pair alone; with --logits, under Identity; with --double, computed and written in float64, which tells how
far float32 itself is off (on these models 1e-5 of a logit). One thread, so that it disturbs nobody.

Nothing of this is committed. Versions: requirements.txt.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["RAYON_NUM_THREADS"] = "1"
sys.dont_write_bytecode = True

import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from sentence_transformers import CrossEncoder  # noqa: E402
from transformers import BertConfig, BertForSequenceClassification, RobertaConfig  # noqa: E402
from transformers import RobertaForSequenceClassification  # noqa: E402

from build import edit_json, read_json, write_json  # noqa: E402
from cross_models import IDENTITY, SIGMOID, randomise_classifier, roberta_tokenizer  # noqa: E402

LABELS = {"id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
VOCABULARY = 5000


def save(folder, model, activation, **head):
    randomise_classifier(model, **head).save_pretrained(folder)
    edit_json(folder / "config.json", sentence_transformers={"activation_fn": activation, "version": "4.1.0"})


def distilroberta(folder, texts):
    words = roberta_tokenizer(texts.read_text("utf-8").splitlines(), VOCABULARY, model_max_length=512)
    words.save_pretrained(folder)
    learnt = read_json(folder / "tokenizer.json")["model"]
    write_json(folder / "vocab.json", learnt["vocab"])
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in learnt["merges"]), "utf-8")
    special = {"bos": "<s>", "cls": "<s>", "eos": "</s>", "sep": "</s>", "pad": "<pad>", "unk": "<unk>", "mask": "<mask>"}
    write_json(folder / "special_tokens_map.json", {f"{name}_token": token for name, token in special.items()})
    config = RobertaConfig(
        vocab_size=50265, hidden_size=768, num_hidden_layers=6, num_attention_heads=12, intermediate_size=3072,
        max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **LABELS,
    )  # fmt: skip
    save(folder, RobertaForSequenceClassification(config), SIGMOID, seed=71, spread=15, shift=-14.5)


def minilm(folder, source):
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copyfile(source / name, folder / name)
    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536,
        max_position_embeddings=512, **LABELS,
    )  # fmt: skip
    save(folder, BertForSequenceClassification(config), IDENTITY, seed=72, spread=10, shift=-15.9)


def make_models(arguments):
    for name, make, source in (("ce-distilroberta", distilroberta, arguments.texts), ("ce-minilm", minilm, arguments.minilm)):
        folder = arguments.output / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder, source)
        for path in folder.iterdir():
            path.chmod(0o644)
        print(folder, f"{sum(path.stat().st_size for path in folder.iterdir()):,} bytes")


def make_scores(arguments):
    lines = arguments.pairs.read_text("utf-8").splitlines()[: arguments.count]
    pairs = [tuple(line.split("\t")) for line in lines]
    assert all(len(pair) == 2 for pair in pairs)
    dtype = torch.float64 if arguments.double else torch.float32
    model = CrossEncoder(str(arguments.model), device="cpu", model_kwargs={"dtype": dtype}, local_files_only=True)
    start = time.perf_counter()
    activation = torch.nn.Identity() if arguments.logits else None
    options = {"batch_size": 1, "show_progress_bar": False, "activation_fn": activation, "convert_to_tensor": True}
    scores = model.predict(pairs, **options).numpy()  # convert_to_numpy would narrow to float32
    seconds = time.perf_counter() - start
    np.save(arguments.output, scores)
    lengths = [model.preprocess([pair])["input_ids"].shape[1] for pair in pairs]
    full = sum(length == model.max_seq_length for length in lengths)
    print(f"{len(scores)} pairs of {min(lengths)} to {max(lengths)} tokens ({full} at the limit), {seconds:.0f} s")
    print(f"{model.activation_fn if activation is None else activation}: mean {scores.mean():.3f}, std {scores.std():.3f}, {scores.min():.4f} to {scores.max():.4f}")  # fmt: skip


def main():
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("models")
    command.set_defaults(run=make_models)
    command.add_argument("output", type=Path)
    command.add_argument("texts", type=Path, help="a text a line, to learn the BPE from")
    command.add_argument("minilm", type=Path, help="the folder of all-MiniLM-L6-v2")
    command = commands.add_parser("scores")
    command.set_defaults(run=make_scores)
    command.add_argument("model", type=Path)
    command.add_argument("pairs", type=Path)
    command.add_argument("output", type=Path)
    command.add_argument("--count", type=int)
    command.add_argument("--logits", action="store_true")
    command.add_argument("--double", action="store_true")
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
