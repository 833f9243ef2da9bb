"""# Viz: from tensors and pictures to matplotlib axes; never a model

| module            | shows                                                                      |
|-------------------|----------------------------------------------------------------------------|
| `palette`         | the colours, safe for colour blindness, light and dark                     |
| `canvas`          | the common part of all figures: axes, quiet pictures, scales, themes       |
| `marks`           | frames, rims, notes and legends                                            |
| `cells`           | token ↔ level, row, column ↔ place in the picture                          |
| `boxes`           | boxes and their labels, on axes or written into a picture                  |
| `masks`           | every object's own pixels, under its box                                   |
| `panoptic`        | segments, painted and named                                                |
| `features`        | feature maps per level, before and after a stage                           |
| `attention`       | attention of the cell under a pixel, per head; attention between queries   |
| `sampling`        | sampling points: per query, layer, head; v1 beside v2 beside discrete      |
| `queries`         | score against IoU of the proposals, positions of the selected tokens       |
| `life`            | one query from its token to the detection, chained to the model's output   |
| `refinement`      | the drawing of a life, trails of boxes, overlap after every layer          |
| `denoising`       | noised objects of a group, the mask, which groups attend to which          |
| `matching`        | the cost matrix, the assignment, its changes over layers or epochs         |
| `training`        | losses per layer                                                           |
| `ablation`        | variants: scores, differences with intervals, curves, AP against latency   |
| `speed`           | time of each part, times over a variable, a roofline                       |
| `evaluation`      | precision over recall, confusions, mistakes by kind in a picture           |
| `heatmaps`        | three readings of one detection, side by side over its picture             |
| `exploration`     | all data of the queries of one run, packed for a page                      |
| `explorer`        | the widget: click an object to see why it was found                        |
| `explorer_page`   | the same as one HTML file that opens offline                               |
"""
