"""The machine that something was timed on, in words."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import torch

_CPU_INFO = Path("/proc/cpuinfo")
_FAST = ("avx_vnni", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8", "i8mm", "bf16", "sve")
"""Instructions with which dense bf16 or int8 may be several times as fast as float32: x86's and ARM's."""


def machine_in_words(device: torch.device) -> str:
    """Say which device, how many threads torch uses, what the CPU can do and how busy it is.

    The instructions are read from ``/proc/cpuinfo``; elsewhere than on Linux they are not known, which is said.

    Example:
        >>> machine_in_words(torch.device("cpu"))  # doctest: +ELLIPSIS
        '...; ... thread...'
    """
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    capability = torch.backends.cpu.get_cpu_capability()
    said = [f"{_cpu_name()}, {capability}, {_instructions()}", f"{threads} thread{'s' * (threads > 1)}"]
    if hasattr(os, "getloadavg"):  # not on Windows
        said.append(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores before")
    return "; ".join([*said, f"torch {torch.__version__}"])


def _cpu_name() -> str:
    return _of_cpu_info("model name") or platform.processor() or platform.machine()


def _instructions() -> str:
    flags = (_of_cpu_info("flags") or _of_cpu_info("Features")).split()
    if not flags:
        return "bf16 and AMX not known"
    return " ".join(flag for flag in _FAST if flag in flags) or "neither bf16, VNNI nor AMX"


def _of_cpu_info(field: str) -> str:
    try:
        found = re.search(rf"^{field}\s*:\s*(.*)$", _CPU_INFO.read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1].strip() if found else ""
