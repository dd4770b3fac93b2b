"""Every kernel of `cuda/` compiled for real GPUs: none spills registers or takes more than the committed table says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cubins
import pytest
from cubins import ARCHITECTURES, CUDA, TABLE, Resources, compile_cubin, measured, programs, read_table
from warp_layout import PROBES

MEND = f"if that is meant, write {TABLE.name} anew with `python tests/cubins.py` and say why in the commit"
SLACK = 16  # registers, where another NVRTC than the table's compiles


def excess(row: Resources, table: dict[tuple[str, str, str, str], Resources], slack: int = 0) -> str | None:
    """What a kernel takes beyond the table, as a sentence; None where all is well."""
    where = " ".join(filter(None, (row.kernel, "of", row.source, row.options, "on", row.architecture)))
    if row.spills:
        return f"{where} spills {row.spills} bytes"
    if row.key not in table:
        return f"{where} is not in the table: {MEND}"
    allowed = table[row.key]
    for name, unit, more in (
        ("registers", "registers", slack),
        ("shared", "bytes of shared memory", 0),
        ("stack", "bytes of stack", 0),
    ):
        taken, most = getattr(row, name), getattr(allowed, name) + more
        if taken > most:
            return f"{where} takes {taken} {unit}, {TABLE.name} allows {most}: {MEND}"
    return None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("program", programs(), ids=" ".join)
def test_every_kernel_keeps_to_the_table(program: tuple[str, str], architecture: str) -> None:
    rows, cubin, seconds = measured(*program, architecture)
    assert cubin[:4] == b"\x7fELF"
    compiled_by, table = read_table()
    slack = 0 if cubins.version() == compiled_by else SLACK
    print(f"{' '.join(program)} {architecture}: compiled in {seconds:.1f} s")
    for row in rows:
        taken = f"{row.registers:4} registers, {row.shared:6} B shared, {row.stack:5} B stack, {row.spills:4} B spilled"
        print(f"  {row.kernel:24} {taken}")
    assert [sentence for row in rows if (sentence := excess(row, table, slack))] == []


def test_the_table_names_nothing_that_is_gone() -> None:
    kernels = {row.key for program in programs() for arch in ARCHITECTURES for row in measured(*program, arch)[0]}
    _, table = read_table()
    assert set(table) == kernels
    assert all(row.spills == 0 for row in table.values())


def test_a_kernel_that_takes_more_is_named_with_what_to_do() -> None:
    row = Resources("render.cu", "", "render_frame", "sm_80", 64, 1024, 8, 0)
    table = {row.key: row}
    assert excess(row, table) is None
    assert excess(dataclasses.replace(row, registers=48), table) is None
    for more in ({"registers": 65}, {"shared": 1025}, {"stack": 16}):
        sentence = excess(dataclasses.replace(row, **more), table)
        assert sentence is not None
        assert sentence.startswith("render_frame of render.cu on sm_80 takes")
        assert "python tests/cubins.py" in sentence
    assert excess(dataclasses.replace(row, registers=80), table, SLACK) is None
    assert "spills 8 bytes" in str(excess(dataclasses.replace(row, spills=8), table))
    assert "not in the table" in str(excess(row, {}))


def test_the_table_reads_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cubins, "ARCHITECTURES", ("sm_80",))
    monkeypatch.setattr(cubins, "programs", lambda: [("render.cu", "")])
    cubins.write_table(tmp_path / "table.csv")
    compiled_by, table = read_table(tmp_path / "table.csv")
    assert compiled_by == cubins.version()
    assert list(table.values()) == measured("render.cu", "", "sm_80")[0]


def test_a_broken_source_is_refused_with_its_line() -> None:
    broken = (CUDA / "render.cu").read_text() + "\n__global__ void broken() { undeclared_name = 1; }\n"
    with pytest.raises(RuntimeError, match="undeclared_name"):
        compile_cubin(broken, "broken.cu", "sm_80")


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80"])
def test_the_probes_of_the_gpu_tests_compile(architecture: str) -> None:
    _, log = compile_cubin(PROBES, "probes.cu", architecture)
    assert [row.spills for row in cubins.resources(log, "probes.cu", "", architecture)] == [0, 0]


def test_a_spill_is_seen() -> None:
    """300 live values in at most 32 registers: ptxas must spill, and the table's check must say so."""
    source = """
    extern "C" __global__ void __launch_bounds__(1024, 2) crowded(float *x) {
        float v[300];
        #pragma unroll
        for (int i = 0; i < 300; i++) v[i] = x[i * blockDim.x + threadIdx.x];
        __syncthreads();
        #pragma unroll
        for (int i = 0; i < 300; i++) x[i * blockDim.x + threadIdx.x] = v[299 - i] * v[(i * 7) % 300];
    }"""
    _, log = compile_cubin(source, "crowded.cu", "sm_80")
    (row,) = cubins.resources(log, "crowded.cu", "", "sm_80")
    assert row.kernel == "crowded"
    assert "spills" in str(excess(row, {row.key: row}))
