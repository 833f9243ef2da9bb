r"""# Triton kernels: deformable attention without writing the samples to memory

One program does all reads of one head of one query. It walks over the points, reads the four cells
around each (d channels at once), weights them, and keeps a running sum in registers. `grid_sample`
writes and reads $B M Q P d$ samples for the same output; here only the output is written.

$$ \mathrm{out}_{bqm} = \sum_k A_k \sum_{c} \beta_{kc} \, x_{i_{kc}}, \qquad
   \beta = (1 - |u - u_c|)(1 - |v - v_c|) $$

The backward pass walks over the same points again. The gradient of a value is added where the value
was read; it uses atomics, because many queries read one cell. The gradient of a weight is $\langle
g, x\langle p \rangle\rangle$. The gradient of a location follows the slope of β, with zero padding
as in the forward pass.

`value` is `B N M d`, `where` `B Q M P 2`, `weights` `B Q M P`, `layout` `P 3` (height, width and
first token of each point's level), `out` and `grad` `B Q M d`. Sums are kept in single precision
for half inputs, in double for double. Points, levels and channels are loops over constants, so a
kernel is compiled per layout. With `TRITON_INTERPRET=1` the same code runs on the CPU; that is how
the tests compare it with the naive loop.
"""

from typing import Any

import triton
import triton.language as tl


@triton.jit
def read_forward(  # type: ignore[no-untyped-def]
    value, where, weights, layout, out, num_queries, num_tokens,
    heads: tl.constexpr, points: tl.constexpr, dim: tl.constexpr,
    block: tl.constexpr, sums: tl.constexpr,
) -> Any:  # fmt: skip
    """Run one program per (picture, query, head). The numbers of a point are blocks of one."""
    row = tl.program_id(0).to(tl.int64)
    head, picture = row % heads, row // heads // num_queries
    channel, one = tl.arange(0, block), tl.arange(0, 1)
    real = channel < dim
    table = value + (picture * num_tokens * heads + head) * dim
    total = tl.zeros((block,), sums)
    for k in range(points):
        height = tl.load(layout + 3 * k + one)
        width = tl.load(layout + 3 * k + 1 + one)
        first = tl.load(layout + 3 * k + 2 + one)
        u = tl.load(where + (row * points + k) * 2 + one).to(sums) * width - 0.5
        v = tl.load(where + (row * points + k) * 2 + 1 + one).to(sums) * height - 0.5
        weight = tl.load(weights + row * points + k + one).to(sums)
        # A point two cells outside the map reads nothing. Clamped there, its cell fits an int32.
        u = tl.minimum(tl.maximum(u, -2.0), width + 1.0)
        v = tl.minimum(tl.maximum(v, -2.0), height + 1.0)
        left, top = tl.floor(u).to(tl.int32), tl.floor(v).to(tl.int32)
        for corner in range(4):
            x, y = left + corner % 2, top + corner // 2
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            near = (1 - tl.abs(u - x)) * (1 - tl.abs(v - y))
            cell = (first + y * width + x).to(tl.int64) * heads * dim
            read = tl.load(table + cell + channel, mask=real & inside, other=0.0).to(sums)
            total += weight * near * read
    tl.store(out + row * dim + channel, total.to(out.dtype.element_ty), mask=real)


@triton.jit
def read_backward(  # type: ignore[no-untyped-def]
    grad, value, where, weights, layout, grad_value, grad_where, grad_weights,
    num_queries, num_tokens, heads: tl.constexpr, points: tl.constexpr,
    dim: tl.constexpr, block: tl.constexpr, sums: tl.constexpr,
) -> Any:  # fmt: skip
    """Run one program per (picture, query, head). Cells are shared, so values need atomics."""
    row = tl.program_id(0).to(tl.int64)
    head, picture = row % heads, row // heads // num_queries
    channel, one = tl.arange(0, block), tl.arange(0, 1)
    real = channel < dim
    start = (picture * num_tokens * heads + head) * dim
    g = tl.load(grad + row * dim + channel, mask=real, other=0.0).to(sums)
    for k in range(points):
        height = tl.load(layout + 3 * k + one)
        width = tl.load(layout + 3 * k + 1 + one)
        first = tl.load(layout + 3 * k + 2 + one)
        u = tl.load(where + (row * points + k) * 2 + one).to(sums) * width - 0.5
        v = tl.load(where + (row * points + k) * 2 + 1 + one).to(sums) * height - 0.5
        weight = tl.load(weights + row * points + k + one).to(sums)
        u = tl.minimum(tl.maximum(u, -2.0), width + 1.0)
        v = tl.minimum(tl.maximum(v, -2.0), height + 1.0)
        left, top = tl.floor(u).to(tl.int32), tl.floor(v).to(tl.int32)
        sampled, slope_u, slope_v = tl.zeros((1,), sums), tl.zeros((1,), sums), tl.zeros((1,), sums)
        for corner in range(4):
            x, y = left + corner % 2, top + corner // 2
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            along, down = 1 - tl.abs(u - x), 1 - tl.abs(v - y)
            cell = start + (first + y * width + x).to(tl.int64) * heads * dim
            here, share = real & inside, along * down
            read = tl.load(value + cell + channel, mask=here, other=0.0).to(sums)
            tl.atomic_add(grad_value + cell + channel, weight * share * g, mask=here)
            agreement = tl.sum(read * g, axis=0)
            sampled += share * agreement
            slope_u += (2 * (corner % 2) - 1) * down * agreement
            slope_v += (2 * (corner // 2) - 1) * along * agreement
        at = row * points + k + one
        tl.store(grad_weights + at, sampled.to(grad_weights.dtype.element_ty))
        to_u, to_v = weight * slope_u * width, weight * slope_v * height
        tl.store(grad_where + at * 2, to_u.to(grad_where.dtype.element_ty))
        tl.store(grad_where + at * 2 + 1, to_v.to(grad_where.dtype.element_ty))
