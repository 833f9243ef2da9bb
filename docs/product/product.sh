#!/bin/sh
# The commands of "From a folder to a product" (product.md), in order. They need photos.zip, clip.py
# and onnx_alone.py in this folder.
set -eu

python -m zipfile -e photos.zip photos
rtdetr-lab data check photos
rtdetr-lab data look photos --out look.html

rtdetr-lab data split photos my_data --val 0.15 --test 0.15

rtdetr-lab train --model nano --data my_data --out runs/first \
    --pictures 2000 --batch-size 4 --amp auto

rtdetr-lab eval runs/first --data my_data --split test --out report

rtdetr-lab detect my_data/images --model runs/first --threshold auto --limit 5 --out found

rtdetr-lab export runs/first --out product.onnx
rtdetr-lab detect my_data/images --model product.onnx --threshold auto --limit 5 --out again

python onnx_alone.py

python clip.py
rtdetr-lab detect clip.mp4 --model product.onnx --threshold auto --out clip_boxes.mp4
