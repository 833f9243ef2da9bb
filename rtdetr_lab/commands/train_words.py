"""# Train's words: what is said before a run, after it, and by the doctor"""

from typing import TYPE_CHECKING, Any

from rtdetr_lab.commands.base import DONE, FAILED, say, shown_size

if TYPE_CHECKING:
    from rtdetr_lab.data.batch import Dataset
    from rtdetr_lab.training import Run, TrainConfig
    from rtdetr_lab.training.doctor import Doctor


def num_stored(data: Any) -> int:
    """Pictures of a data set, not counting an augmented one again for each of its versions."""
    while (inner := getattr(data, "dataset", None)) is not None:
        data = inner
    return len(data)


def tell(recipe: "TrainConfig", name: str, data: "Dataset", size: tuple[int, int]) -> None:
    """What is about to happen, in one line."""
    rounds = f"{recipe.num_pictures / num_stored(data):.3g} × {num_stored(data):,}"
    say(
        f"{name}: {recipe.num_pictures:,} pictures ({rounds}) of {shown_size(size)} in steps of "
        f"{recipe.batch_size}, lr {recipe.lr:.3g}, backbone {recipe.backbone_lr:.3g}"
    )


def report(run: "Run") -> None:
    """Where it stands and where things lie."""
    scores = [r for r in run.history if "AP" in r]
    for record in scores[-1:]:
        say(f"AP {record['AP']:.3f}, AP50 {record['AP50']:.3f} at step {record['step']}")
    best = max(scores, key=lambda r: r["AP"], default={})
    if scores and best["AP"] > scores[-1]["AP"]:
        say(f"best: AP {best['AP']:.3f}, AP50 {best['AP50']:.3f} at step {best['step']}")
    state = "finished" if run.finished else "paused: the same command continues"
    say(f"step {run.step}, {state}; model in {run.folder}/model, curves in {run.folder}/curves.png")


def overfitting(data: "Dataset", num_queries: int) -> "Doctor":
    """Who watches a run that shall learn `data` by heart; says what it sees beforehand."""
    from rtdetr_lab.training.doctor import Doctor, examine_samples

    samples = [data[i] for i in range(len(data))]
    for finding in examine_samples(samples, num_queries):
        say(f"before it begins: {finding}")
    return Doctor(samples, data.names)


def verdict(doctor: "Doctor", run: "Run") -> int:
    """What the doctor says when the run is over; the exit code."""
    if not run.finished or not doctor.history:  # it goes on, or another process judges it
        return DONE
    if doctor.healthy:
        say(f"healthy: AP {doctor.best:.3f} on what it learnt by heart")
        return DONE
    say(f"not learnt by heart: AP {doctor.best:.3f}. What may be wrong, causes first:")
    for number, finding in enumerate(doctor.findings, 1):
        say(f"  {number}. {finding}")
    return FAILED
