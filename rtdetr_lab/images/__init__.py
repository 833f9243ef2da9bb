"""# Images: from a file or an array to a tensor, and from a prediction back to pixels

| module        | from → to                                                                    |
|---------------|------------------------------------------------------------------------------|
| `decode`      | path, bytes, file, PIL picture, array or tensor → `Photo`: upright RGB       |
| `arrays`      | its part for arrays: interpret them, or refuse what is ambiguous             |
| `modes`       | its part for Pillow's colour modes                                           |
| `foreign`     | its part that names files that are not pictures                              |
| `frames`      | boxes and pixels of the upright picture ↔ of the raster as stored            |
| `preprocess`  | uint8 RGB → floats in [0, 1] of the model's size                             |
| `postprocess` | `Prediction` → boxes in pixels, scores, labels                               |
| `predict`     | a model and pictures → boxes in pixels, scores, labels                       |
| `classes`     | labels → names, and ids of the data set                                      |
| `masks`       | masks of queries → masks in pixels of the picture                            |
| `panoptic`    | masks of queries → a class, an object or a segment per pixel                 |
| `tiling`      | windows over a large picture, and their detections merged                    |
"""
