"""# Pages: memory that stays with the process between two pictures

A picture of 640² passes through maps of up to 13 MB. glibc's allocator may give such a piece of
memory back when a map is freed, and the next picture asks for it again: thousands of pages, each
of which the kernel must clear. Whether it does depends on the order of earlier requests, so one
process in three pays for it and the others do not. An engine therefore tells the allocator to keep
what it has, as the other runtimes do with memory pools of their own.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Numbers of the two settings in glibc's `malloc.h`."""
KEPT = 1 << 30
"""Bytes of free heap that are kept."""
FROM_THE_HEAP = (1 << 30, 1 << 25)
"""Pieces below this many bytes come from the heap; some versions accept only the second."""


def keep_pages() -> bool:
    """Let this process keep freed memory for later; False where the allocator is another."""
    setting = getattr(ctypes.CDLL(None), "mallopt", None)
    if setting is None:
        return False
    heap = any(setting(M_MMAP_THRESHOLD, size) for size in FROM_THE_HEAP)
    return heap and bool(setting(M_TRIM_THRESHOLD, KEPT))
