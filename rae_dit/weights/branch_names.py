"""Names of branches in training checkpoints: which hold averages of the weights, and which none.

Trainers write ema, model_ema, modelEMA, state_dict_ema, ema_0.9999, averaged_model, swa_model, … :
names are compared word by word.
"""

import re

# An average is named by the word "ema", which trainers may write in one with another word, or:
EMA = re.compile(r"(?:model|net|params|weights)?ema\d*(?:model|net|params|weights)?")
AVERAGE_WORDS = frozenset(["avg", "average", "averaged", "polyak", "shadow", "swa"])
# Weights that the optimizer moves; the first found is taken.
ONLINE = (
    *("model", "state_dict", "model_state_dict", "online_model", "net", "network", "params"),
    "current_model_state",
)
# Parts of names that wrappers of modules add.
WRAPPERS = (
    *("_orig_mod", "module", "ddp"),
    *("_checkpoint_wrapped_module", "_fsdp_wrapped_module"),
)
# What classes that average keep beside their weights.
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step", "optimization_step")
# Copies of the online weights, and sums of the optimizer's ("exp_avg") of the same names.
NOT_AVERAGED = ("online_model", "collected_params", "backup", "momentum", "momentum_buffer")
OPTIMIZER_WORDS = frozenset(["opt", "optim", "optimizer", "optimizers", "exp", "grad", "grads"])


def words(key: str) -> list[str]:
    """Splits a name into its words in lower case: "modelEMA_0.9" is model, ema, 0, 9."""
    split = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", key)
    return [word for word in re.split(r"[^a-z0-9]+", split.lower()) if word]


def names_ema(key: str) -> bool:
    """Tells whether one of a name's words is "ema"."""
    return any(EMA.fullmatch(word) for word in words(key))


def is_no_weights(key: str) -> bool:
    """Tells whether a branch is an optimizer's, or a copy that a trainer keeps of the weights."""
    return key in NOT_AVERAGED or not OPTIMIZER_WORDS.isdisjoint(words(key))


def is_average(key: str, *, inside: bool) -> bool | None:
    """Tells by the name of a branch whether an average is below; None for what is no weights.

    Args:
        key: the name.
        inside: whether the branch is itself inside an average's, where all that is not named
            otherwise belongs to the average.
    """
    if is_no_weights(key):
        return False if key in ONLINE else None
    if names_ema(key) or not AVERAGE_WORDS.isdisjoint(words(key)):
        return True
    if key in ONLINE or key in WRAPPERS:
        return inside
    return True if inside and decay_in(key) is not None else None


def decay_in(key: str) -> float | None:
    """Reads a decay off a name such as "0.9999" or "ema_0.9999"."""
    match = re.search(r"(?<![\d.])0?\.\d+(?![\d.])", key)
    return float(match[0]) if match else None
