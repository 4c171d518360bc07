"""Act 1 of the digits story: a small encoder learns to name digits.

Stands in for DINOv2: its latents are what the decoder (act 2) and the flow (act 3) work on.

COMMAND   python -m rae_dit.main --config=configs/encoder_digits.py --workdir=runs/encoder_digits
          (launch/quickstart.sh runs all three acts)
HARDWARE  CPU; minutes: not measured yet
EXPECTED  validation accuracy: not measured yet
SOURCE    of the numbers: ours, configs/_digits.py
"""

import ml_collections

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Act 1."""
    config = _digits.get_config()
    config.objective = "classification"
    return config
