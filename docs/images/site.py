"""Take pictures of the built site and of its parts, to look at them.

    mkdocs build --strict && python docs/images/site.py site shots

A server of the built folder is started, and headless Chromium photographs each page in light
and dark. Links are those of the built folder: what is broken there is broken here.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from PIL import Image

# name of the picture -> page, width and height of the window, dark
PAGES = {
    "index": ("index.html", 1280, 1000, False),
    "index_dark": ("index.html", 1280, 1000, True),
    "tutorial": ("tutorials/scene-to-map.html", 1280, 2000, False),
    "weights": ("reference/weights.html?filter=s1-grd", 1280, 800, False),
    "embed": ("reference/cli/scenes.html", 1280, 1000, False),
    "notebook": ("notebooks/first_encoder.html", 1280, 2800, False),
    "notebook_dark": ("notebooks/first_encoder.html", 1280, 1400, True),
    "api": ("reference/api/index.html", 1280, 1200, False),
    "results": ("results/study_real_pixels.html", 1280, 1600, False),
    "faq": ("faq.html", 500, 900, False),
}


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: Path) -> ThreadingHTTPServer:
    """Serve a folder at a free port of this machine."""
    handler = functools.partial(Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def shoot(address: str, out: Path, width: int, height: int, *, dark: bool) -> None:
    """Photograph the top of a page; colours are reduced, to keep the file small."""
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.png"
        subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                f"--user-data-dir={scratch}/profile", "--virtual-time-budget=4000", *scheme,
                f"--window-size={width},{height}", f"--screenshot={raw}", address,
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        with Image.open(raw) as picture:
            fewer = picture.convert("RGB").quantize(128)
    fewer.save(out, optimize=True)


def main() -> None:
    """Photograph all pages, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", type=Path, help="the built folder")
    parser.add_argument("out", type=Path, help="folder of the pictures")
    parser.add_argument("names", nargs="*", default=list(PAGES))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    server = serve(chosen.site.resolve())
    for name in chosen.names:
        page, width, height, dark = PAGES[name]
        file = chosen.out / f"site_{name}.png"
        shoot(f"http://127.0.0.1:{server.server_port}/{page}", file, width, height, dark=dark)
        print(f"{file}: {file.stat().st_size // 1000} kB")
    server.shutdown()


if __name__ == "__main__":
    main()
