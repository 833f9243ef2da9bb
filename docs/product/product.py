import zipfile
from pathlib import Path

from rtdetr_lab.data.convert import split_set
from rtdetr_lab.data.preflight import check_folder

zipfile.ZipFile("photos.zip").extractall("photos")
print(*check_folder("photos"), sep="\n")
split_set("photos", "my_data", {"train": 0.7, "val": 0.15, "test": 0.15})

import rtdetr_lab as lab
from rtdetr_lab.data.batch import Augmented
from rtdetr_lab.data.canvas import fitted
from rtdetr_lab.data.coco import CocoDataset
from rtdetr_lab.data.transforms import RandomFlip
from rtdetr_lab.training import fine_tune, prepare

photos, held_out = (CocoDataset.from_folder("my_data", split) for split in ("train", "val"))
ready = prepare(lab.load_pretrained("nano"), photos.names)
run = lab.train(
    ready.model,
    Augmented(fitted(photos, ready.model.metadata), RandomFlip(), seed=0),
    "runs/python",
    fine_tune(ready.model.cfg, num_pictures=2000, batch_size=4),
    validate=lambda model: lab.evaluate(model, held_out),
)

from rtdetr_lab.evaluation.examine import examine
from rtdetr_lab.evaluation.report import write_report

model, test_set = lab.load_pretrained("runs/python"), CocoDataset.from_folder("my_data", "test")
exam = examine(model, test_set)
write_report("report_python", exam, test_set)
print(exam.scored.metrics)
print("recommended by the validation pictures:", model.metadata.threshold)

detector = lab.Detector.from_pretrained("runs/python", threshold="auto")
for path in sorted(Path("my_data/images").rglob("*.*"))[:5]:
    print(path, detector(path))

from rtdetr_lab.deployment.onnx_file import export_onnx

export_onnx(model, "product_python.onnx", size=model.metadata.image_size)
alone = lab.Detector.from_pretrained("product_python.onnx", threshold="auto")

from rtdetr_lab.deployment.video import Clip, Video, detected

clip = Video("clip.mp4")
with Clip(Path("clip_python.mp4"), "clip_python.mp4", clip.rate) as boxes:
    for frame, found in detected(clip, alone, batch=8):
        boxes.add(found.drawn(), frame.seconds)
