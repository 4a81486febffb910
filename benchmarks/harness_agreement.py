"""The rows of benchmarks/results/eurosat_encoders.jsonl once more, with torchgeo and scikit-learn.

python benchmarks/harness_agreement.py prepare FOLDER
    writes weights and a recipe for the timm networks of benchmarks/harness.sh
python benchmarks/harness_agreement.py compare RECORDS EUROSAT FOLDER
    scores band statistics, random convolutions and a ResNet-50 as arXiv 2305.13456 does: torchgeo
    reads and filters, scikit-learn votes and fits; prints both sides; status 1 if they differ
python benchmarks/harness_agreement.py reben TABLES FOLDER
    holds the counts of the BigEarthNet v2 tables against the published ones, and writes a miniature
    of it: true names, layout and labels, synthetic pixels

Only what is a declaration comes from eofm: which tile is in which split, and the band constants.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import timm
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from eofm import Normalization, Recipe, Sensor, Unit
from eofm.contract.recipe import Pooling
from eofm.contract.spec import STATISTICS
from eofm.datasets.eurosat import EUROSAT_MS
from eofm.datasets.images.class_folders import open_class_folders

# the order of the files, and of torchgeo
BANDS = (*(f"B{i:02d}" for i in range(1, 13)), "B8A")
CONSTANTS = STATISTICS["ssl4eo-s12-l1c"].select(BANDS)
SIZE = 128
SEED = 1
TIMM = ("resnet18", "convnext_atto")


def fixed(name, channels):
    """Return a network of timm without head, whose weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return timm.create_model(name, in_chans=channels, num_classes=0).eval()


def resnet50():
    """An encoder for `eofm bench --model benchmarks/harness_agreement.py:resnet50`."""
    norm = Normalization.zscore(CONSTANTS.mean, CONSTANTS.std, CONSTANTS.source)
    size = (SIZE, SIZE)
    recipe = Recipe(Sensor.S2_L1C, BANDS, Unit.DN, size, norm, pooling=Pooling.MEAN)
    return fixed("resnet50", len(BANDS)), recipe


def prepare(folder):
    """Write the networks of TIMM and the recipe both take: three bands, z-scores, 128 px."""
    for name in TIMM:
        torch.save(fixed(name, 3).state_dict(), folder / f"{name}.pth")
    rgb = ("B04", "B03", "B02")
    constants = CONSTANTS.select(rgb)
    norm = Normalization.zscore(constants.mean, constants.std, constants.source)
    recipe = Recipe(Sensor.S2_L1C, rgb, Unit.DN, (SIZE, SIZE), norm, pooling=Pooling.MEAN)
    (folder / "rgb.yaml").write_text(yaml.safe_dump(recipe.to_dict()), "utf-8")


# --------------------------------------------------------------------------- the other side


class Scaled(torch.utils.data.Dataset):
    """The tiles of a split as torchgeo reads them, z-scored, in the order of their names."""

    def __init__(self, found):
        self.found = found
        self.order = sorted(range(len(found)), key=lambda i: Path(found.samples[i][0]).stem)
        self.mean = torch.tensor(CONSTANTS.mean).view(-1, 1, 1)
        self.std = torch.tensor(CONSTANTS.std).view(-1, 1, 1)

    def __len__(self):
        return len(self.order)

    def __getitem__(self, index):
        sample = self.found[self.order[index]]
        scaled = (sample["image"] - self.mean) / self.std
        return {"image": scaled, "label": sample["label"], "dn": sample["image"]}


def through_torchgeo(root, folder):
    """Return torchgeo's EuroSAT of train and test, over links to the same files."""
    from torchgeo.datasets import EuroSAT

    chips = open_class_folders(EUROSAT_MS, root, None)
    base = folder / "torchgeo"
    for split in "train", "val", "test":
        tiles = [path for path in root.glob("*/*/*.tif")]
        named = {chip.id for chip in chips.splits[split]}
        of_split = [path for path in tiles if path.stem in named]
        if len(of_split) != len(named):
            raise SystemExit(f"{split}: {len(named)} tiles, found {len(of_split)}")
        for path in of_split:
            link = base / EuroSAT.base_dir / path.parent.name / path.name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.exists():
                link.symlink_to(path.resolve())
        names = "\n".join(f"{path.stem}.jpg" for path in of_split)
        (base / f"eurosat-{split}.txt").write_text(names + "\n", "utf-8")
    return {split: Scaled(EuroSAT(base, split)) for split in ("train", "test")}


def networks(train):
    """Return name -> (features of a batch, whether the probe standardises them)."""
    from torchgeo.models import RCF

    plain, zca = (
        RCF(13, features=512, kernel_size=3, bias=-1.0, seed=SEED, mode=mode, dataset=train)
        for mode in ("gaussian", "empirical")
    )
    deep = fixed("resnet50", len(BANDS))

    def statistics(batch):
        dn = batch["dn"].double()
        parts = dn.mean((2, 3)), dn.std((2, 3)), dn.amax((2, 3)), dn.amin((2, 3))
        return torch.cat(parts, dim=1)

    def resized(batch):
        size = (SIZE, SIZE)
        image = torch.nn.functional.interpolate(
            batch["image"], size, mode="bilinear", antialias=True
        )
        return deep(image)

    return {
        "imagestats": (statistics, True),
        "rcf": (lambda batch: plain(batch["image"]), True),
        "rcf-zca": (lambda batch: zca(batch["image"]), True),
        "resnet50": (resized, False),
    }


def embedded(tiles, function):
    """Return features and labels of a split as NumPy arrays."""
    found, labels = [], []
    with torch.inference_mode():
        for batch in torch.utils.data.DataLoader(tiles, 32):
            found.append(function(batch).double().numpy())
            labels.append(batch["label"].numpy())
    return np.concatenate(found), np.concatenate(labels)


