"""Writes tests/golden/search.json: what the reference's retrieval functions find among embeddings that a formula gives.

    python tests/golden/make_search.py

Versions: requirements.txt. src/search/golden.rs makes the same embeddings: `numbers(seed, rows, cols)` is a linear congruential
generator, and row i of the corpus is centre i % CENTRES plus noise.
"""

import json

import numpy as np
import torch
from sentence_transformers import util

ROWS, COLS, CENTRES, QUERIES, NOISE = 240, 16, 12, 7, 0.75
SCORES = {"cosine": util.cos_sim, "dot": util.dot_score, "euclidean": util.euclidean_sim, "manhattan": util.manhattan_sim}


def numbers(seed, rows, cols):
    state, out = seed, []
    for _ in range(rows * cols):
        state = (state * 1_664_525 + 1_013_904_223) % 2**32
        out.append((state >> 8) / 8_388_608 - 1)
    return np.array(out, dtype=np.float32).reshape(rows, cols)


def round_all(found):
    return [[[hit["corpus_id"], round(hit["score"], 6)] for hit in hits] for hits in found]


def main():
    centres = numbers(1, CENTRES, COLS)
    corpus = torch.from_numpy(centres[np.arange(ROWS) % CENTRES] + np.float32(NOISE) * numbers(2, ROWS, COLS))
    queries = torch.from_numpy(numbers(3, QUERIES, COLS))
    search = {
        name: round_all(util.semantic_search(queries, corpus, corpus_chunk_size=100, top_k=12, score_function=function))
        for name, function in SCORES.items()
    }
    mining = []
    for top_k, max_pairs in [(100, 500_000), (3, 60), (1, 1000)]:
        pairs = util.paraphrase_mining_embeddings(corpus, corpus_chunk_size=70, top_k=top_k, max_pairs=max_pairs)
        kept = [[i, j, round(score, 6)] for score, i, j in pairs[:200]]
        mining.append({"top_k": top_k, "max_pairs": max_pairs, "count": len(pairs), "first": kept})
    communities = []
    for threshold, least in [(0.75, 10), (0.6, 3), (0.85, 2)]:
        found = util.community_detection(corpus, threshold=threshold, min_community_size=least, batch_size=100)
        communities.append({"threshold": threshold, "min_community_size": least, "communities": found})
    golden = {"search": search, "mining": mining, "communities": communities}
    with open("tests/golden/search.json", "w", encoding="utf8") as file:
        file.write(json.dumps(golden, separators=(",", ":")))


main()
