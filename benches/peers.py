#!/usr/bin/env python3
"""lexel and its peers on the CPU, in turn on the same file: bi-encoders from strings to unit vectors, cross-encoders from
pairs of strings to scores.

    cargo build --release --workspace
    python3 -m venv ~/peers && ~/peers/bin/pip install sentence-transformers onnx onnxruntime openvino
    ~/peers/bin/python benches/peers.py --model FOLDER --input texts.txt [--texts 2000] [--rounds 5]
    ~/peers/bin/python benches/peers.py --model FOLDER --pairs pairs.tsv [--texts 2000] [--rounds 5]

With --input, FOLDER is the checkpoint of a BERT or RoBERTa with mean pooling, such as all-MiniLM-L6-v2; with --pairs, of a
cross-encoder of one label. Where the hub is out of reach, tests/golden/make_cross_encoder_full.py makes two of those, of the
shapes of ms-marco-MiniLM-L6-v2 and stsb-distilroberta-base, with seeded random weights.

Every round runs each contestant once, in a process of its own: so whatever else the machine does meets all of them. Printed
are medians over the rounds, and ratios to lexel in int8, bf16 or f32, of tokens (or pairs) a second of wall time and of CPU
time. Tokens are counted once, by the tokenizer, without padding. Peers sort by length and tokenise ahead of each batch, as
sentence-transformers does, and have been warmed up. So has `lexel bench`, which runs bi-encoders; `lexel predict`, which runs
cross-encoders, has not, and its time includes reading the pairs and writing the scores.

lexel-bf16 and openvino-bf16, OpenVINO's own default where there is AMX, run if they are named.

Results are compared with those of sentence-transformers, if it is among the contestants, else with the first's: by the mean
cosine of vectors, or the largest difference of scores, which are logits here.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time, zlib

CONTESTANTS = ["lexel", "lexel-f16", "openvino", "onnxruntime", "sentence-transformers", "lexel-int8", "onnxruntime-int8"]
WARM_UP = 64
TEXT = "The weather is lovely today."


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True, metavar="FOLDER")
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument("--input", metavar="FILE", help="for a bi-encoder: one text a line")
    what.add_argument("--pairs", metavar="FILE", help="for a cross-encoder: two texts a line, with a tab between them")
    p.add_argument("--texts", type=int, default=2000, help="how many of its lines")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--batch", type=int, default=32, help="texts or pairs a batch, of the peers")
    p.add_argument("--max-length", type=int, help="tokens of a text or pair [default: 256 for texts, 512 for pairs]")
    p.add_argument("--contestants", default=",".join(CONTESTANTS))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(__file__), "..", "target"))
    p.add_argument("--lexel", default=os.path.join(target, "release", "lexel"))
    p.add_argument("--onnx", default=os.path.join(tempfile.gettempdir(), "lexel-peers-onnx"), help="where exported graphs are kept")
    p.add_argument("--contestant", help=argparse.SUPPRESS)
    p.add_argument("--dump", help=argparse.SUPPRESS)
    a = p.parse_args()
    a.max_length = a.max_length or (512 if a.pairs else 256)
    return a


def lines(a):
    with open(a.pairs or a.input, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file][: a.texts]


def read(a):
    """The texts, or the pairs as tuples of two."""
    return [tuple(line.split("\t")) for line in lines(a)] if a.pairs else lines(a)


def length(item):
    """Characters of a text or pair."""
    return len(item) if isinstance(item, str) else sum(map(len, item))


def tokenizer(a):
    from tokenizers import Tokenizer
    found = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
    found.enable_truncation(a.max_length)
    found.no_padding()
    return found


def graph(a, name):
    """Where an exported graph of this checkpoint is kept."""
    config = os.path.realpath(os.path.join(a.model, "config.json"))
    kind = "pairs" if a.pairs else "texts"
    return os.path.join(a.onnx, f"{kind}-{zlib.crc32(f'{config} {os.path.getmtime(config)}'.encode()):08x}", f"{name}.onnx")


def export(a):
    """The checkpoint as ONNX, with onnxruntime's fused graph, and that one in int8 (weights per channel)."""
    plain, fused, int8 = (graph(a, name) for name in ["plain", "fused", "int8"])
    if os.path.exists(int8):
        return
    import onnx, torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel, AutoModelForSequenceClassification

    os.makedirs(os.path.dirname(plain), exist_ok=True)
    kind, output = (AutoModelForSequenceClassification, "logits") if a.pairs else (AutoModel, "last_hidden_state")
    model = kind.from_pretrained(a.model, attn_implementation="eager").eval()
    config = model.config
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * (config.type_vocab_size > 1)

    class Output(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *xs):
            return self.model(**dict(zip(names, xs)))[output]

    xs = (torch.randint(5, 1000, (2, 16)), torch.ones(2, 16, dtype=torch.long), torch.zeros(2, 16, dtype=torch.long))
    rows = {0: "batch"} if a.pairs else {0: "batch", 1: "tokens"}
    # The TorchScript exporter's graph is the one that onnxruntime knows how to fuse.
    torch.onnx.export(Output().eval(), xs[: len(names)], plain, input_names=names, output_names=[output], dynamo=False,
                      opset_version=17, dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names} | {output: rows})
    optimizer.optimize_model(plain, model_type="bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size,
                             opt_level=0, use_gpu=False).save_model_to_file(fused)
    quantize_dynamic(fused, int8, weight_type=QuantType.QInt8, per_channel=True,
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


def sentence_transformers(a):
    """A function from texts to unit vectors, or from pairs to logits."""
    import torch
    from sentence_transformers import CrossEncoder, SentenceTransformer
    torch.set_num_threads(a.threads)
    if a.pairs:
        model = CrossEncoder(a.model, device="cpu", max_length=a.max_length)
        logits = torch.nn.Identity()
        return lambda pairs: model.predict(pairs, batch_size=a.batch, activation_fn=logits, show_progress_bar=False)
    model = SentenceTransformer(a.model, device="cpu")
    model.max_seq_length = a.max_length
    return lambda texts: model.encode(texts, batch_size=a.batch, normalize_embeddings=True, show_progress_bar=False)


def runtime(a):
    """The names of the exported graph's inputs, and a function from those inputs to its output."""
    if a.contestant in ("openvino", "openvino-bf16"):
        import openvino as ov
        precision = "bf16" if a.contestant.endswith("bf16") else "f32"
        settings = {"INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
        model = ov.Core().compile_model(graph(a, "plain"), "CPU", settings)
        request = model.create_infer_request()
        return [x.any_name for x in model.inputs], lambda feed: request.infer(feed)[0]
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.intra_op_num_threads = a.threads
    file = graph(a, "int8" if a.contestant.endswith("int8") else "fused")
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return [x.name for x in session.get_inputs()], lambda feed: session.run(None, feed)[0]


def by_graph(a):
    """As `sentence_transformers`, by the exported graph."""
    import numpy as np
    names, infer = runtime(a)
    tokens = tokenizer(a)
    with open(os.path.join(a.model, "config.json"), encoding="utf-8") as file:
        tokens.enable_padding(pad_id=json.load(file)["pad_token_id"])

    def run(items):
        out = [None] * len(items)
        order = sorted(range(len(items)), key=lambda i: -length(items[i]))
        for first in range(0, len(items), a.batch):
            some = order[first : first + a.batch]
            encoded = tokens.encode_batch([items[i] for i in some])
            columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
            feed = {name: np.array([getattr(e, columns[name]) for e in encoded], np.int64) for name in names}
            results = infer(feed)
            for i, result in zip(some, results[:, 0] if a.pairs else unit_means(results, feed["attention_mask"])):
                out[i] = result
        return np.array(out)

    return run


def unit_means(hidden, mask):
    """Mean pooling and normalisation."""
    import numpy as np
    pooled = np.matmul(mask.astype(np.float32)[:, None, :], hidden)[:, 0]
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True)


def peer(a):
    """One round of a peer."""
    items = read(a)
    run = sentence_transformers(a) if a.contestant == "sentence-transformers" else by_graph(a)
    run(items[:WARM_UP])
    begun, cpu_begun = time.perf_counter(), cpu_seconds(resource.RUSAGE_SELF)
    results = run(items)
    measured = {"s": time.perf_counter() - begun, "cpu_s": cpu_seconds(resource.RUSAGE_SELF) - cpu_begun}
    if not a.pairs:
        measured["p50_ms"] = latency(run)
    if a.dump:
        import numpy as np
        np.save(a.dump, results)
    # Not getrusage's figure, which begins with that of the process that started this one.
    with open("/proc/self/status") as status:
        rss = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    return measured | {"rss_mib": rss}


def latency(run):
    """The median time of one short text, in milliseconds."""
    single = []
    for _ in range(60):
        begun = time.perf_counter()
        run([TEXT])
        single.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(single[10:])


def cpu_seconds(whose):
    return sum(resource.getrusage(whose)[:2])


def lexel(a, command, file, *options):
    """Runs one of lexel's commands, and returns its report."""
    dtype = a.contestant.partition("-")[2] or "f32"
    shared = ["--model", a.model, "--device", "cpu", "--dtype", dtype, "--max-seq-length", str(a.max_length)]
    line = [a.lexel, command, *shared, "--input", file, "--json", "--quiet", *options]
    return json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)


