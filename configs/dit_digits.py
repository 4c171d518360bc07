r"""Act 3 of the digits story: DiT^DH learns the flow from noise to the encoder's latents.

COMMAND   python -m rae_dit.main --config=configs/dit_digits.py --workdir=runs/dit_digits \
              --config.encoder.checkpoint=runs/encoder_digits \
              --config.encoder.statistics=STATISTICS \
              --config.decoder.checkpoint=runs/rae_digits
          (STATISTICS: the file that --mode=stats wrote; launch/quickstart.sh runs all three acts)
          Then the same with --mode=sample, --mode=evaluate.
HARDWARE  CPU; minutes: not measured yet
EXPECTED  share of samples that the digit judge reads as their label: not measured yet
SOURCE    of the numbers: ours, configs/_digits.py
"""

import ml_collections

from configs import _digits


def get_config() -> ml_collections.ConfigDict:
    """Act 3."""
    config = _digits.get_config()
    config.objective = "flow_matching"
    return config
