"""# Ablate: swap a part, and get a table that you can trust

    rtdetr-lab ablate encoder --seeds 3 --budget 20m
    rtdetr-lab ablate encoder --dry-run          # the plan, parameters, time
    rtdetr-lab ablate encoder --report-only      # the report again, without training

The same command resumes a stopped study. For the paper's own table, add
`--preset r50 --data COCO_FOLDER --size 640 --pictures 1400000`.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from rtdetr_lab.commands.base import DONE, FAILED, Command, say, size_of, square_of
from rtdetr_lab.config import require

if TYPE_CHECKING:
    from rtdetr_lab.ablations.executors import Executor
    from rtdetr_lab.ablations.study import Study


@dataclass(frozen=True, kw_only=True)
class Ablate(Command):
    """Train the variants of a study with several seeds, and write a report."""

    study: Annotated[str, tyro.conf.Positional]
    """encoder, selection, decoder-depth, sampling-points, discrete, denoising, losses, queries,
    look-forward-twice, detr-vs-rtdetr, line, parts or backbone."""
    seeds: int = 3
    """Number of seeds; they are 0, 1, 2 …"""
    budget: str | None = None
    """Time for the whole study (20m, 2h). It sets the pictures per run."""
    pictures: int = 6400
    """Pictures per run, if --budget is not given."""
    only: tuple[str, ...] = ()
    """Only these variants, by name. The reference is always included."""
    preset: str = "nano"
    """Base: nano, r18, r34, r50_m, r50, r101."""
    data: str = "shapes"
    """`shapes` (drawn, small and hard), or a folder with train and val: COCO JSON, YOLO or VOC."""
    world: str = "plain"
    """World of the drawn shapes: plain, far, scales, crowds, tight or marks, or all of them. In
    each, another part of the detector has a job."""
    size: str | None = None
    """Size of the model's input: one number, or HxW; default: 128 for shapes, 640 for folders."""
    backbone_weights: str | None = None
    """Initial weights of the backbones: a model's name, hub id or file; `none` for random weights.
    Default: nano's own for nano."""
    weights: str | None = None
    """Begin with this model's weights wherever names and shapes fit.
    For variants that differ in a part that a trained model already has, such as its depth.
    Not fair to variants with new parts."""
    out: Path = Path("runs/ablations")
    """Folder for studies, their journals and runs."""
    report: Path | None = None
    """Folder for the report; default: OUT/STUDY/report."""
    dry_run: bool = False
    """Print variants, differences, parameters and a rough time. Nothing is trained or saved."""
    report_only: bool = False
    """Write the report from the journal. Nothing is trained."""
    workers: int = 1
    """Runs at the same time; if more than one, each has its own process."""
    threads: int = 1
    """Threads for the computation of each run."""
    cluster: str | None = None
    """Submit the runs with submitit: slurm, or local for a test."""
    torchrun: int | None = None
    """Processes per run: each run is a distributed job."""
    tensorboard: bool = False
    """Also write the record of each run for TensorBoard, into its folder."""
    wandb: bool = False
    """Also send the record of each run to Weights & Biases."""
    amp: bool = False
    """Compute in bfloat16."""
    device: str | None = None
    """cpu, cuda …; default: the GPU, if there is one."""

    def run(self) -> int:
        import torch

        from rtdetr_lab.commands.sets import is_world

        torch.set_num_threads(self.threads)
        drawn = is_world(self.data) or self.world == "plain"
        require(drawn, "--world", f"is for drawn shapes, not for {self.data}", "leave one out")
        return self._matrix() if self.world == "all" else self._one()

    def _matrix(self) -> int:
        """Run the study in every world, and join the reports."""
        from rtdetr_lab.ablations.matrix import Matrix
        from rtdetr_lab.data.shapes_worlds import WORLDS

        each = {name: replace(self, world=name) for name in WORLDS}
        codes = [command.run() for command in each.values()]
        if not self.dry_run:
            matrix = Matrix({name: command._study().report() for name, command in each.items()})
            for path in matrix.save(self.report or self.out / f"{self.study}-matrix"):
                say(str(path))
        return max(codes)

    def _one(self) -> int:
        study = self._study()
        if self.dry_run:
            return show(study, self.workers)
        if not self.report_only:
            from rtdetr_lab.ablations.progress import show_progress

            study.run(self._executor(), watch=show_progress)
        report = study.report()
        for path in report.save(self.report or study.home / "report"):
            say(str(path))
        for entry in report.entries:
            say(f"{entry.name}: {entry.verdict}")
        return FAILED if any(entry.failures for entry in report.entries) else DONE

    def _study(self) -> "Study":
        from rtdetr_lab.ablations.studies import TABLES
        from rtdetr_lab.ablations.study import Study
        from rtdetr_lab.training.callbacks import LOGGERS

        known = f"use one of {', '.join(TABLES)}"
        require(self.study in TABLES, "ablate", f"{self.study!r} is not a study", known)
        table, base = TABLES[self.study], self._base()
        return Study(
            base,
            _chosen(table.rows(base.cfg), self.only, base),
            seeds=tuple(range(self.seeds)),
            budget=self.pictures if self.budget is None else self.budget,
            data=self._pictures(),
            name=self.study if self.world == "plain" else f"{self.study}-{self.world}",
            folder=self.out,
            views=table.views,
            measures=table.measures,
            device=self.device,
            loggers=tuple(name for name in LOGGERS if getattr(self, name)),
        )

    def _base(self) -> Any:
        from rtdetr_lab.ablations.bases import full_size, miniature
        from rtdetr_lab.commands.sets import is_world

        base = miniature(self.world) if self.preset == "nano" else full_size(self.preset)
        if not is_world(self.data):
            names = self._pictures()[0].names
            base = replace(base, cfg=replace(base.cfg, num_classes=len(names)))
        if self.backbone_weights:
            chosen = None if self.backbone_weights == "none" else self.backbone_weights
            base = replace(base, backbone_weights=chosen)
        if self.weights:
            base = replace(base, weights=self.weights, backbone_weights=None)
        return replace(base, recipe=replace(base.recipe, amp=self.amp))

    def _pictures(self) -> Any:
        from rtdetr_lab.ablations.bases import small_world, stored
        from rtdetr_lab.commands.sets import is_world

        if is_world(self.data):
            return small_world(square_of(self.size or "128"), self.pictures, self.world)
        return stored(self.data, size_of(self.size or "640"))

    def _executor(self) -> "Executor":
        from rtdetr_lab.ablations.cluster import Submitit
        from rtdetr_lab.ablations.executors import PYTHON, InProcess, LocalProcesses

        command: tuple[str, ...] = PYTHON
        if self.torchrun:
            command = ("torchrun", f"--nproc-per-node={self.torchrun}", "-m")
        if self.cluster:
            return Submitit(self.cluster, command=command)
        if self.workers > 1 or self.torchrun:
            return LocalProcesses(self.workers, self.threads, command=command)
        return InProcess()


