"""Every option of the command line reaches the function that it is for."""

import importlib
from collections.abc import Iterator
from dataclasses import is_dataclass
from inspect import signature
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from rtdetr_lab.ablations.executors import PYTHON
from rtdetr_lab.cli import COMMANDS, _command, main

LARGER = (64, 96)
ARRIVE = (
    (
        "detect p.png --model v2_r18 --revision abc --size 64x96",
        "commands.detect:model_of",
        {"name": "v2_r18", "revision": "abc", "size": "64x96"},
    ),
    (
        "detect p.png --bits 12 --max-iou 0.6 --tile 64 --threshold 0.25 --device cpu",
        "detector:Detector",
        {"limits.bits": 12, "max_iou": 0.6, "tiling.tile": 64, "threshold": 0.25, "device": "cpu"},
    ),
    ("detect p.png --batch-size 3 --device cpu", "detector:Detector.each", {"batch_size": 3}),
    (
        "detect p.png --annotations a.json",
        "commands.detect:listed",
        {"annotations": Path("a.json")},
    ),
    (
        "detect p.png --write csv,coco --coco c.json --out here",
        "commands.detect:Report",
        {"formats": ("csv", "coco"), "coco": Path("c.json"), "folder": Path("here")},
    ),
    (
        "detect clip.mp4 --out here --no-pictures --json --limit 7 --batch-size 2",
        "commands.detect:Watch",
        {"out": Path("here"), "pictures": False, "json": True, "limit": 7, "batch_size": 2},
    ),
    ("detect p.png --only cat,dog", "commands.detect:Wanted.read", {"only": "cat,dog"}),
    (
        "explore p.png --model r18 --revision abc --size 64x96",
        "commands.base:model_of",
        {"name": "r18", "revision": "abc", "size": "64x96"},
    ),
    ("explore --queries 7 --device cpu", "commands.explore:explore", {"most": 7}),
    (
        "explore --live --runtime r.tgz --device cpu",
        "deployment.web_runtime:web_runtime",
        {"archive": Path("r.tgz")},
    ),
    (
        "heatmap p.png --model r18 --revision abc --size 64x96",
        "commands.base:model_of",
        {"name": "r18", "revision": "abc", "size": "64x96"},
    ),
    ("heatmap --query 7 --device cpu", "commands.readings:heatmap", {"detection": 7}),
    (
        "verify r18 --revision abc --image p.png",
        "checkpoints.verify:verify",
        {"id_or_path": "r18", "revision": "abc", "image": "p.png"},
    ),
    (
        "eval r18 --size 64x96 --names a,b",
        "commands.evaluate:model_of",
        {"name": "r18", "size": "64x96", "names": "a,b"},
    ),
    (
        "eval --data set --split odd --val-split 0.3 --bits 12 --voc-origin 0",
        "commands.sets:stored_sets",
        {
            "source": "set",
            "splits": ["odd"],
            "val_split": 0.3,
            "reading.bits": 12,
            "reading.voc_origin": 0,
        },
    ),
    (
        "eval nano-seg --limit 7 --no-masks --device cpu",
        "commands.sets:validation_set",
        {"count": 7, "masks": False},
    ),
    ("eval nano-seg --device cpu", "commands.sets:validation_set", {"count": None, "masks": True}),
    (
        "eval --limit 7 --batch-size 3 --device cpu",
        "evaluation.evaluate:evaluate",
        {"batch_size": 3},
    ),
    (
        "eval --limit 7 --batch-size 3 --threshold 0.3 --out here --device cpu",
        "evaluation.examine:examine",
        {"batch_size": 3, "threshold": 0.3},
    ),
    ("export r18 --size 64x96", "commands.export:model_of", {"name": "r18", "size": "64x96"}),
    (
        "export --out here/m.onnx --dynamic --postprocessing",
        "deployment.onnx_file:export_onnx",
        {"path": Path("here/m.onnx"), "size": None, "postprocessing": True},
    ),
    (
        "export --size 64x96",
        "deployment.onnx_file:export_onnx",
        {"size": LARGER, "postprocessing": False},
    ),
    (
        "export --out m.pt2 --dynamic",
        "deployment.onnx_file:export_pt2",
        {"path": Path("m.pt2"), "size": None},
    ),
    ("export --taps decoder.*", "deployment.tapped:onnx_with_taps", {"taps": ("decoder.*",)}),
    (
        "export --int8 --calibrate p.png --data shapes --limit 7",
        "commands.sets:validation_set",
        {"count": 7},
    ),
    ("export --int8 --calibrate p.png --data set", "commands.sets:stored_sets", {"source": "set"}),
    (
        "train --data set --val-split 0.3 --bits 12 --voc-origin 0",
        "commands.sets:stored_sets",
        {"source": "set", "val_split": 0.3, "reading.bits": 12, "reading.voc_origin": 0},
    ),
    (
        "train --model r18 --size 64x96 --names a,b",
        "commands.train:model_of",
        {"name": "r18", "size": "64x96", "names": "a,b"},
    ),
    (
        "train --model nano --queries 7 --freeze backbone,encoder --seed 5",
        "training.finetune:prepare",
        {"queries": 7, "freeze": ("backbone", "encoder"), "seed": 5},
    ),
    ("train --model nano --masks --seed 5", "training.finetune:add_masks", {"seed": 5}),
    ("train --queries 7", "training.finetune:with_queries", {"count": 7}),
    ("train --preset nano --masks", "masks.query_masks:with_masks", {}),
    ("train --preset v2_r18", "commands.train:preset_of", {"name": "v2_r18"}),
    ("train --val-limit 7", "commands.sets:validation_set", {"count": 7}),
    ("train --no-flip --seed 5", "commands.sets:training_set", {"seed": 5, "mirrored": False}),
    (
        "train --turn --no-flip",
        "data.dense:augmentation_named",
        {"mirrored": False, "turned": True},
    ),
    ("train --threads 3", "torch:set_num_threads", {0: 3}),
    (
        "train --overfit 1 --recipe fine-tune --lr 0.5",
        "training.recipe:to_overfit",
        {"recipe.lr": 0.5},
    ),
    (
        "train --pictures 77 --batch-size 3 --accumulate 2 --lr 0.5 --backbone-lr 0.2 "
        "--clip-norm 3 --warmup-steps 9 --seed 5 --fp32",
        "training:train",
        {
            "config.num_pictures": 77,
            "config.batch_size": 3,
            "config.accumulate": 2,
            "config.lr": 0.5,
            "config.backbone_lr": 0.2,
            "config.clip_norm": 3,
            "config.warmup_steps": 9,
            "config.seed": 5,
            "config.amp": False,
        },
    ),
    (
        "train --eval-every 8 --patience 4 --min-delta 0.25 --workers 6 --save-every 9 --amp",
        "training:train",
        {
            "config.eval_every": 8,
            "config.patience": 4,
            "config.min_delta": 0.25,
            "config.num_workers": 6,
            "config.save_every": 9,
            "config.amp": True,
        },
    ),
    (
        "train --out here --stop-after 50m --device cpu --augment light --backbone-weights file",
        "training:train",
        {
            "out": Path("here"),
            "stop_after": "50m",
            "device": "cpu",
            "config.augment.sizes": (),
            "backbone_weights": "file",
        },
    ),
    (
        "train --tensorboard --wandb --out here",
        "training.callbacks:loggers",
        {"folder": Path("here"), "names": ["tensorboard", "wandb"]},
    ),
    (
        "ablate losses --seeds 2 --budget 20m --out here --device cpu --tensorboard --amp",
        "ablations.study:Study",
        {
            "seeds": (0, 1),
            "budget": "20m",
            "folder": Path("here"),
            "device": "cpu",
            "loggers": ("tensorboard",),
            "base.recipe.amp": True,
        },
    ),
    (
        "ablate losses --pictures 77 --weights w --wandb",
        "ablations.study:Study",
        {"budget": 77, "base.weights": "w", "loggers": ("wandb",)},
    ),
    ("ablate losses --backbone-weights b", "ablations.study:Study", {"base.backbone_weights": "b"}),
    (
        "ablate losses --pictures 77 --size 96 --world far",
        "ablations.bases:small_world",
        {"size": 96, "num_pictures": 77, "world": "far"},
    ),
    (
        "ablate losses --data set --size 64x96",
        "ablations.bases:stored",
        {"folder": "set", "size": LARGER},
    ),
    ("ablate losses --preset r18", "ablations.bases:full_size", {"preset": "r18"}),
    ("ablate losses --threads 3", "torch:set_num_threads", {0: 3}),
    (
        "ablate losses --workers 2 --threads 3",
        "ablations.executors:LocalProcesses",
        {"workers": 2, "threads": 3, "command": PYTHON},
    ),
    (
        "ablate losses --cluster local --torchrun 2",
        "ablations.cluster:Submitit",
        {"cluster": "local", "command": ("torchrun", "--nproc-per-node=2", "-m")},
    ),
    ("ablate losses --dry-run --workers 2", "commands.ablate:show", {"workers": 2}),
    ("ablate losses --report-only", "ablations.study:report_of", {}),
    ("ablate losses --only one", "commands.ablate:_chosen", {"only": ("one",)}),
    (
        "bench --model nano --against openvino --size 64x96 --batch 2 --device cpu",
        "deployment.bench.subjects:Case.__init__",
        {"preset": "nano", "size": LARGER, "batch": 2, "device": "cpu"},
    ),
    (
        "bench --model nano --against openvino",
        "deployment.bench.subjects:chosen",
        {"against": "openvino"},
    ),
    (
        "bench --model --nms --rounds 3 --clock cpu",
        "deployment.bench.nms:bench_nms",
        {"rounds": 3, "clock": "cpu"},
    ),
    ("bench --threads 3", "torch:set_num_threads", {0: 3}),
    ("bench --out here", "commands.bench:Path.mkdir", {"self": Path("here")}),
    (
        "data shapes here --count 9 --val-count 2 --size 96",
        "data.convert:export_coco",
        {"folder": Path("here"), "count": 9, "val_count": 2, "config.size": 96},
    ),
    (
        "data check set --split a b --images i --queries 7 --bits 12 --voc-origin 0",
        "data.preflight:check_folder",
        {
            "splits": ("a", "b"),
            "images": Path("i"),
            "num_queries": 7,
            "limits.bits": 12,
            "voc_origin": 0,
        },
    ),
    ("data look set --bits 12 --voc-origin 0", "data.layout:find_layout", {"voc_origin": 0}),
    ("data convert set here --voc-origin 0", "data.convert:read_whole", {"voc_origin": 0}),
    (
        "data split set here --val 0.25 --test 0.125 --seed 5 --voc-origin 0",
        "data.convert:split_set",
        {"shares": {"train": 0.625, "val": 0.25, "test": 0.125}, "seed": 5, "voc_origin": 0},
    ),
    ("data upright set here --voc-origin 0", "data.upright:write_upright", {"voc_origin": 0}),
    (
        "notebooks here --fresh --copy-only",
        "commands.notebooks:copy_notebooks",
        {"folder": Path("here"), "fresh": True},
    ),
)
"""Command line → function that it calls, and what this has to get."""


