"""What goes wrong in a worker is said where the batch is asked for, in time and by name."""

import os
import signal
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing import active_children

import pytest
import torch
from torch.utils.data import get_worker_info

from rtdetr_lab.data.augment import Augmentation
from rtdetr_lab.data.batch import in_order
from rtdetr_lab.data.shapes import ShapesConfig, ShapesDataset
from rtdetr_lab.data.workers import load
from rtdetr_lab.errors import DataError, TrainingError
from rtdetr_lab.training.stream import Steps

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SHAPES = ShapesDataset(ShapesConfig(size=96, max_side=40.0, max_objects=4), seed=0, count=8)


@dataclass(frozen=True)
class Cells:
    """Pictures with file names; `broken` raises instead of loading, `deadly` kills its worker."""

    broken: int = -1
    deadly: int = -1
    names, category_ids = SHAPES.names, SHAPES.category_ids

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == self.broken:
            raise ValueError("no such thing")
        if index == self.deadly and get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        sample = SHAPES[index]
        return replace(sample, truth=replace(sample.truth, file_name=f"cells/{index}.jpg"))


def stream(data, num_workers, augment=None):
    return Steps(data, 2, seed=0, last=40, augment=augment).batches(0, num_workers)


def test_a_worker_that_is_killed_ends_the_stream_with_an_error_and_not_a_hang():
    with pytest.raises(TrainingError, match=r"loader: a worker .* has died .*exit code -9.*fewer"):
        list(stream(Cells(deadly=3), num_workers=2))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_items_come_in_the_order_in_which_they_were_asked_for(num_workers):
    assert list(load(str, [5, 2, 7, 2], num_workers)) == ["5", "2", "7", "2"]


def test_so_does_one_that_dies_during_an_evaluation():
    with pytest.raises(TrainingError, match="a worker that loads pictures has died"):
        list(in_order(Cells(deadly=5), 2, num_workers=1))


def test_where_no_memory_can_be_shared_nobody_waits_for_it(monkeypatch):
    def refused(tensor):
        raise RuntimeError("unable to open shared memory object </torch_1>: Read-only file system")

    monkeypatch.setattr(torch.Tensor, "share_memory_", refused)
    with pytest.raises(TrainingError, match=r"loader: cannot start .*Read-only.*; give them a wri"):
        list(stream(Cells(), num_workers=1))
    assert next(stream(Cells(), num_workers=0))


def test_the_death_of_a_worker_does_not_interrupt_a_step():
    """torch would raise wherever the main process is; here it is heard at the next batch."""
    before = signal.getsignal(signal.SIGCHLD)
    feed = stream(Cells(), num_workers=1)
    next(feed)
    assert signal.getsignal(signal.SIGCHLD) is before
    feed.close()


def test_a_worker_that_does_not_hear_the_end_is_not_left_behind(monkeypatch):
    """On a busy machine torch gives up waiting for it, and a signal is what it ignores."""
    from torch.utils.data import dataloader

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "__del__", lambda self: None)
    before = set(active_children())
    feed = stream(Cells(), num_workers=1)
    next(feed)
    (worker,) = set(active_children()) - before
    feed.close()
    worker.join(20)
    assert not worker.is_alive()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_while_augmenting_names_the_file_and_the_line(num_workers):
    def clumsy(sample, rng):
        raise IndexError("out of range")

    feed = stream(Cells(), num_workers, Augmentation(strong=(clumsy,), size=(64, 64)))
    with pytest.raises(TrainingError, match=r"cells/\d\.jpg: IndexError: out of range \(test_load"):
        next(feed)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_while_loading_names_the_place_in_the_data(num_workers):
    with pytest.raises(TrainingError, match=r"data\[4\]: ValueError: no such thing"):
        list(stream(Cells(broken=4), num_workers))


def test_pictures_of_different_sizes_are_refused_by_file():
    def uneven(sample, rng):
        return replace(sample, image=sample.image[:, : 90 - int(sample.image_id)])

    class Uneven(Cells):
        def __getitem__(self, index):
            return uneven(super().__getitem__(index), None)

    with pytest.raises(DataError, match=r"cells/\d\.jpg: is \d\d×96, but the first of the b"):
        next(stream(Uneven(), 0))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_batch_says_which_files_it_holds_whoever_loads_it(num_workers):
    held = [batch.targets.pictures for batch in islice(stream(Cells(), num_workers), 8)]
    assert sorted(sum(held[:4], ())) == [f"cells/{i}.jpg" for i in range(8)]
    batch = next(stream(Cells(), num_workers))
    first = int(batch.targets.pictures[0][6])
    assert torch.equal(batch.images[0], SHAPES[first].image.float() / 255)
