#!/usr/bin/env python3
"""lexel and its peers on the CPU, in turn on the same file: the whole encode, from strings to unit vectors.

    cargo build --release --workspace
    python3 -m venv ~/peers && ~/peers/bin/pip install sentence-transformers onnx onnxruntime openvino
    ~/peers/bin/python benches/peers.py --model FOLDER --input texts.txt [--texts 2000] [--rounds 5]

FOLDER is a checkpoint of a BERT with mean pooling, such as all-MiniLM-L6-v2. Every round runs each contestant once, in a process of its
own: so whatever else the machine does meets all of them. Printed are medians over the rounds, and ratios to the first peer
of the same dtype, of tokens a second of wall time and of CPU time. Tokens are counted once, by the tokenizer, without
padding. Peers sort by length and tokenise ahead of each batch, as sentence-transformers does.

The cosine is the mean to sentence-transformers' vectors, if it is among the contestants, else to the first's.
"""
import argparse, json, os, resource, statistics, subprocess, sys, tempfile, time

CONTESTANTS = ["lexel", "openvino", "onnxruntime", "sentence-transformers", "lexel-int8", "onnxruntime-int8"]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--input", required=True, help="one text a line")
    p.add_argument("--texts", type=int, default=2000, help="how many of its lines")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--batch", type=int, default=32, help="texts a batch, of the peers")
    p.add_argument("--max-length", type=int, default=256)
    p.add_argument("--contestants", default=",".join(CONTESTANTS))
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(__file__), "..", "target"))
    p.add_argument("--lexel", default=os.path.join(target, "release", "lexel"))
    p.add_argument("--onnx", default=os.path.join(tempfile.gettempdir(), "lexel-peers-onnx"), help="where exported graphs are kept")
    p.add_argument("--contestant", help=argparse.SUPPRESS)
    p.add_argument("--dump", help=argparse.SUPPRESS)
    return p.parse_args()


def read(a):
    with open(a.input, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file][: a.texts]


def export(a):
    """The checkpoint as ONNX, with onnxruntime's fused graph, and that one in int8 (weights per channel)."""
    if os.path.exists(os.path.join(a.onnx, "int8.onnx")):
        return
    import onnx, torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from transformers import AutoModel

    os.makedirs(a.onnx, exist_ok=True)
    model = AutoModel.from_pretrained(a.model, attn_implementation="eager").eval()
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, *xs):
            return self.model(**dict(zip(names, xs))).last_hidden_state

    xs = (torch.randint(5, 1000, (2, 16)), torch.ones(2, 16, dtype=torch.long), torch.zeros(2, 16, dtype=torch.long))
    plain, fused, int8 = (os.path.join(a.onnx, f"{name}.onnx") for name in ["plain", "fused", "int8"])
    # The TorchScript exporter's graph is the one that onnxruntime knows how to fuse.
    torch.onnx.export(Hidden().eval(), xs, plain, input_names=names, output_names=["hidden"], dynamo=False, opset_version=17,
                      dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names + ["hidden"]})
    config = model.config
    graph = optimizer.optimize_model(plain, model_type="bert", num_heads=config.num_attention_heads,
                                     hidden_size=config.hidden_size, opt_level=0, use_gpu=False)
    graph.save_model_to_file(fused)
    quantize_dynamic(fused, int8, weight_type=QuantType.QInt8, per_channel=True,
                     extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT})


def encoder(a, name):
    """A function from texts to unit vectors."""
    if name == "sentence-transformers":
        import torch
        from sentence_transformers import SentenceTransformer
        torch.set_num_threads(a.threads)
        model = SentenceTransformer(a.model, device="cpu")
        model.max_seq_length = a.max_length
        return lambda texts: model.encode(texts, batch_size=a.batch, normalize_embeddings=True)

    import numpy as np
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
    tokenizer.enable_truncation(a.max_length)
    tokenizer.enable_padding()
    if name == "openvino":
        import openvino as ov
        settings = {"INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        request = ov.Core().compile_model(os.path.join(a.onnx, "plain.onnx"), "CPU", settings).create_infer_request()
        infer = lambda feed: request.infer(feed)[0]
    else:
        import onnxruntime as ort
        options = ort.SessionOptions()
        options.intra_op_num_threads = a.threads
        file = os.path.join(a.onnx, "int8.onnx" if name.endswith("int8") else "fused.onnx")
        session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        infer = lambda feed: session.run(None, feed)[0]

    def encode(texts):
        out = [None] * len(texts)
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        for first in range(0, len(texts), a.batch):
            some = order[first : first + a.batch]
            encoded = tokenizer.encode_batch([texts[i] for i in some])
            mask = np.array([e.attention_mask for e in encoded], np.int64)
            feed = {"input_ids": np.array([e.ids for e in encoded], np.int64), "attention_mask": mask,
                    "token_type_ids": np.zeros_like(mask)}
            weights = mask.astype(np.float32)
            pooled = np.matmul(weights[:, None, :], infer(feed))[:, 0]
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
            for i, vector in zip(some, pooled):
                out[i] = vector
        return np.array(out)

    return encode


def run_peer(a):
    """One contestant's round, in this process."""
    for name in ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"]:
        os.environ[name] = str(a.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    texts = read(a)
    encode = encoder(a, a.contestant)
    encode(texts[:64])
    cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    begun, cpu_begun = time.perf_counter(), cpu()
    vectors = encode(texts)
    seconds, cpu_seconds = time.perf_counter() - begun, cpu() - cpu_begun
    single = []
    for _ in range(60):
        begun = time.perf_counter()
        encode(["The weather is lovely today."])
        single.append((time.perf_counter() - begun) * 1e3)
    if a.dump:
        import numpy as np
        np.save(a.dump, vectors)
    # Not getrusage's figure, which begins with that of the process that started this one.
    with open("/proc/self/status") as status:
        rss = next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"s": seconds, "cpu_s": cpu_seconds, "p50_ms": statistics.median(single[10:]), "rss_mib": rss}))