class Arrived(Exception):
    """Ends a command where the function is called; `args` holds its arguments."""


def catch(monkeypatch, target):
    """Let a function raise what it gets in place of running."""
    home, path = target.split(":")
    *inside, name = path.split(".")
    owner = importlib.import_module(home if home == "torch" else f"rtdetr_lab.{home}")
    for one in inside:
        owner = getattr(owner, one)
    parameters = signature(getattr(owner, name)).parameters if home != "torch" else {}

    def caught(*args, **told):
        given = [[*one] if isinstance(one, Iterator) else one for one in args]
        raise Arrived(dict(enumerate(given)) | dict(zip(parameters, given, strict=False)) | told)

    monkeypatch.setattr(owner, name, caught)


def value_at(arrived, path):
    if not isinstance(path, str):
        return arrived[path]
    first, *inside = path.split(".")
    found = arrived[first]
    for name in inside:
        found = getattr(found, name)
    return found


@pytest.mark.parametrize(("words", "target", "wanted"), ARRIVE, ids=lambda one: str(one)[:60])
def test_what_is_typed_is_what_the_function_gets(words, target, wanted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save("p.png")
    Path("clip.mp4").write_bytes(b"")
    Path("00_tour.ipynb").write_bytes(b"")
    monkeypatch.setattr("rtdetr_lab.commands.notebooks.HOMES", (tmp_path,))
    catch(monkeypatch, target)
    with pytest.raises(Arrived) as seen:
        main(words.split())
    assert {path: value_at(seen.value.args[0], path) for path in wanted} == wanted


ELSEWHERE = {
    "demo": {"out"},
    "explore": {"out"},
    "heatmap": {"out"},
    "classes": {"revision", "json"},
    "train": {"amp_auto"},
    "eval": {"json"},
    "export": {"engine"},
    "ablate": {"report"},
    "bench": {"parts", "memory", "training", "precision"},
    "data check": {"json", "picture"},
    "data look": {"out", "count", "size", "augment", "flip", "turn"},
}
"""Options that are read in the command itself; the tests of the command look at what they do."""


def classes_in(hint):
    """Yield the dataclasses in an annotation, at any depth."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for one in get_args(hint):
        yield from classes_in(one)


def options(kind, verb):
    """Yield (verb, option) for the options of a command, with those of its groups and verbs."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        inner = list(classes_in(hint))
        positional = tyro.conf.Positional in get_args(hint)
        if name == "verb":
            for one in inner:
                yield from options(one, f"{verb} {one.__name__.lower()}")
        elif inner:
            yield from options(inner[0], verb)
        elif not positional and name not in ("debug", "model_option"):
            yield verb, name


def test_every_option_is_typed_somewhere_above():
    typed = set()
    for words, _, _ in ARRIVE:
        first, *more = words.split()
        verb = f"{first} {more[0]}" if first == "data" else first
        flags = [word.removeprefix("--").removeprefix("no-") for word in more if word[:2] == "--"]
        typed |= {(verb, flag.replace("-", "_")) for flag in flags}
    there = {one for verb, home in COMMANDS.items() for one in options(_command(home), verb)}
    known = typed | {(verb, name) for verb, names in ELSEWHERE.items() for name in names}
    assert len(there) > 100
    assert there - known == set(), "add them to ARRIVE"
    assert known - there == set(), "no such options"
