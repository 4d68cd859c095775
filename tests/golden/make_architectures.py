"""Makes the golden data of every other architecture, with the reference library (float32, CPU, eager attention).

    /tmp/golden/bin/python tests/golden/make_architectures.py

It rewrites tests/golden/architectures/:

    models/<name>/        tiny random checkpoints in the shape of the published repositories
    cases.json            what to compute, by section
    expected.safetensors  what the reference computed, tensors named by cases.json

cases.json is an object: `texts`, a list of strings, and sections, lists of objects. Sections:

    models   name; family; base: null, or the model that the folder is an overlay of: copy the base's folder, then this one
             over it (bases may be overlays themselves, and may bring modules that modules.json does not name);
             cross_encoder; reference: "sentence-transformers", or "arch_reference.py" where only that can compute it;
             same_as: the model that it is another dialect of, where the reference knows that alone. What
             the loaded model says of itself: architecture and, for embedding models, modules (class names), dimension,
             max_seq_length (null: no limit), prompts, default_prompt_name, similarity_fn_name; for cross-encoders
             num_labels, max_length, activation (class), prompts, default_prompt_name
    encode   name, model, method ("encode", "encode_query", "encode_document"), texts (indices into `texts`), options (prompt,
             prompt_name, normalize, truncate_dim, precision, output_value, task, adapter: the LoRA adapter to load), expected (a tensor [texts, dim]). With
             output_value "token_embeddings": [tokens, dim] of all texts one after the other, and starts (I32, texts + 1)
    predict  name, model, pairs ([i, j], indices into `texts`), options (activation_fn, a class of torch; apply_softmax;
             max_length, of the constructor; prompt, prompt_name), expected (F32 [pairs], or [pairs, labels] for more than one label)
    tokens   name, model, texts or pairs, expected (I32 token ids one after the other), starts (I32, one more than texts),
             types (I32 segment ids as the model gets them, as expected; null: it gets none)
    errors   name, model, method, options, texts or pairs; reason; the reference's exception and the first line of its message

Every text was encoded alone (batch_size=1), so no padding takes part. Checkpoints are F16 unless their name says otherwise,
most of them stored as formulas (see formula.py); they were widened to float32 and computed in float32. Families whose published repositories carry code of their
own (gte-new*, gte-prefix, gte-reranker, jina-*, nomic-v*, nomic-scaled) are computed by arch_reference.py, plain PyTorch
written for this; where transformers has a port, both are compared. The weights are such that a wrong window, base, mask,
activation or bucket moves the result by over 1e-3: `sensitivity` in arch_cases.py asserts it. Running this twice on one
machine gives the same bytes; on another machine the last bits of the floats may differ.
"""

import os
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.dont_write_bytecode = True  # leave nothing beside the data

import torch  # noqa: E402
import transformers  # noqa: E402

import arch_adapters  # noqa: E402
import arch_custom  # noqa: E402
import arch_decoders  # noqa: E402
import arch_encoders  # noqa: E402
import arch_modules  # noqa: E402
import arch_recent  # noqa: E402
import arch_rerankers  # noqa: E402
import formula  # noqa: E402
from arch_build import Builder  # noqa: E402
from arch_cases import record_architectures  # noqa: E402
from arch_texts import TEXTS  # noqa: E402
from build import compact, write_golden  # noqa: E402
from overlay import shrink  # noqa: E402


def main():
    target = Path(__file__).resolve().parent / "architectures"
    root = target.with_name("architectures.new")  # takes its place when everything has gone well
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    shutil.rmtree(root, ignore_errors=True)
    builder = Builder(root / "models")
    for module in (arch_encoders, arch_decoders, arch_custom, arch_recent, arch_adapters, arch_rerankers, arch_modules):
        for family in module.FAMILIES:
            family(builder)
    shutil.rmtree(builder.scratch, ignore_errors=True)
    compact(root / "models")
    overlays = {name: model["base"] for name, model in builder.models.items() if model["base"]}
    bases = shrink(root / "models", builder.models, bases=overlays)
    recorder, moves = record_architectures(root, builder.models, bases)
    arch_adapters.unresolve(root / "models")
    compact(root / "models")
    formula.store(root / "models")
    write_golden(root, recorder, texts=TEXTS)
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)

    shutil.rmtree(target, ignore_errors=True)
    root.rename(target)

    moved, _, name, change = min(moves, key=lambda move: move[0])
    print(f"{len(moves)} mistakes tried; the least of them, {change} of {name}, moves the result by {moved:.4f}")


if __name__ == "__main__":
    main()