def one_round(a, name, dump):
    if not name.startswith("lexel"):
        command = [sys.executable, __file__, *sys.argv[1:], "--contestant", name] + (["--dump", dump] if dump else [])
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
    shared = ["--model", a.model, "--input", a.input, "--device", "cpu", "--max-seq-length", str(a.max_length)]
    shared += ["--dtype", "int8" if name.endswith("int8") else "f32"]
    limits = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[: a.threads]))]
    if dump:
        with tempfile.TemporaryDirectory() as folder:
            some = os.path.join(folder, "texts.txt")
            with open(some, "w", encoding="utf-8") as file:
                file.writelines(text + "\n" for text in read(a))
            encode = [a.lexel, "encode", *shared, "--output", dump]
            encode[encode.index(a.input)] = some
            subprocess.run(encode, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    bench = [*limits, a.lexel, "bench", *shared, "--texts", str(a.texts), "--repeats", "1", "--json"]
    found = json.loads(subprocess.run(bench, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
    return {"s": found["repeats"][0], "cpu_s": found["cpu_s"], "p50_ms": found["p50_ms"], "rss_mib": found["peak_rss_mib"]}


def main():
    a = arguments()
    if a.contestant:
        return run_peer(a)
    names = a.contestants.split(",")
    if any(name.startswith(("openvino", "onnxruntime")) for name in names):
        export(a)
    import numpy as np
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(os.path.join(a.model, "tokenizer.json"))
    tokenizer.enable_truncation(a.max_length)
    tokenizer.no_padding()
    # lexel computes equal texts once; here nobody gets any.
    texts = read(a)
    if len(set(texts)) < len(texts):
        print(f"note: {len(texts) - len(set(texts))} of the texts are repetitions, which lexel computes once")
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts))
    runs = {name: [] for name in names}
    vectors = {}
    with tempfile.TemporaryDirectory() as folder:
        for i in range(a.rounds):
            for name in names:
                dump = os.path.join(folder, f"{name}.npy") if i == 0 else None
                runs[name].append(one_round(a, name, dump))
                if dump:
                    vectors[name] = np.load(dump)
                print(f"round {i + 1}: {name}: {tokens / runs[name][-1]['s']:.0f} tokens/s", file=sys.stderr)
    median = lambda name, key: statistics.median(run[key] for run in runs[name])
    reference = vectors.get("sentence-transformers", vectors[names[0]])
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    print(f"{len(texts)} texts, {tokens} tokens, {a.threads} threads, {a.rounds} rounds, load average {os.getloadavg()[0]:.1f}")
    print(f"{'':<22} {'tokens/s':>9} {'lowest':>8} {'highest':>8} {'lexel is':>9} {'tokens/CPU s':>13} {'lexel is':>9} {'p50 ms':>7} {'MiB':>6} {'cosine':>8}")
    for name in names:
        lexel = "lexel-int8" if name.endswith("int8") else "lexel"
        wall, cpu = ([tokens / run[key] for run in runs[name]] for key in ["s", "cpu_s"])
        ratio = lambda key: f"{median(name, key) / median(lexel, key):.2f}x" if lexel in runs else ""
        cosine = (unit(vectors[name]) * unit(reference)).sum(1).mean()
        print(f"{name:<22} {statistics.median(wall):>9.0f} {min(wall):>8.0f} {max(wall):>8.0f} {ratio('s'):>9} "
              f"{statistics.median(cpu):>13.0f} {ratio('cpu_s'):>9} {median(name, 'p50_ms'):>7.2f} {median(name, 'rss_mib'):>6.0f} {cosine:>8.5f}")


main()
