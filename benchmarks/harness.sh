#!/usr/bin/env bash
# The harness on real data, and against other people's code: what benchmarks/results/harness.md shows.
#
#   bash benchmarks/harness.sh [WORK_FOLDER]
#
# Needs the folder of real imagery that the tests use (EOFM_REAL_DATA), torchgeo and scikit-learn.
# About ten minutes of one core; what is there already (an export, features, rows) is not made again.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${EOFM_REAL_DATA:-../shared/data}
work=${1:-runs/harness}
results=benchmarks/results
page=$results/harness.md
tiles="$data/eurosat_ms"
ours=benchmarks/harness_agreement.py
mkdir -p "$work" "$results/harness"
export PYTHONWARNINGS=ignore

quiet() {
    if ! "$@" >"$work/out.txt" 2>"$work/err.txt"; then
        cat "$work/out.txt" "$work/err.txt" >&2
        return 1
    fi
}

plain() {
    sed -e "s#$(realpath "$work")#WORK#g; s#$work#WORK#g; s#$(realpath "$data")#DATA#g; s#$data#DATA#g" \
        -e "s#$PWD/##g" -e 's/[[:space:]]*$//'
}

# shown WORDS...: the command as a reader types it
shown() { printf '```bash\n%s\n```\n\n' "$(printf '%s ' "$@" | plain)"; }

# part TABLE? WORDS...: run a command, show what it prints, below it the command
part() {
    quiet "$@"
    grep -v -e '^- `eofm ' -e '^`eofm ' -e ' new records\? in ' -e ' record.* there already' "$work/out.txt" |
        grep -v -e '^curves: ' | plain | cat -s
    echo
    shown "$@"
}

# console WORDS...: the same for what is no table
console() {
    quiet "$@"
    printf '```console\n$ %s\n' "$(printf '%s ' "$@" | plain)"
    tail -n "${lines:-20}" "$work/out.txt" | plain
    printf '```\n\n'
}

# ------------------------------------------------------------------------------- encoders
if [ ! -e "$work/s2/export/student" ]; then
    # real pretraining as in real_data.sh, the rate lower
    quiet eofm pack tiles --images "$data/terramesh/S2L1C" --sensor s2-l1c --unit dn \
        --unit_of '{"609U*": "dn-offset1000"}' \
        --landcover "$data/terramesh/LULC" --scheme terramesh --window 112 --stride 56 \
        --out "$work/store-s2"
    quiet eofm pretrain --data.store "$work/store-s2" --data.holdout 0.34 --optim.batch 9 \
        --optim.epochs 30 --optim.lr 0.001 --run.out "$work/s2"
fi
[ -e "$work/rgb.yaml" ] || quiet python "$ours" prepare "$work"
student=student=$work/s2/export/student
init=init=$work/s2/export/init
rgb=resnet18-rgb=timm:resnet18@$work/resnet18.pth
models=$student,teacher=$work/s2/export/teacher,$init,resnet50=$ours:resnet50
models=$models,$rgb,convnext-rgb=timm:convnext_atto@$work/convnext_atto.pth
base=(--root "$tiles" --seed 1 --batch 32 --cache "$work/features")
records=$work/eurosat_encoders.jsonl

eurosat() {
    cat <<'MD'
# The harness on real data

Made by `bash benchmarks/harness.sh`; below each table stands its command. WORK is its folder, DATA the folder of real
imagery. **None of the encoders is a published network**: published weights could not be had where this was made, so
nothing here says how good any of them is. What is shown is the harness at work, on real pixels, checked by others' code.

| encoder | what it is | input |
|---|---|---|
| student, teacher | vit-tiny-14, pretrained here for 30 epochs on 18 windows of two real TerraMesh sites | 13 bands, 112 px |
| init | the same network before its first step | 13 bands, 112 px |
| resnet50 | fixed random weights, by a function of one's own (`harness_agreement.py:resnet50`) | 13 bands, 128 px |
| resnet18-rgb, convnext-rgb | timm's resnet18 and convnext_atto with fixed *random* weights in a file, and an explicit recipe. ("As timm's card says" below does not hold of such a file.) | B04 B03 B02, 128 px |
| *imagestats, rcf, rcf-zca* | controls | 13 bands, 64 px |
| *random, random-2, random-3* | controls: untrained twins of vit-tiny-14, resnet18-rgb and convnext-rgb, another seed | as theirs |

## EuroSAT MS: six encoders, all controls, six probes

A **subset**: 270 of 27,000 tiles, 54 of them for test, so an interval is 25 points wide and hardly any two rows differ. That
statistics of the bands and random filters beat networks of so little training, or none, is what controls are for:
the harness says so in the column of notes.

MD
    quiet eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$models" \
        --probe knn,knn20,nmc,linear --out "$records"
    quiet eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$student,$init,$rgb" \
        --probe linear-grid --controls false --out "$records"
    quiet eofm bench eurosat "${base[@]}" --model "$student,$init" --controls false \
        --probe finetune --train.epochs 8 --train.factors 0.1,1 --out "$records"
    part eofm bench table "$records"
    shown eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$models" \
        --probe knn,knn20,nmc,linear --out "$records"
    shown eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$student,$init,$rgb" \
        --probe linear-grid --controls false --out "$records"
    shown eofm bench eurosat "${base[@]}" --model "$student,$init" --controls false \
        --probe finetune --train.epochs 8 --train.factors 0.1,1 --out "$records"
    cat <<'MD'
The records are `eurosat_encoders.jsonl`. Predictions of every test tile lie beside them where they were made (not in the
repository). From these each score and interval was computed again:

MD
    lines=4 console eofm bench validate "$records"
    echo "## Two models on the same tiles"
    echo
    part eofm bench compare student imagestats --results "$records" --probe knn
    echo "\`bench aggregate\` is left out: the other task at hand, six BigEarthNet pairs, has one test image."
    echo
}

