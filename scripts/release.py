"""Prepare a release: version, changelog, wheel, and a look at the wheel from outside.

    python scripts/release.py 0.2.0              # write version and changelog, build and check
    python scripts/release.py 0.2.0 --check      # build and check what is there, write nothing

The fragments of `changelog.d/` become one part of CHANGELOG.md and are deleted; the version is set
in `eofm/__init__.py` and CITATION.cff. Wheel and sdist are built (`build`), checked (`twine check
--strict`), and the wheel is installed into an empty environment, away from the checkout, where
`eofm --version`, a synthetic world and the list of weights have to work. Committing, tagging and
uploading are left to whoever releases.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]


def set_version(root: Path, version: str) -> None:
    """Write the version into the package and CITATION.cff."""
    for name, pattern, text in (
        ("eofm/__init__.py", r'^__version__ = ".*"$', f'__version__ = "{version}"'),
        ("CITATION.cff", r"^version: .*$", f"version: {version}"),
    ):
        path = root / name
        found, count = re.subn(pattern, text, path.read_text("utf-8"), flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{path}: {count} lines state the version, not one")
        path.write_text(found, "utf-8")


def collect_changes(root: Path, version: str, date: str) -> int:
    """Move the fragments of `changelog.d/` into CHANGELOG.md; return how many there were.

    They are added to the part `Unreleased`, which gets the version's name, or make a new part.
    """
    fragments = sorted((root / "changelog.d").glob("*.md"))
    if not fragments:
        return 0
    path = root / "CHANGELOG.md"
    text = path.read_text("utf-8")
    at = text.find("\n## ")
    head, rest = (text, "") if at < 0 else (text[:at], text[at + 1 :])
    body = "\n".join(fragment.read_text("utf-8").strip() for fragment in fragments)
    if rest.startswith("## Unreleased"):
        end = rest.find("\n## ")
        part, rest = (rest, "") if end < 0 else (rest[:end], rest[end + 1 :])
        body = part.partition("\n")[2].strip() + "\n\n" + body
    new = f"{head.rstrip()}\n\n## {version} ({date})\n\n{body.strip()}\n\n{rest}"
    path.write_text(new.rstrip() + "\n", "utf-8")
    for fragment in fragments:
        fragment.unlink()
    return len(fragments)


def build(root: Path, out: Path) -> Path:
    """Build sdist and wheel, check both, and return the wheel."""
    _run([sys.executable, "-m", "build", "--outdir", str(out), str(root)])
    files = sorted(map(str, out.iterdir()))
    _run([sys.executable, "-m", "twine", "check", "--strict", *files])
    (wheel,) = out.glob("*.whl")
    return wheel


def try_wheel(wheel: Path, folder: Path, *, borrow: bool) -> None:
    """Install a wheel into an environment of its own and use it, away from the checkout.

    Args:
        wheel: What to install.
        folder: An empty folder to do it in.
        borrow: Take the dependencies from the present environment, rather than install them.
    """
    place = folder / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    if borrow:
        (packages,) = place.glob("lib/python3*/site-packages")
        lent = [p for p in sys.path if p.endswith("site-packages")]
        (packages / "borrowed.pth").write_text("\n".join(lent) + "\n", "utf-8")
    extra = ["--no-deps"] if borrow else []
    _run([str(python), "-m", "pip", "install", "--quiet", *extra, str(wheel)], folder)
    for words in (
        ["--version"],
        ["--help"],
        ["models", "list"],
        ["world", "--out", "world", "--scenes", "1", "--size", "60"],
    ):
        _run([str(place / "bin" / "eofm"), *words], folder)
    code = "import eofm; eofm.load_weights; print(eofm.__file__)"
    where = _run([str(python), "-c", code], folder).strip()
    if not Path(where).is_relative_to(place):
        raise SystemExit(f"the checkout was used, not the wheel: {where}")


def _run(words: list[str], folder: Path | None = None) -> str:
    """Run a program; print its output and stop where it fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def main() -> None:
    """Prepare a release, or check what would be released."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version")
    parser.add_argument("--date", help="of the release, as in 2026-12-24")
    parser.add_argument("--check", action="store_true", help="write nothing into the checkout")
    parser.add_argument(
        "--borrow", action="store_true", help="take dependencies from this environment"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    chosen = parser.parse_args()
    if not chosen.check:
        if not chosen.date:
            raise SystemExit("a release needs its date: --date YEAR-MONTH-DAY")
        set_version(ROOT, chosen.version)
        print(f"{collect_changes(ROOT, chosen.version, chosen.date)} fragments into CHANGELOG.md")
    wheel = build(ROOT, chosen.out)
    with tempfile.TemporaryDirectory() as scratch:
        try_wheel(wheel, Path(scratch), borrow=chosen.borrow)
    print(f"{wheel} is built, passes twine check --strict, and works away from the checkout")


if __name__ == "__main__":
    main()