def scored(train, train_y, test, test_y, strength):
    """Return overall accuracy of kNN-5 and of logistic regression at a strength, in percent."""
    voted = KNeighborsClassifier(5, algorithm="brute").fit(train, train_y).predict(test)
    line = LogisticRegression(C=strength, tol=1e-8, max_iter=20_000).fit(train, train_y)
    return {
        "knn": 100 * float((voted == test_y).mean()),
        "linear": 100 * float((line.predict(test) == test_y).mean()),
    }


# --------------------------------------------------------------------------------- compare


def compare(records, root, folder):
    """Print both sides of every score, and return whether all agree to 4 decimals."""
    rows = [json.loads(line) for line in records.read_text("utf-8").splitlines()]
    ours = {
        (row["model"]["name"], row["probe"].partition("[")[0]): row
        for row in rows
        if row["metric"] == "oa" and row["probe"].startswith(("knn[k=5,", "linear[lbfgs,C40,"))
    }
    tiles = through_torchgeo(root, folder)
    print("| model | probe | eofm, OA % | torchgeo + scikit-learn | difference |")
    print("|---|---|---:|---:|---:|")
    agree = True
    for name, (function, standardise) in networks(tiles["train"]).items():
        (train, train_y), (test, test_y) = (
            embedded(tiles[split], function) for split in ("train", "test")
        )
        if standardise:
            scaler = StandardScaler().fit(train)
            train, test = scaler.transform(train), scaler.transform(test)
        theirs = scored(train, train_y, test, test_y, ours[name, "linear"]["strength"])
        for probe, value in theirs.items():
            own = 100 * ours[name, probe]["value"]
            agree &= abs(own - value) < 5e-5
            print(f"| {name} | {probe} | {own:.4f} | {value:.4f} | {own - value:+.4f} |")
    print()
    return agree & same_precision(ours.values(), records.parent)


def same_precision(rows, folder):
    """Print how far average precision of kept predictions is from scikit-learn's."""
    from eofm.probes.metrics import average_precision

    worst, count = 0.0, 0
    for row in rows:
        with np.load(folder / row["predictions"]) as kept:
            scores, target = kept["scores"].astype(np.float64), kept["target"]
        hot = np.eye(scores.shape[1], dtype=int)[target]
        own = vars(average_precision(torch.from_numpy(scores), torch.from_numpy(hot)))
        for average in "micro", "macro":
            other = average_precision_score(hot, scores, average=average)
            worst, count = max(worst, abs(own[average] - other)), count + 1
    print(f"AP micro and macro of the predictions of {count // 2} rows, classes as labels:")
    print(f"at most {worst:.1e} from scikit-learn's `average_precision_score`.")
    return worst < 5e-5


# ---------------------------------------------------------------------------- BigEarthNet v2

# arXiv 2407.03653: patches of train, val and test, without those under snow and cloud
PUBLISHED = {"train": 237_871, "val": 122_342, "test": 119_825}
MINIATURE = {"train": 24, "val": 10, "test": 12}


def reben(tables, folder):
    """Print split and class counts beside the published ones; write the miniature."""
    tests = Path(__file__).parent.parent / "tests"
    sys.path[:0] = [str(tests / "miniatures"), str(tests / "bench")]
    import ben_world
    from test_bigearthnet import V2_COUNTS  # the published class counts

    from eofm.datasets.bigearthnet import CLASSES_19
    from eofm.datasets.bigearthnet.patches import read_tables

    listing = read_tables(tables)
    patches = {split: listing.patches(split, excluded=False) for split in PUBLISHED}
    counts = {
        split: Counter(label for name in names for label in listing.labels[name])
        for split, names in patches.items()
    }
    agree = True
    print("| | train | val | test | published |")
    print("|---|---:|---:|---:|---|")
    sizes = {split: len(names) for split, names in patches.items()}
    published = [(f"**patches** ({sum(sizes.values()):,})", sizes, PUBLISHED)]
    for number, name in enumerate(CLASSES_19):
        row = {split: V2_COUNTS[split][number] for split in PUBLISHED}
        published.append((name, {split: counts[split][name] for split in PUBLISHED}, row))
    for name, found, expected in published:
        same = all(found[split] == expected[split] for split in PUBLISHED)
        agree &= same
        cells = " | ".join(f"{found[split]:,}" for split in PUBLISHED)
        print(f"| {name} | {cells} | {'the same' if same else expected} |")
    partners = {name: radar for radar, name in listing.optical_of.items()}
    chosen = [
        name for s, n in MINIATURE.items() for name in patches[s][:: len(patches[s]) // n][:n]
    ]
    for seed, name in enumerate(chosen if not folder.exists() else ()):
        optical = folder / "BigEarthNet-S2" / name.rsplit("_", 2)[0] / name
        ben_world.write_patch(optical, ben_world.OPTICAL, seed)
        radar = folder / "BigEarthNet-S1" / partners[name].rsplit("_", 3)[0] / partners[name]
        ben_world.write_patch(radar, ("VV", "VH"), seed)
    return agree


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("prepare").add_argument("folder", type=Path)
    side = verbs.add_parser("compare")
    for word in "records", "eurosat", "folder":
        side.add_argument(word, type=Path)
    join = verbs.add_parser("reben")
    for word in "tables", "folder":
        join.add_argument(word, type=Path)
    words = parser.parse_args()
    if words.verb == "reben":
        return 0 if reben(words.tables, words.folder) else 1
    if words.verb == "prepare":
        prepare(words.folder)
        return 0
    return 0 if compare(words.records, words.eurosat, words.folder) else 1


if __name__ == "__main__":
    sys.exit(main())
