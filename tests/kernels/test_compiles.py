"""Kernels compile for a GPU where there is none: the interpreter lets pass what the compiler's types do not."""

import os
import subprocess
import sys

import pytest


COMPILE = """
import itertools
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mwanda.kernels import rows

kernel = rows._zero_lowest
types = {"columns": "*fp32", "size": "i32", "stride": "i32", "count": "i32"}
for weight, (block, whole, warps) in itertools.product(("*bf16", "*fp32"), ((2048, True, 2), (1024, False, 1))):
    constants = {"BLOCK": block, "WHOLE": whole, "INSTRUCTION": True, "PIECE": rows.PIECE, "IN_ORDER": rows.IN_ORDER}
    signature = {"weight": weight, **types, **dict.fromkeys(constants, "constexpr")}
    made = compile(ASTSource(kernel, signature, constants), GPUTarget("cuda", 90, 32), {"num_warps": warps})
    assert "fma.rn.sat.f32" in made.asm["ptx"]
    assert made.asm["cubin"]
"""

SUMS = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mwanda.kernels import row_sums

types = {"logits": "*fp32", "shift": "*fp32", "total": "*fp32", "size": "i32", "stride": "i32", "BLOCK": "constexpr"}
source = ASTSource(row_sums._add_exponentials, types, {"BLOCK": row_sums.BLOCK})
assert compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 4}).asm["cubin"]
"""

LEVELS = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mwanda.kernels import level_sums

for gradient in ("*bf16", "*fp32"):
    types = {"gradient": gradient, "weight": "*bf16", "codes": "*u8", "out": "*fp32", "rows": "i32", "size": "i32"}
    constants = {"LEVELS": 3, "PADDED": 4, "BLOCK": level_sums.BLOCK}
    source = ASTSource(level_sums._add_up, {**types, **dict.fromkeys(constants, "constexpr")}, constants)
    assert compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 4}).asm["cubin"]
"""

NORMS = """
import itertools
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mwanda.kernels import norms

types = {"rows": "i32", "epsilon": "fp32", "early": "i32", "added": "i32"}
for kind, (size, block) in itertools.product(("*bf16", "*fp16", "*fp32"), ((640, 1024), (256, 256), (7, 8))):
    constants = {"SIZE": size, "BLOCK": block, "LINES": norms.ELEMENTS // block}
    types |= {"inputs": kind, "weight": kind, "out": kind} | dict.fromkeys(constants, "constexpr")
    signature = {name: types[name] for name in norms._normalise.arg_names}
    source = ASTSource(norms._normalise, signature, constants)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    assert compile(source, GPUTarget("cuda", 90, 32), options).asm["cubin"]
"""

COLUMNS = """
from triton import compile
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from mwanda.kernels import columns

types = {"values": "*fp32", "gone": "*i8", "spread": "*fp32", "scale": "*fp32"}
for cell in (0, 4):
    constants = {"BLOCK": 128, "CELL": cell, "LINES": columns.ROWS}
    chosen = types | dict.fromkeys(("rows", "size", "apart", "stride", "count"), "i32")
    chosen |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(columns._adjust, {name: chosen[name] for name in columns._adjust.arg_names}, constants)
    options = {"num_warps": columns.WARPS, "enable_fp_fusion": False}
    made = compile(source, GPUTarget("cuda", 90, 32), options)
    assert made.asm["cubin"]
    assert "bar.sync" not in made.asm["ptx"]  # nothing waits at each column
"""


@pytest.mark.parametrize(
    "source", [COMPILE, SUMS, LEVELS, NORMS, COLUMNS], ids=["rows", "sums", "levels", "norms", "columns"]
)
def test_a_kernel_compiles_for_a_gpu(source: str) -> None:
    if os.environ.get("CI") != "true":
        pytest.importorskip("triton", reason="no Triton is installed here")
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
