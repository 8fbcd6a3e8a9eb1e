"""What the compiler put into the objects: no wide instruction where any processor must run the code."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.native.building import build, find_program, run

pytestmark = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="only x86 has variants for instruction sets"
)

ISAS = ("base", "avx2", "avx512")
# An instruction line of objdump -d: address, bytes, mnemonic, operands.
INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\t[0-9a-f ]+\t(\S+)\s*(.*)$")


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The objects of the CPU library: of each variant, and "common" for the rest; warnings are errors."""
    folder = tmp_path_factory.mktemp("objects")
    build(folder, "pk_cpu", PRIVKERNELS_WERROR="ON")
    found = {isa: sorted(folder.glob(f"**/pk_cpu_{isa}.dir/**/*.o")) for isa in ISAS}
    found["common"] = sorted(folder.glob("**/pk_cpu.dir/**/*.o"))
    for name, files in found.items():
        assert files, f"no object of {name}"
    return found


def tool(name: str) -> str:
    found = find_program(name, f"llvm-{name}")
    if found is None:
        pytest.skip(f"there is no {name}")
    return found


def instructions(files: list[Path]) -> Iterator[tuple[str, str]]:
    """Mnemonic and operands of every instruction."""
    for file in files:
        for line in run(tool("objdump"), "-d", file).splitlines():
            if match := INSTRUCTION.match(line):
                yield match[1], match[2]


def test_base_and_common_code_runs_on_any_x86_64(objects: dict[str, list[Path]]) -> None:
    """No ymm, zmm or mask register, and no VEX or EVEX form (their names begin with v) of anything."""
    count = 0
    for mnemonic, operands in instructions(objects["base"] + objects["common"]):
        count += 1
        assert not re.search(r"%[yz]mm|%k[0-7]", operands), (mnemonic, operands)
        assert not mnemonic.startswith("v") or mnemonic.startswith(("verr", "verw")), (mnemonic, operands)
    assert count > 1000


def test_avx2_code_uses_no_avx512_and_no_fma(objects: dict[str, list[Path]]) -> None:
    wide = 0
    for mnemonic, operands in instructions(objects["avx2"]):
        assert not re.search(r"%zmm|%k[0-7]|%[xy]mm(1[6-9]|2\d|3[01])", operands), (mnemonic, operands)
        wide += "%ymm" in operands
    assert wide > 100


def test_avx512_code_is_wide(objects: dict[str, list[Path]]) -> None:
    assert sum("%zmm" in operands for _, operands in instructions(objects["avx512"])) > 100


@pytest.mark.parametrize("isa", ISAS)
def test_no_variant_contracts(objects: dict[str, list[Path]], isa: str) -> None:
    """A fused multiply-add rounds once where the other paths round twice."""
    fused = [mnemonic for mnemonic, _ in instructions(objects[isa]) if re.match(r"vfn?m(add|sub)", mnemonic)]
    assert fused == []


@pytest.mark.parametrize("isa", ISAS)
def test_variants_leave_no_weak_symbol(objects: dict[str, list[Path]], isa: str) -> None:
    """The linker keeps one of several weak symbols, and may take the one with wide instructions."""
    defined = []
    for file in objects[isa]:
        for line in run(tool("nm"), "--demangle", file).splitlines():
            kind, name = line[17:].split(maxsplit=1)
            assert kind not in "VvWwu", line
            if kind == "T":
                defined.append(name)
    assert defined, "nothing is defined: the check saw no symbols"
    assert all(name.startswith(f"privkernels::{isa}::") for name in defined), defined
