"""A limit on what graphs may take: a few bytes of a stranger's model file can ask for more than the machine has."""

from __future__ import annotations

from clip_toolkit.errors import DeviceError
from clip_toolkit.runtime.devices import import_onnxruntime

_in_force: list[int] = []


def limit_memory(mebibytes: int) -> None:
    """Hold all models that this process opens from now on to so much memory on the CPU, together.

    What the runs compute counts, and weights that are laid out anew. Images, weights as they lie in the file, and
    memory of other devices do not. The models share one arena of ONNX Runtime, which gives none back to the system.

    Args:
        mebibytes: the limit.

    Raises:
        DeviceError: another limit is in force.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    if memory_in_force() not in (None, mebibytes):
        raise DeviceError(
            f"memory: {memory_in_force()} MiB is in force, and a process has one limit. Start another for {mebibytes}."
        )
    if _in_force:
        return
    runtime = import_onnxruntime()
    place = runtime.OrtMemoryInfo("Cpu", runtime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, runtime.OrtMemType.DEFAULT)
    extend_as_needed = 1  # instead of by powers of two, half of which would be idle and count
    sizes = {"max_mem": mebibytes * 2**20, "arena_extend_strategy": extend_as_needed}
    runtime.create_and_register_allocator(place, runtime.OrtArenaCfg(sizes))
    _in_force.append(mebibytes)


def memory_in_force() -> int | None:
    """Return the limit in MiB, or ``None``."""
    return _in_force[0] if _in_force else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ONNX Runtime failed at the limit, of which it tells in no other way than by its words."""
    return bool(_in_force) and any(words in str(error) for words in ("BFCArena", "bfc_arena", "bad_alloc"))
