"""Save and load small detectors with the transformers that is found first on PYTHONPATH.

    python older_transformers.py save FOLDER        three models, pictures and answers
    python older_transformers.py answer FOLDER      the answers of the models in FOLDER/ours

`tests/parity/test_older_transformers.py` runs it with release 4.56.2 in a folder of its own.
"""

import sys
from pathlib import Path

import torch
import transformers
from small_api import SMALL, SMALL_DETR

KINDS = {"RTDetr": SMALL, "RTDetrV2": SMALL, "Detr": SMALL_DETR}
VERSION, HUB, TOKENIZERS = "4.56.2", "0.36.2", "0.22.2"
"""The release that the documentation is of, and what it needs beside torch."""


def made(kind: str) -> torch.nn.Module:
    """Make a detector of theirs whose batch norms are not at their start."""
    told = dict(KINDS[kind])
    inner = {k: v for k, v in told.pop("backbone_config").items() if k != "model_type"}
    if kind == "Detr":
        told |= {"use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False}
    resnet = "ResNetConfig" if kind == "Detr" else "RTDetrResNetConfig"
    backbone = getattr(transformers, resnet)(**inner)
    config = getattr(transformers, f"{kind}Config")(backbone_config=backbone, **told)
    model = getattr(transformers, f"{kind}ForObjectDetection")(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@torch.no_grad()
def answers(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    found = model(images)
    return {"logits": found.logits, "boxes": found.pred_boxes}


def main(verb: str, folder: Path) -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 96)
    told = {"version": str(transformers.__version__), "images": images}
    for kind in KINDS:
        if verb == "save":
            model = made(kind)
            model.save_pretrained(folder / "theirs" / kind)
        else:
            name = f"{kind}ForObjectDetection"
            model = getattr(transformers, name).from_pretrained(folder / "ours" / kind).eval()
        told[kind] = answers(model, images)
    torch.save(told, folder / f"{verb}.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
