"""A folder that transformers runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vit_spec import VitportError


def load_transformers(path: Path) -> Any:
    """The model of a folder that ``save_pretrained`` wrote, in evaluation mode; weights from safetensors only.

    Raises:
        VitportError: if transformers is missing or cannot load the folder.
    """
    try:
        import transformers
    except ImportError as error:
        raise VitportError(f"Running {path} needs transformers: pip install transformers.") from error
    if not (path / "config.json").is_file():
        raise VitportError(
            f"{path} is not a Hugging Face model: it has no config.json. Give a folder that save_pretrained wrote."
        )
    try:
        config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
        name = {"CLIPModel": "CLIPVisionModel", "SiglipModel": "SiglipVisionModel"}
        architecture = (config.architectures or ["AutoModel"])[0]
        kind = getattr(transformers, name.get(architecture, architecture))
        options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "attn_implementation": "eager"}
        return kind.from_pretrained(path, **options).eval()
    except Exception as error:  # transformers raises many types
        raise VitportError(f"transformers cannot load {path} ({' '.join(str(error).split())}).") from error
