r"""RAEv2 digits example, stage 2: train DiT^DH with Muon on the latents of the digits encoder.

COMMAND   RECIPE=raev2 bash launch/quickstart.sh runs all stages
HARDWARE  CPU; docs/raev2.md has what it gives beside today's recipe
SOURCE    of the values: ours, configs/_digits2.py
"""

import ml_collections

from configs import _digits2


def get_config() -> ml_collections.ConfigDict:
    """Returns the config of RAEv2's stage 2 on digits."""
    config = _digits2.get_config()
    config.objective = "flow_matching"
    config.optim.name = "muon"
    config.optim.momentum = 0.95
    return config
