"""Weights that are not plain floats: quantised ones, and adapters beside the weights that they change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from conversion.tensors.table import BFLOAT16, TensorTable
from vit_spec import VitportError

_SCALES = re.compile(
    r"(^|[./])(SCB|weight_format|_packed_params.*|qweight|qzeros|scales|g_idx|weight_scales?(_inv|_2)?|weight_zero_point"
    r"|weight_packed|W_q|codebooks|qvalue|qrhs[./].*|zero_point|activation_post_process[./].*"
    r"|weight\.(absmax|quant_map|nested_absmax|quant_state.*|_data|_scale|_shift)"
    r"|\w*(_quantizer|fake_quant)[./].*)$"
)
"""Names beside quantised weights: bitsandbytes (SCB, absmax), GPTQ and AWQ (qweight, scales), compressed-tensors and
float8 checkpoints (weight_scale, weight_packed), HQQ (W_q), Quanto (weight._data), AQLM (codebooks), AQT in JAX
(qvalue, qrhs), ModelOpt and Quark (weight_quantizer), PyTorch (_packed_params, zero_point, fake_quant)."""
_ADAPTER = re.compile(
    r"(^|[./])(lora_(A|B|E|embedding_A|embedding_B|magnitude_vector|up|down|lambda_[bd])|ia3_l|hada_w[12]_[ab]|lokr_w[12]"
    r"(_[ab])?|oft_[rR]|boft_[Rs]|vera_lambda_[bd]|fourierft_spectrum|hra_u)([./]|$)"
)
"""Names in the adapters of peft, and of kohya (lora_up)."""
_WEIGHT = re.compile(r"(^|[./])(weight|kernel|[a-z_]+_weight)$")
_FLOATS = (BFLOAT16, *(np.dtype(kind) for kind in ("float16", "float32", "float64")))
_REMEDY = "save the model dequantised, in float32, float16 or bfloat16"


def check_plain(table: TensorTable, config_json: Mapping[str, Any]) -> None:
    """Refuse quantised weights and unmerged adapters, which read as plain weights would give another model.

    Args:
        table: tensors under the file's own names.
        config_json: a folder's config.json; empty for a file.

    Raises:
        VitportError: with the tensor or the entry that shows it.
    """
    if method := config_json.get("quantization_config"):
        name = method.get("quant_method", "unnamed") if isinstance(method, Mapping) else method
        raise VitportError(f"The weights are quantised: config.json has a quantization_config ({name}). So {_REMEDY}.")
    for name, tensor in table.tensors.items():
        if _ADAPTER.search(name):
            raise VitportError(
                f"The file holds an unmerged adapter ({name}): merge it into the weights with peft's "
                "merge_and_unload(), and save the model again."
            )
        if _SCALES.search(name):
            raise VitportError(f"The weights are quantised: {name} lies beside them. So {_REMEDY}.")
        if _WEIGHT.search(name) and len(tensor.shape) > 1 and tensor.dtype.kind in "iub":
            raise quantised(name, str(tensor.dtype))


def check_floats(table: TensorTable) -> None:
    """Refuse parameters of anything but float16, bfloat16, float32 and float64.

    Args:
        table: canonical name → tensor, each a parameter.

    Raises:
        VitportError: with the first such parameter.
    """
    for name, tensor in table.tensors.items():
        if name.endswith("num_batches_tracked"):
            raise VitportError(
                f"The file holds a batch norm ({name}), which no model of vitport has: give the weights of a Vision "
                "Transformer or a Swin Transformer."
            )
        if tensor.dtype.kind in "iub":
            raise quantised(name, str(tensor.dtype))
        if tensor.dtype not in _FLOATS:
            raise VitportError(
                f"{name} has dtype {tensor.dtype}, which weights do not have: save the model in float32, float16 or "
                "bfloat16."
            )


def quantised(name: str, dtype: str) -> VitportError:
    """The refusal of a tensor by its dtype."""
    return VitportError(f"The weights are quantised: {name} has dtype {dtype}. So {_REMEDY}.")
