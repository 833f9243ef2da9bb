"""# Kernels: other ways to compute what a chapter computes

Equipment that both training and deployment import. Each file names the chapter that it replaces,
and gives the same numbers:

| file | what it computes |
|---|---|
| `embedding_bag_samplers` | deformable attention on the CPU: weighted sums of rows |
| `fused_sampler`, `triton_kernels` | deformable attention on CUDA, forward and backward |
| `folding` | a convolution and its norm as one, a RepVGG block as one convolution |
| `onednn` | the CPU's convolutions and products, weights prepacked, sums fused |
| `pages` | nothing: it keeps memory between two pictures |
"""
