"""# Images: from whatever holds a picture to a tensor, and from a prediction back to pixels

| module        | from → to                                                                    |
|---------------|------------------------------------------------------------------------------|
| `decode`      | path, bytes, file, PIL picture, array or tensor → `Photo`: upright RGB |
| `arrays`      | the part of it that guesses about arrays, or refuses to                      |
| `modes`       | the part of it that knows Pillow's colour modes                              |
| `foreign`     | the part of it that names what is no picture                                 |
| `frames`      | boxes and pixels of the upright picture ↔ of the raster as stored            |
| `preprocess`  | uint8 RGB → floats in [0, 1] of the model's size                             |
| `postprocess` | `Prediction` → boxes in pixels, scores, labels                               |
| `predict`     | a model and pictures → the same                                              |
| `classes`     | labels → names, and ids of the data set                                      |
| `masks`       | masks of queries → the picture's own pixels                                  |
| `panoptic`    | masks of queries → a class, an object or a segment per pixel                 |
| `tiling`      | windows over a large picture, and what they found put together again         |
"""
