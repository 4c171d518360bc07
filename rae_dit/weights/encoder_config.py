"""Configs of encoder directories in Hugging Face form: family, sizes, constants of the images."""

import logging
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rae_dit.architecture import Triple
from rae_dit.models.encoders import FAMILIES
from rae_dit.models.encoders.family import EncoderFamily
from rae_dit.weights.config_file import read_fields, read_json, read_triple
from rae_dit.weights.directory import contents
from rae_dit.weights.mapping import WeightsError

log = logging.getLogger(__name__)

# What a config.json of transformers leaves out, where the family's record does not say otherwise.
DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "patch_size": 16,
}


def read_config(directory: Path) -> tuple[EncoderFamily, SimpleNamespace]:
    """Reads config.json: the family, and the fields that it needs with the family's defaults.

    `transformers` is not asked: it would offer to run the code that a config can name.

    Raises:
        WeightsError: there is no config.json, it is of no known family, or a field is wrong.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise WeightsError(
            f"encoder: got {directory}, without a config.json ({contents(directory)}); "
            "expected a directory of Hugging Face's transformers, such as that of "
            "facebook/dinov2-with-registers-base; files of torch.hub and timm "
            "have other names and are not read"
        )
    config = read_json(path)
    family = family_of(config, path)
    config = config.get("vision_config", config)
    if not isinstance(config, dict):
        raise WeightsError(f"vision_config: got {config!r}; expected an object, in {path}")
    fields = read_fields(config, {**DEFAULTS, **family.huggingface.defaults}, path)
    for name in ("patch_size", "hidden_size", "num_hidden_layers", "num_attention_heads"):
        if fields[name] == 0:
            raise WeightsError(f"{name}: got 0; expected at least 1, in {path}")
    if fields["hidden_size"] % fields["num_attention_heads"]:
        expected = f"a divisor of hidden_size = {fields['hidden_size']}, in {path}"
        raise WeightsError(
            f"num_attention_heads: got {fields['num_attention_heads']}; expected {expected}"
        )
    return family, SimpleNamespace(**fields)


def family_of(config: Mapping[str, Any], path: Path) -> EncoderFamily:
    """Finds the family by the `model_type` of a config.

    Raises:
        WeightsError: if no family reads it.
    """
    model_type = config.get("model_type")
    for family in FAMILIES:
        if model_type in family.huggingface.model_types:
            return family
        for refused, reason in family.huggingface.refused_types.items():
            if model_type == refused:
                raise WeightsError(f"model_type: {reason}, in {path}")
    known = [name for family in FAMILIES for name in family.huggingface.model_types]
    reason = ""
    if "pretrained_cfg" in config:
        reason = " (this config is timm's)"
    elif "auto_map" in config:
        reason = " (this config names code of its own, which is not run)"
    raise WeightsError(
        f"model_type: got {model_type!r}{reason}; expected one of {', '.join(known)}, in {path}"
    )


def image_constants(directory: Path, family: EncoderFamily) -> tuple[Triple, Triple]:
    """Reads mean and deviation of the images, or takes those published for the family.

    Raises:
        WeightsError: they are not three numbers each.
    """
    path = directory / "preprocessor_config.json"
    config = read_json(path) if path.exists() else {}
    mean, std = config.get("image_mean"), config.get("image_std")
    if mean is None and std is None:
        what = "has no image_mean" if path.exists() else "is missing"
        name = family.module.__name__
        log.warning("%s %s; using the constants published for %s", path, what, name)
        return family.image_mean, family.image_std
    return (
        read_triple(mean, "image_mean", path),
        read_triple(std, "image_std", path, above=0.0),
    )