ablation() {
    cat <<'MD'
## Size x normalisation

The same weights with another input: the table of arXiv 2305.13456 for any encoder. Only the row in bold is standard.

MD
    for pair in "student $student 28,70,own,168" "resnet18-rgb $rgb 32,64,own,168"; do
        read -r name model sizes <<<"$pair"
        echo "![$name](harness/ablation-$name.png)"
        echo
        part eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$model" --probe knn \
            --controls false --size "$sizes" --normalization auto --bootstrap 500 \
            --out "$work/ablation-$name.jsonl"
        quiet eofm bench plot "$work/ablation-$name.jsonl" --out "$work/figures-$name" --nonstandard true
        cp "$work/figures-$name"/*-oa-size.png "$results/harness/ablation-$name.png"
    done
}

curves() {
    cat <<'MD'
## Fewer labels, other sizes

MD
    local pair="$student,$rgb"
    quiet eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$pair" --controls false \
        --probe linear --shares 2-shot,5-shot,10-shot --draws 5 --out "$work/shares.jsonl"
    quiet eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$pair" --controls false \
        --probe linear --size 42,70,168 --out "$work/sizes.jsonl"
    local kind axis
    for words in "shares labels" "sizes size"; do
        read -r kind axis <<<"$words"
        quiet eofm bench plot "$work/$kind.jsonl" --out "$work/figures-$kind" --nonstandard true
        cp "$work/figures-$kind"/*-oa-"$axis".png "$results/harness/$kind.png"
        echo "![$kind](harness/$kind.png)"
        echo
    done
    shown eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$pair" --controls false \
        --probe linear --shares 2-shot,5-shot,10-shot --draws 5 --out "$work/shares.jsonl"
    shown eofm bench plot "$work/shares.jsonl" --out "$work/figures-shares" --nonstandard true
    shown eofm bench eurosat "${base[@]}" --recipe "$work/rgb.yaml" --model "$pair" --controls false \
        --probe linear --size 42,70,168 --out "$work/sizes.jsonl"
    shown eofm bench plot "$work/sizes.jsonl" --out "$work/figures-sizes" --nonstandard true
}

bigearthnet() {
    cat <<'MD'
## BigEarthNet v1: the six real pairs

Four of train, one of test, one left out because it is under snow. One test image has no interval and its score says nothing; the
official lists, the labels, the waivers of Level-2A and the pairing of both sensors are what is shown.

MD
    local ben=(eofm bench bigearthnet --root "$data/bigearthnet_v1" --version v1 --probe knn --k 3
        --cache "$work/features" --bootstrap 100 --out "$work/bigearthnet_v1.jsonl")
    part "${ben[@]}" --model "$student,$init"
    part "${ben[@]}" --sensor both --model imagestats --controls false
    cat <<'MD'
## BigEarthNet v2: the real tables, and a miniature joined with them

Split and class counts of the 480,038 patches of the published `metadata.parquet`, read by eofm, beside those of arXiv 2407.03653:

MD
    part python "$ours" reben "$data/bigearthnet_v2" "$work/reben"
    cat <<'MD'
46 patches of them in the layout of the archives: names, splits and labels are real, the pixels **synthetic**, so scores mean nothing.
The table says how many patches are missing.

MD
    part eofm bench bigearthnet --root "$work/reben" --metadata "$data/bigearthnet_v2" \
        --model "$student,imagestats" --controls false --probe knn,linear --bootstrap 200 \
        --cache "$work/features" --out "$work/bigearthnet_v2.jsonl"
}

agreement() {
    cat <<'MD'
## Agreement with others' code on the same bytes

torchgeo's `EuroSAT` reads the same tiles, its `RCF` filters them, timm's ResNet-50 of the same seed embeds them after a plain
`torch.nn.functional.interpolate`; scikit-learn standardises, votes (`KNeighborsClassifier`, k = 5) and fits (`LogisticRegression` at
the C that eofm chose on val). Splits and band constants are shared. Seed 1, since torchgeo takes 0 for none.

MD
    part python "$ours" compare "$records" "$tiles" "$work"
    echo "What the tests hold in addition: every share of votes, average precision on ties, probabilities at the optimum."
    echo
    lines=2 console python -m pytest -q -p no:randomly tests/bench/test_agreement.py tests/bench/test_rcf.py \
        tests/bench/test_bigearthnet.py
}

# each part by itself: SECTIONS=curves makes one anew
for section in ${SECTIONS:-eurosat ablation curves bigearthnet agreement}; do
    "$section" >"$work/part.md"
    mv "$work/part.md" "$work/page-$section.md"
done
cat "$work"/page-{eurosat,ablation,curves,bigearthnet,agreement}.md | cat -s >"$page"
cp "$records" "$work/bigearthnet_v1.jsonl" "$results/"
