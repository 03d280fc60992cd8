"""bf16 where the hardware computes in it; where it is emulated, a step takes nine times as long as in float32."""

import torch

# Of x86, and of ARM.
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")


def computes_bf16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in bf16 itself."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    found = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return any(found.get(name, False) for name in _INSTRUCTIONS)


def mixed_precision(device: torch.device, *, bf16: bool) -> torch.autocast:
    """Autocast to bf16 if that is wished for and the device computes in it; weights stay float32 either way."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16 and computes_bf16(device))
