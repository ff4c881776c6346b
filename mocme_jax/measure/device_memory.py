"""What one device of a kind holds, in GB (10^9 bytes), as its maker's data sheet says."""

DEVICE_MEMORY: dict[str, float] = {
    "t4": 16.0,
    "l4": 24.0,
    "a100-40": 40.0,
    "a100-80": 80.0,
    "h100": 80.0,
    "h200": 141.0,
    "tpu-v4": 32.0,
    "tpu-v5e": 16.0,
    "tpu-v5p": 95.0,
    "tpu-v6e": 32.0,
}
