#!/usr/bin/env bash
# The presets on a GPU, as one table: `lexel bench` and, where a Python with torch is found, the same shapes in PyTorch.
#
#     cargo build --release --workspace
#     benches/gpu.sh > gpu.md
#
# It needs no network and no model: shapes with random weights, random token ids of the same lengths for both. The rest of a
# report, the JSON of every run, goes to $OUT.
#
#   --device NAME    as of lexel [default: gpu]
#   --quick          one small preset and few texts: to see that it works
#   --no-torch       without PyTorch
#
#   LEXEL=PATH       the program [default: target/release/lexel beside this script]
#   PYTHON=PATH      the Python to look for torch in [default: python3]
#   OUT=FOLDER       [default: gpu-bench in the system's folder for temporary files]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
lexel=${LEXEL:-${CARGO_TARGET_DIR:-$here/../target}/release/lexel}
python=${PYTHON:-python3}
out=${OUT:-${TMPDIR:-/tmp}/gpu-bench}
device=gpu
torch=yes
presets="all-MiniLM-L6-v2 bert-base bge-large xlm-r-base modernbert-base"
lengths="short mixed 512"
dtypes="f32 f16 int8"
tokens=1000000
repeats=3

while [ $# -gt 0 ]; do
    case $1 in
        --device) device=$2; shift ;;
        --quick) presets=all-MiniLM-L6-v2; lengths="short 512"; tokens=2048; repeats=1 ;;
        --no-torch) torch=no ;;
        *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
    shift
done
[ -x "$lexel" ] || { echo "$lexel is not there: cargo build --release --workspace, or set LEXEL" >&2; exit 1; }
if [ $torch = yes ] && ! "$python" -c 'import torch' 2>/dev/null; then
    echo "$python has no torch: only lexel is measured" >&2
    torch=no
fi
mkdir -p "$out"

# As many texts as have about so many tokens.
texts() {
    case $1 in short) mean=28 ;; mixed) mean=70 ;; *) mean=$1 ;; esac
    # MiniLM truncates at 256.
    [ "$2" = all-MiniLM-L6-v2 ] && [ "$mean" -gt 256 ] && mean=256
    # A large model is slow, and its rate is known after fewer.
    local all=$tokens
    [ "$2" = bge-large ] && all=$((tokens / 4))
    echo $(((all + mean - 1) / mean))
}

# field NAME FILE: a number of a run, 0 where there is none.
field() {
    sed -n "s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" "$2" | head -n 1 | grep . || echo 0
}

echo "# $("$lexel" --version) on $device"
echo
echo "$(date -u +%F), $(uname -sr), repeats: $repeats (median)"
echo
echo '```'
"$lexel" devices
[ $torch = yes ] && "$python" -c 'import torch; print("torch", torch.__version__, "float16 on " + torch.cuda.get_device_name() if torch.cuda.is_available() else "float32 on the CPU")'
echo '```'
echo
echo "| preset | lengths | dtype | texts/s | tokens/s | one text, p50 ms | device idle | load s | torch texts/s | ratio |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for preset in $presets; do
    for length in $lengths; do
        count=$(texts "$length" "$preset")
        reference=0
        if [ $torch = yes ]; then
            file=$out/$preset-$length-torch.json
            if "$python" "$here/gpu_torch.py" --preset "$preset" --lengths "$length" --texts "$count" --repeats $repeats > "$file"; then
                reference=$(field texts_per_s "$file")
            fi
        fi
        for dtype in $dtypes; do
            file=$out/$preset-$length-$dtype.json
            if ! "$lexel" bench --preset "$preset" --lengths "$length" --dtype "$dtype" --device "$device" --texts "$count" \
                --repeats $repeats --json --quiet > "$file" 2> "$file.err"; then
                # A dtype that the device has not is no failure; anything else is said.
                grep -qE 'int8|16-bit|f16' "$file.err" || { echo "$preset $length $dtype:" >&2; cat "$file.err" >&2; }
                continue
            fi
            awk -v preset="$preset" -v length_="$length" -v dtype="$dtype" -v reference="$reference" \
                -v texts="$(field texts_per_s "$file")" -v tokens="$(field tokens_per_s "$file")" \
                -v p50="$(field p50_ms "$file")" -v idle="$(field device_idle "$file")" -v load="$(field load_s "$file")" 'BEGIN {
                ratio = reference > 0 ? sprintf("%.2f", texts / reference) : "-"
                torch = reference > 0 ? sprintf("%.0f", reference) : "-"
                printf "| %s | %s | %s | %.0f | %.0f | %.2f | %.0f %% | %.2f | %s | %s |\n", preset, length_, dtype, texts, tokens, p50, 100 * idle, load, torch, ratio
            }'
        done
        if [ -s "$out/$preset-$length-f32.json" ]; then
            "$lexel" bench --preset "$preset" --lengths "$length" --device "$device" --profile --quiet > "$out/$preset-$length-profile.txt" 2>&1 || true
        fi
    done
done
echo
echo "Profiles by op and the JSON of every run: $out"