def _chosen(rows: Any, only: tuple[str, ...], base: Any) -> Any:
    names = [row.name for row in rows]
    unknown = sorted(set(only) - set(names))
    require(not unknown, "--only", f"{unknown} are not in this study", f"use some of {names}")
    return [r for r in rows if not only or r.name in only or r(base) == base]


def show(study: "Study", workers: int) -> int:
    """Print the plan of a study."""
    from rtdetr_lab.ablations.progress import estimate

    plan = study.preview()
    seeds, pictures = len(plan["seeds"]), plan["pictures"]
    say(f"{plan['name']}: {len(plan['variants'])} variants × {seeds} seeds × {pictures} pictures")
    for row in plan["variants"]:
        name = row["name"]
        if name in plan["failures"]:
            say(f"  {name}: fails\n{plan['failures'][name]}")
            continue
        speed = f"about {1 / plan['s_per_picture'][name]:.2g} pictures/s"
        say(f"  {name}: {row['parameters'] / 1e6:.2f} M, {row['gflops']:.2f} GFLOPs, {speed}")
        for path, before, after in row["differences"]:
            say(f"      {path}: {before} → {after}")
    say(f"about {estimate(plan, workers)} of training with {workers} at a time, by GFLOPs")
    return FAILED if plan["failures"] else DONE
