"""This machine's processor, memory, GPUs and disk, and whether the hub can be reached. For `srbench doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

HUB = "https://huggingface.co"
CONNECT_SECONDS = 1.5
"""How long the hub may take to answer. A name lookup has no timeout, so it runs in a thread."""


def processor() -> str:
    """Python, cores, threads of torch, memory."""
    import torch

    return f"python {platform.python_version()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, {memory()}"


def memory() -> str:
    """Total memory of the machine; on Linux also how much is free."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    info = Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    free = next((int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("MemAvailable:")), None)
    return f"{total:.0f} GB of memory" + ("" if free is None else f", {free:.0f} GB of them free")


def cards() -> str:
    """CUDA, the driver, and each card with its memory and number formats."""
    import torch

    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "torch is built without CUDA"
    if not torch.cuda.is_available():
        return f"no CUDA device ({built}); fp32 and bf16 on the CPU"
    lines = [_card(number) for number in range(torch.cuda.device_count())]
    return f"{built}, driver {driver()}; {'; '.join(lines)}"


def _card(number: int) -> str:
    import torch

    free, total = torch.cuda.mem_get_info(number)
    with torch.cuda.device(number):
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    formats = "fp32, fp16, bf16" if bf16 else "fp32, fp16, no bf16"
    return f"{number}: {torch.cuda.get_device_name(number)}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, {formats}"


def driver() -> str:
    """NVIDIA's driver version, from `nvidia-smi`."""
    tool = shutil.which("nvidia-smi")
    command = [str(tool), "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=2, check=True) if tool else None
    except (OSError, subprocess.SubprocessError):
        return "not known"
    return done.stdout.split("\n")[0].strip() if done else "not known"


def hub() -> tuple[bool, str]:
    """Whether the hub can be reached, and a text that says so. Only its port is tried; no request is sent."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False, "offline, as HF_HUB_OFFLINE says; what is on this machine is used"
    address = urlsplit(os.environ.get("HF_ENDPOINT") or HUB)
    scheme, host = address.scheme or "https", address.hostname or ""
    if scheme in getproxies():
        return True, f"{host} through a proxy, which was not tried"
    reached = reachable(host, address.port or (80 if scheme == "http" else 443))
    return reached, f"{host} {'can be reached' if reached else 'cannot be reached; what is on this machine is used'}"


def reachable(host: str, port: int) -> bool:
    """Whether a connection can be opened within `CONNECT_SECONDS`."""
    answered: list[bool] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
        except OSError:
            return
        answered.append(True)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(CONNECT_SECONDS)
    return bool(answered)


def token() -> bool:
    """Whether a token of the hub is set. It is neither printed nor used."""
    from huggingface_hub import get_token

    return get_token() is not None


def free_gb(place: Path) -> float:
    """Free space where `place` is, or would be, in GB."""
    existing = next(p for p in (place, *place.resolve().parents) if p.exists())
    return shutil.disk_usage(existing).free / 1e9
