"""Makes the golden data of lexel's multi-vector encoders with the reference library (MultiVectorEncoder, float32, CPU).

    /tmp/golden/bin/python tests/golden/make_multi_vector_encoder.py

It rewrites cases.json, expected.safetensors and the weights in models/ of tests/golden/multi_vector_encoder/. cases.json is as in
make_sparse_encoder.py, with these sections:

    models      name; base; what the loaded model says of itself, the skiplist as sorted ids. A key that is not there: as the
                base's entry says
    encode      name, model, method, texts, options (may be missing: prompt, prompt_name, normalize_embeddings, token_pooling: the
                arguments of HierarchicalTokenPooling), counts (vectors of each text), expected (F32 [vectors, dimension], of all
                texts one behind the other; if missing, the tensor has the case's name)
    similarity  name, model, function, queries (texts through encode_query), documents (through encode_document), matrix, pairwise
                (of the first two), as lists
    empty       the same, of vectors that are there themselves
    pooling     name, model, texts (through encode_document, then HierarchicalTokenPooling.pool), its arguments; counts, expected
    errors      name, model, method ("load" or as above), sentence_bert_config (to replace that file) or texts and options; the
                library's exception (reference) and how its message begins

Every text was encoded alone. What is pooled stays the same, in the same order, if distances change by 1e-4.
"""

import logging
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
sys.dont_write_bytecode = True

import torch  # noqa: E402
import transformers  # noqa: E402

from build import write_golden  # noqa: E402
from multi_vector_cases import TEXTS, record_multi_vector_encoders  # noqa: E402
from multi_vector_models import build_multi_vector_encoders  # noqa: E402

if __name__ == "__main__":
    root = Path(__file__).resolve().parent / "multi_vector_encoder"
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    recorder = record_multi_vector_encoders(root, build_multi_vector_encoders(root / "models"))
    write_golden(root, recorder, texts=TEXTS)
