#!/usr/bin/env bash
# Data at scale, real and synthetic: what benchmarks/results/data_at_scale.md shows.
#
#   bash benchmarks/data_at_scale.sh [WORK_FOLDER] [SCENES]
#
# Needs the folder of real imagery that the tests use (EOFM_REAL_DATA): six BigEarthNet pairs, twelve
# S2-100K patches, three TerraMesh sites and one whole ESA WorldCover tile. The large store and the
# scenes of the kill test are SYNTHETIC. Takes some minutes and 6 GB of disk.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${EOFM_REAL_DATA:-../shared/data}
work=${1:-runs/data-at-scale}
scenes=${2:-20000}
table=benchmarks/results/data_at_scale.md
tile=$data/esa_worldcover/ESA_WorldCover_10m_2021_v200_N00E006_Map.tif
rm -rf "$work"
mkdir -p "$work" "$(dirname "$table")"

# run STATUS WORDS...: run a command, check its status, and show both with paths as a reader has them
run() {
    local expected=$1 status=0
    shift
    printf '```console\n$ %s\n' "$(shown "$@")"
    "$@" >"$work/out.txt" 2>"$work/err.txt" || status=$?
    if [ "$status" -ne "$expected" ]; then
        cat "$work/out.txt" "$work/err.txt" >&2
        echo "status $status of: $*" >&2
        exit 1
    fi
    plain <"$work/out.txt"
    # progress goes to stderr too: of a refusal, show the error alone
    if [ "$expected" -ne 0 ]; then
        sed -n '/error:/,$p' "$work/err.txt" | plain
        printf '(status %s)\n' "$status"
    fi
    printf '```\n\n'
}