def lexel_texts(a, folder):
    """One round of lexel on texts."""
    file = write(folder, "texts.txt", lines(a))
    if a.dump:
        lexel(a, "encode", file, "--output", a.dump)
    found = lexel(a, "bench", file, "--repeats", "1")
    return {"s": found["repeats"][0], "cpu_s": found["cpu_s"], "p50_ms": found["p50_ms"], "rss_mib": found["peak_rss_mib"]}


def lexel_pairs(a, folder):
    """One round of lexel on pairs. The CPU time is that beyond a run on no pairs, which is loading the model."""
    def predict(file):
        begun = cpu_seconds(resource.RUSAGE_CHILDREN)
        output = a.dump or os.path.join(folder, "scores.npy")
        found = lexel(a, "predict", file, "--no-header", "--activation", "identity", "--output", output)
        return found["seconds"], cpu_seconds(resource.RUSAGE_CHILDREN) - begun

    none = write(folder, "none.tsv", [])
    predict(none)  # brings the model's files into the system's cache
    _, loading = predict(none)
    seconds, cpu = predict(write(folder, "pairs.tsv", lines(a)))
    rss = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {"s": seconds, "cpu_s": cpu - loading, "rss_mib": rss}


def write(folder, name, lines):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
    return path


def run_contestant(a):
    """One contestant's round, in this process or one that it starts."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: a.threads])
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"]:
        os.environ[name] = str(a.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if not a.contestant.startswith("lexel"):
        return peer(a)
    with tempfile.TemporaryDirectory() as folder:
        return (lexel_pairs if a.pairs else lexel_texts)(a, folder)


def contest(a, names, report):
    """Every contestant's rounds, and what it computed in the first of them."""
    import numpy as np
    runs, results = {name: [] for name in names}, {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(a.rounds):
            for name in names:
                command = [sys.executable, __file__, *sys.argv[1:], "--contestant", name]
                dump = os.path.join(folder, f"{name}.npy")
                command += ["--dump", dump] if i == 0 else []
                runs[name].append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]))
                if i == 0:
                    results[name] = np.load(dump)
                report(f"round {i + 1}: {name}", runs[name][-1])
    return runs, results


