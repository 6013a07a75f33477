"""A boolean option inside a layer, with parameters of its own, is added to a copy of the sources in six files.

The copy is then built, converted, verified, compared and read without its record: everything else follows from the six.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("vit_spec", "vit_torch", "vit_jax", "conversion", "vit_parity", "vitport", "benchmarks", "tests")
LAYER = {
    "        norm: NormLayer | None = None,\n": "        norm: NormLayer | None = None,\n"
    "        out_norm: NormLayer | None = None,\n",
    "        self.drop2 =": "        self.out_norm = {identity} if out_norm is None else out_norm(dim)\n"
    "        self.drop2 =",
    "self.drop2(self.fc2(x)": "self.drop2(self.out_norm(self.fc2(x))",
}
OPTION: dict[str, dict[str, str]] = {
    "vit_spec/vit/config.py": {
        "    qkv_bias: bool = True\n": "    mlp_out_norm: bool = False\n    qkv_bias: bool = True\n",
        '"norm": "mlp_norm",': '"norm": "mlp_norm", "out_norm": "mlp_out_norm",',
    },
    "vit_spec/vit/parameters.py": {
        '    yield from linear(make, f"{at}.fc2", M, D, "rows", bias=bias)\n': "    yield from linear(make, "
        'f"{at}.fc2", M, D, "rows", bias=bias)\n    if c.mlp_out_norm:\n'
        '        yield from _norm(c, make, f"{at}.out_norm", D)\n'
    },
    "vit_torch/layers/mlp.py": {old: new.replace("{identity}", "nn.Identity()") for old, new in LAYER.items()},
    "vit_jax/layers/mlp.py": {old: new.replace("{identity}", "nnx.identity") for old, new in LAYER.items()},
    "vit_parity/replay/vit.py": {
        '    return r.note(f"{at}.fc2", r.linear(f"{at}.fc2", x))': '    x = r.note(f"{at}.fc2", r.linear(f"{at}.fc2", '
        'x))\n    there = f"{at}.out_norm.weight" in r.params\n'
        '    return r.note(f"{at}.out_norm", r.norm(f"{at}.out_norm", x)) if there else x'
    },
    "vit_parity/semantics/vit.py": {
        "Mlp(first, second, self.act, norm=norm": 'Mlp(first, second, self.act, norm=norm, out=self._inner(at, "out")',
        "        return self.second(self.norm(hidden))": "        return self.out(self.second(self.norm(hidden)))",
        '    """Before ``second`` (Shleifer et al. 2021)."""\n': "    out: Layer = same\n",
    },
}
"""File → what is replaced by what."""
HOLDER = {
    "conversion/formats/vit/timm.py": {'"hidden": ("mlp.norm",)': '"hidden": ("mlp.norm",), "out": ("mlp.out_norm",)'}
}
"""A format that can hold the option says what it calls the layer."""
SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from safetensors.numpy import save_file
import conversion, vitport
from conversion.limits import unsupported_fields
from tests.random_weights import random_params
from tests.small_configs import BASE
folder, config = Path(sys.argv[1]), BASE.replace(mlp_out_norm=True)
checkpoint = conversion.Checkpoint.of(config, random_params(config, 1, np.float32))
conversion.save(checkpoint, folder / "a.safetensors", format="timm")
done = vitport.convert(folder / "a.safetensors", folder / "flax", to="flax", verify=True)
assert done.certificate.passed and done.checkpoint.config.mlp_out_norm
found = vitport.compare(folder / "a.safetensors", explain=True).comparison
assert found.first_divergence is None and "blocks.1.mlp.out_norm" in [row.name for row in found.rows]
assert unsupported_fields(config) == ["mlp_out_norm=True"]
save_file(dict(checkpoint.params), folder / "bare.safetensors")
assert conversion.load(folder / "bare.safetensors", model=BASE).config == config
"""


@pytest.mark.slow
def test_an_option_with_parameters_is_six_files_and_the_formats_that_hold_it(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("a new boolean option")[2]
    listed = {path for row in re.findall(r"^\| `.*", section, re.MULTILINE) for path in re.findall(r"`(\S+\.py)`", row)}
    assert set(OPTION) == listed
    assert len(listed) <= 6
    tree = tmp_path / "tree"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, changes in (OPTION | HOLDER).items():
        code = (tree / file).read_text(encoding="utf-8")
        for old, new in changes.items():
            assert code.count(old) >= 1, f"{file} no longer has {old!r}"
            code = code.replace(old, new, 1)
        (tree / file).write_text(code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(tree)}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
