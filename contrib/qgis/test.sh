#!/usr/bin/env bash
# Runs the provider and opens a map in a real QGIS of the distribution, offscreen.
# Debian and Ubuntu: apt-get install --no-install-recommends qgis python3-qgis
set -euo pipefail
cd "$(dirname "$0")/../.."
python -m pytest -n0 -rs -m "" tests/geo/test_qgis.py