shown() {
    local words=()
    [[ $1 == timed || $1 == measured ]] && shift
    for word in "$@"; do
        case $word in *[\ \"\[\*]*) words+=("'$word'") ;; *) words+=("$word") ;; esac
    done
    echo "${words[*]}" | plain
}

plain() {
    sed -e "s#$work#WORK#g; s#$data#DATA#g; s#$(realpath "$data")#DATA#g" -e 's/[[:space:]]*$//'
}

# timed WORDS..., measured WORDS...: run a command and say how long it took, and with how much memory
timed() { measure "$@" | sed 's/, [0-9]* MB of memory at most$//'; }
measured() { measure "$@"; }

measure() {
    python - "$@" <<'PY'
import resource, subprocess, sys, time

begun = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(f"{time.perf_counter() - begun:.1f} s, {peak:.0f} MB of memory at most")
PY
}

bigearthnet() {
    echo "## Real: six pairs of BigEarthNet v1 (CDLA-Permissive-1.0)"
    echo
    run 0 eofm data check "$data/bigearthnet_v1"
    run 0 eofm pack bigearthnet --root "$data/bigearthnet_v1" --sensors s2-l2a,s1-grd \
        --excluded true --workers 2 --verify --stats --out "$work/bigearthnet"
    run 0 eofm data check "$work/bigearthnet"
    run 0 eofm data show "$work/bigearthnet"
    run 0 eofm data stats "$work/bigearthnet/s1-grd"
}

s2_100k() {
    echo "## Real: twelve patches of S2-100K (MIT), without labels"
    echo
    run 0 eofm data check "$data/s2_100k"
    run 0 eofm pack tiles --images "$data/s2_100k/images" --sensor s2-l2a --unit dn --window 256 \
        --workers 2 --verify --stats --out "$work/s2-100k"
    run 0 eofm data show "$work/s2-100k"
    run 0 eofm data verify "$work/s2-100k"
}

terramesh() {
    echo "## Real: three sites of TerraMesh (CC-BY-SA-4.0)"
    echo
    echo "One of them was processed with the offset of 1000, and says so nowhere. It is found, and refused"
    echo "until it is stated."
    echo
    run 1 eofm data check "$data/terramesh"
    local pack=(eofm pack tiles --images "$data/terramesh/S2L1C" --sensor s2-l1c --unit dn
        --landcover "$data/terramesh/LULC" --scheme terramesh --window 112 --stride 56)
    run 1 "${pack[@]}" --out "$work/refused"
    run 0 "${pack[@]}" --unit_of '{"609U*": "dn-offset1000"}' --workers 2 --verify \
        --out "$work/terramesh"
    run 0 eofm data check "$work/terramesh"
    run 0 eofm data show "$work/terramesh"
    run 0 eofm data verify "$work/terramesh"
    run 0 eofm data stats "$work/terramesh"
    echo "Labels of the finished store, counted again from the maps at a threshold of 5 %, and put in"
    echo "without touching a pixel:"
    echo
    run 0 eofm labels "$data/terramesh/LULC" --scenes "$work/terramesh" --scheme terramesh \
        --threshold 0.05 --out "$work/terramesh.parquet"
    run 0 eofm data relabel "$work/terramesh" --labels "$work/terramesh.parquet" \
        --out "$work/terramesh-5"
}

worldcover() {
    echo "## Real: one tile of ESA WorldCover 2021 (CC-BY-4.0), 36,000 x 36,000 pixels"
    echo
    run 0 eofm data check "$data/esa_worldcover"
    run 0 measured eofm labels "$tile" --scheme worldcover --window 264 \
        --out "$work/worldcover.parquet"
}

large() {
    echo "## Synthetic: a store of $scenes scenes, labelled from the real WorldCover tile"
    echo
    echo "Random pixels of 13 bands at 132, at random places of that tile: this is about size and speed."
    echo
    run 0 python benchmarks/speed/store.py --scenes "$scenes" --size 132 --box 6 0 9 3 \
        --keep "$work/synthetic"
    run 0 measured eofm labels "$tile" --scenes "$work/synthetic" --scheme worldcover \
        --out "$work/synthetic.parquet"
    run 0 timed eofm data relabel "$work/synthetic" --labels "$work/synthetic.parquet" \
        --in_place true
    run 0 timed eofm data check "$work/synthetic" --limit 0
    run 0 timed eofm data verify "$work/synthetic"
    run 0 timed eofm data stats "$work/synthetic" --sample 5000
    run 0 timed eofm data show "$work/synthetic"
}

# Kill the packing of two sensors at random points, until one run gets through; then compare bytes.
killed() {
    echo "## Synthetic: killed again and again"
    echo
    eofm world --out "$work/world" --scenes 30 --seed 1 >"$work/out.txt" 2>"$work/err.txt"
    local pack=(eofm pack ssl4eo --root "$work/world" --sensors s2c,s1 --landcover "$work/world/dw"
        --scheme dynamic-world --workers 2)
    local kills=0 pid after begun=${EPOCHREALTIME/./}
    "${pack[@]}" --out "$work/whole" >"$work/out.txt" 2>"$work/err.txt"
    local takes=$((${EPOCHREALTIME/./} - begun)) # microseconds
    RANDOM=1
    while [ "$kills" -lt 8 ]; do
        setsid "${pack[@]}" --out "$work/killed" >"$work/out.txt" 2>"$work/err.txt" &
        pid=$!
        after=$((takes * (20 + RANDOM % 30) / 100))
        sleep "$((after / 1000000)).$(printf '%06d' $((after % 1000000)))"
        kill -KILL -- "-$pid" 2>/dev/null && kills=$((kills + 1))
        wait "$pid" 2>/dev/null || true
        [ -f "$work/killed/rows.parquet" ] && break
    done
    "${pack[@]}" --out "$work/killed" >"$work/out.txt" 2>"$work/err.txt"
    diff -r "$work/whole" "$work/killed"
    echo "\`$(shown "${pack[@]}" --out "$work/killed")\`"
    echo
    echo "was ended $kills times by SIGKILL (all of its processes, after 20 to 50 % of the time that it takes"
    echo "undisturbed) and run once more."
    echo "\`diff -r\` with an undisturbed run finds no difference in $(find "$work/whole" -type f | wc -l) files:"
    echo
    run 0 eofm data verify "$work/killed/s2-l1c"
    run 0 eofm data check "$work/killed"
}

{
    echo "# Data at scale"
    echo
    echo "Made by \`bash benchmarks/data_at_scale.sh\`; DATA is the folder of real imagery (\`EOFM_REAL_DATA\`),"
    echo "WORK a scratch folder. The real sets are samples: they show that the path works. Times are those of"
    echo "$(nproc --all) cores that were busy with other work."
    echo
    bigearthnet
    s2_100k
    terramesh
    worldcover
    large
    killed
} >"$work/table.md"
cp "$work/table.md" "$table"