def agreement(a, found, reference):
    import numpy as np
    if a.pairs:
        return f"{np.abs(found - reference).max():.1e}"
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    return f"{(unit(found) * unit(reference)).sum(1).mean():.5f}"


def print_table(a, runs, results, work, unit):
    names = list(runs)
    median = lambda name, key: statistics.median(run[key] for run in runs[name])
    reference = results.get("sentence-transformers", results[names[0]])
    head = ["", f"{unit}/s", "lowest", "highest", "lexel is", f"{unit}/CPU s", "lexel is", "MiB"]
    head += ["largest difference"] if a.pairs else ["cosine", "p50 ms"]
    table = [head]
    for name in names:
        same = next((f"lexel-{dtype}" for dtype in ("int8", "bf16") if name.endswith(dtype)), "lexel")
        ratio = lambda key: f"{median(name, key) / median(same, key):.2f}x" if same in runs else ""
        rates = [work / run["s"] for run in runs[name]]
        digits = 1 if a.pairs else 0
        speeds = [f"{rate:.{digits}f}" for rate in (statistics.median(rates), min(rates), max(rates))]
        row = [name, *speeds, ratio("s"), f"{work / median(name, 'cpu_s'):.{digits}f}", ratio("cpu_s")]
        row += [f"{median(name, 'rss_mib'):.0f}", agreement(a, results[name], reference)]
        table.append(row if a.pairs else row + [f"{median(name, 'p50_ms'):.2f}"])
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        print("  ".join([row[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]))
    if a.pairs:
        print(f"scores are {reference.mean():.2f} on average, with a standard deviation of {reference.std():.2f}")


def main():
    a = arguments()
    if a.contestant:
        return print(json.dumps(run_contestant(a)))
    names = a.contestants.split(",")
    if any(name.startswith(("openvino", "onnxruntime")) for name in names):
        export(a)
    items, noun = read(a), "pairs" if a.pairs else "texts"
    # lexel computes equal texts once; here nobody gets any.
    if len(set(items)) < len(items):
        print(f"note: {len(items) - len(set(items))} of the {noun} are repetitions, which lexel computes once")
    tokens = sum(len(e.ids) for e in tokenizer(a).encode_batch(items))
    work, unit = (len(items), "pairs") if a.pairs else (tokens, "tokens")
    progress = lambda what, run: print(f"{what}: {work / run['s']:.0f} {unit}/s", file=sys.stderr)
    runs, results = contest(a, names, progress)
    print(f"{len(items)} {noun}, {tokens} tokens, {a.threads} threads, {a.rounds} rounds, load average {os.getloadavg()[0]:.1f}")
    print_table(a, runs, results, work, unit)


main()
