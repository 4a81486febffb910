#!/usr/bin/env bash
# From real scenes to maps: what benchmarks/results/geo_real.md shows.
#
#   bash benchmarks/geo_real.sh [WORK_FOLDER]
#
# Needs the folder of real imagery that the tests use (EOFM_REAL_DATA), for a transformer that has
# seen anything also EOFM_REAL_WEIGHTS. Three sites of 2.24 km show that the path works, and say
# little about how good a map is.
set -euo pipefail
cd "$(dirname "$0")/.."
work=${1:-runs/geo-real}
mkdir -p "$work" benchmarks/results
python benchmarks/geo_real.py --data "${EOFM_REAL_DATA:-../shared/data}" \
    --weights "${EOFM_REAL_WEIGHTS:-../shared/weights}" --work "$work" \
    --out benchmarks/results/geo_real.md
