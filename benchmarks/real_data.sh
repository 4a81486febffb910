#!/usr/bin/env bash
# From real GeoTIFFs to a pretrained, benchmarked encoder: what benchmarks/results/real_data.md shows.
#
#   bash benchmarks/real_data.sh [WORK_FOLDER]
#
# Needs the folder of real imagery that the tests use (EOFM_REAL_DATA): three TerraMesh sites of
# 224 x 224 pixels with land cover, and 270 EuroSAT tiles. So little data shows that the path works
# and says nothing about how good the method is.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${EOFM_REAL_DATA:-../shared/data}
work=${1:-runs/real-data}
results=benchmarks/results
mkdir -p "$work" "$results"

# Sentinel-2: the site 609U... carries the +1000 offset and must be declared; without it: refused.
if eofm pack tiles --images "$data/terramesh/S2L1C" --sensor s2-l1c --unit dn \
    --landcover "$data/terramesh/LULC" --scheme terramesh --window 112 --stride 56 \
    --out "$work/store-refused" 2>"$work/refusal.txt"; then
    echo "the undeclared offset was not refused" >&2
    exit 1
fi
eofm pack tiles --images "$data/terramesh/S2L1C" --sensor s2-l1c --unit dn \
    --unit_of '{"609U*": "dn-offset1000"}' \
    --landcover "$data/terramesh/LULC" --scheme terramesh --window 112 --stride 56 \
    --out "$work/store-s2"
eofm pretrain --data.store "$work/store-s2" --data.holdout 0.34 --optim.batch 9 --optim.epochs 30 \
    --run.out "$work/s2"
eofm bench eurosat --root "$data/eurosat_ms" --probe knn,linear --seed 1 \
    --model "result=$work/s2/export/student,initialisation=$work/s2/export/init,random,imagestats" \
    --out "$results/eurosat_subset.jsonl" >"$work/eurosat.md"

# Sentinel-1, without the benchmark.
eofm pack tiles --images "$data/terramesh/S1RTC" --sensor s1-rtc --unit db \
    --landcover "$data/terramesh/LULC" --scheme terramesh --window 112 --stride 56 \
    --out "$work/store-s1"
eofm pretrain --data.store "$work/store-s1" --data.holdout 0.34 --optim.batch 9 --optim.epochs 30 \
    --run.out "$work/s1"

{
    echo "# Real imagery, end to end"
    echo
    echo "Made by \`bash benchmarks/real_data.sh\`, whose lines are the commands. Three TerraMesh sites"
    echo "(CC-BY-SA-4.0) and 270 EuroSAT tiles (MIT): enough to show that the path from GeoTIFFs to a"
    echo "table works, far too little to say how good the method is. Read the intervals."
    echo
    echo "## The undeclared offset is refused"
    echo
    echo '```'
    grep -v "where:" "$work/refusal.txt"
    echo '```'
    echo
    echo "## Sentinel-2 L1C: pretraining, 27 windows of three sites, one site held out"
    echo
    tail -n +3 "$work/s2/report.md"
    echo
    echo "## EuroSAT (subset): linear and kNN"
    echo
    grep -v "new records" "$work/eurosat.md"
    echo
    echo "## Sentinel-1 RTC: pretraining"
    echo
    tail -n +3 "$work/s1/report.md"
} >"$results/real_data.md"
