"""Programs that fine-tune with transformers run with our classes if only the import changes."""

import json
import subprocess
import sys

import pytest
from oracle import transformers
from paths import PROGRAMS, ROOT, TESTS, child_environment

import rtdetr_lab as lab

LINE = "from transformers import RTDetrForObjectDetection, RTDetrImageProcessorPil"
PATH = ":".join(map(str, (ROOT, TESTS, PROGRAMS)))


def run(program, library, folder):
    pytest.importorskip("accelerate", reason="Trainer needs it; runs with the extra [dev]")
    text = (PROGRAMS / program).read_text(encoding="utf8")
    assert text.count(LINE) == 1
    folder.mkdir()
    script = folder / program
    script.write_text(text.replace(LINE, LINE.replace("transformers", library, 1)), "utf8")
    command, env = [sys.executable, str(script), str(folder)], child_environment(PYTHONPATH=PATH)
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "program", [pytest.param("finetune_trainer.py", marks=pytest.mark.full), "finetune_loop.py"]
)
def test_only_the_import_line_changes(program, tmp_path):
    ours = run(program, "rtdetr_lab", tmp_path / "ours")
    assert ours["finite"]
    assert 0 <= ours["map"] <= 1
    assert ours["steps"] == (8 if "trainer" in program else 5)
    end = tmp_path / "ours" / "end"
    for library in (lab, transformers):
        model = library.RTDetrForObjectDetection.from_pretrained(end)
        assert model.config.id2label == {0: "dark", 1: "light"}
    if "trainer" in program:
        theirs = run(program, "transformers", tmp_path / "theirs")
        assert ours["before"] == pytest.approx(theirs["before"], rel=1e-3)
        assert ours["after"] < ours["before"]
