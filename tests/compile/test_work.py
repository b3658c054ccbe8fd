"""What is counted of compiled programs, on programs written by hand."""

import pytest

from medvill_jax.compile import work
from tests.compile.programs import program

FUSION = """
%fused (f0: f32[30000,4], f1: s32[], f2: f32[8,4]) -> f32[8,4] {
  %f0 = f32[30000,4]{1,0} parameter(0)
  %f1 = s32[] parameter(1)
  %f2 = f32[8,4]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %rows = f32[8,4]{1,0} dynamic-slice(%f0, %f1, %zero), dynamic_slice_sizes={8,4}
  ROOT %both = f32[8,4]{1,0} add(%rows, %f2)
}

%updated (u0: f32[30000,4], u1: s32[], u2: f32[8,4]) -> (f32[3000,10,4], f32[8,4]) {
  %u0 = f32[30000,4]{1,0} parameter(0)
  %u1 = s32[] parameter(1)
  %u2 = f32[8,4]{1,0} parameter(2)
  %nought = s32[] constant(0)
  %twice = f32[8,4]{1,0} add(%u2, %u2)
  %new = f32[30000,4]{1,0} dynamic-update-slice(%u0, %twice, %u1, %nought)
  %shown = f32[3000,10,4]{2,1,0} bitcast(%new)
  ROOT %two = (f32[3000,10,4]{2,1,0}, f32[8,4]{1,0}) tuple(%shown, %twice)
}

%added (a0: f32[30000,4], a1: s32[8], a2: f32[8,4]) -> f32[30000,4] {
  %a0 = f32[30000,4]{1,0} parameter(0)
  %a1 = s32[8]{0} parameter(1)
  %a2 = f32[8,4]{1,0} parameter(2)
  ROOT %more = f32[30000,4]{1,0} scatter(%a0, %a1, %a2), to_apply=%add
}

%wrapped (w0: f32[8,4]) -> f32[8,4] {
  %w0 = f32[8,4]{1,0} parameter(0)
  ROOT %moved = f32[8,4]{1,0} copy(%w0)
}
"""


@pytest.mark.parametrize(
    ("lines", "moved"),
    [
        ("  ROOT %r = f32[8,4]{1,0} add(%p, %p)", 3 * 128),
        # Into the chip's fast memory, where what follows costs nothing, and back.
        (
            "  %s = (f32[8,4]{1,0:T(8,128)S(1)}, f32[8,4]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%p)\n"
            "  %d = f32[8,4]{1,0:T(8,128)S(1)} copy-done(%s)\n"
            "  %e = f32[8,4]{1,0:T(8,128)S(1)} exponential(%d)\n"
            "  ROOT %r = f32[8,4]{1,0:T(8,128)} copy(%e)",
            128 + 128,
        ),
        (
            "  %s = ((f32[8,4]{1,0:T(8,128)}), f32[2,4]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p)\n"
            "  ROOT %d = f32[2,4]{1,0:T(8,128)S(1)} slice-done(%s)",
            32,
        ),
        ("  %i = s32[] constant(2)\n  ROOT %r = f32[1,4]{1,0} dynamic-slice(%p, %i, %i)", 16 + 4 + 4 + 16),
        ("  %u = f32[1,4]{1,0} constant({...})\n  ROOT %r = f32[8,4]{1,0} dynamic-update-slice(%p, %u)", 32),
        (
            "  %table = f32[30000,4]{1,0} parameter(2)\n  %i = s32[] constant(2)\n"
            "  ROOT %r = f32[8,4]{1,0} fusion(%table, %i, %p), kind=kLoop, calls=%fused",
            128 + 4 + 128 + 128,
        ),
        # Of the table only the rows that are updated are written, and none is read.
        (
            "  %table = f32[30000,4]{1,0} parameter(2)\n  %i = s32[] constant(2)\n"
            "  ROOT %r = (f32[3000,10,4]{2,1,0}, f32[8,4]{1,0}) fusion(%table, %i, %p), kind=kLoop, calls=%updated",
            4 + 128 + 128 + 128,
        ),
        # A scatter adds to what is there: it reads the rows and writes them.
        (
            "  %table = f32[30000,4]{1,0} parameter(2)\n  %i = s32[8]{0} constant({...})\n"
            "  ROOT %r = f32[30000,4]{1,0} scatter(%table, %i, %p), to_apply=%add",
            128 + 128 + 32 + 128,
        ),
        (
            "  %table = f32[30000,4]{1,0} parameter(2)\n  %i = s32[8]{0} constant({...})\n"
            "  ROOT %r = f32[30000,4]{1,0} fusion(%table, %i, %p), kind=kLoop, calls=%added",
            128 + 128 + 32 + 128,
        ),
        # What an asynchronous pair runs is in the computation that it calls.
        (
            "  %s = ((f32[8,4]{1,0}), f32[8,4]{1,0}, s32[]) async-start(%p), calls=%wrapped\n"
            "  ROOT %d = f32[8,4]{1,0} async-done(%s), calls=%wrapped",
            128 + 128,
        ),
    ],
)
def test_what_goes_to_and_from_main_memory(lines: str, moved: int) -> None:
    assert sum(mover.bytes for mover in work.movers(program(lines, FUSION))) == moved


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[2,3]{1,0}", 24),
        ("f32[2,3]{1,0:T(8,128)}", 8 * 128 * 4),
        ("f32[2,3]{0,1:T(8,128)}", 8 * 128 * 4),
        ("bf16[12,436,64]{2,1,0:T(8,128)(2,1)}", 12 * 440 * 128 * 2),
        ("bf16[12,436,64]{1,2,0:T(8,128)(2,1)S(1)}", 12 * 512 * 64 * 2),
        ("f32[1000]{0:T(1024)}", 4096),
        ("(f32[2,3]{1,0:T(8,128)}, u32[]{:S(2)})", 4096 + 4),
    ],
)
def test_bytes_with_the_padding_of_the_layout(shape: str, size: int) -> None:
    assert work.padded_bytes(shape) == size


def test_what_moves_most_comes_first_with_its_layer() -> None:
    named = 'metadata={op_name="jit(step)/jvp(layer_3)/attention/add"}'
    read = program(
        f"  %e = f32[8,4]{{1,0}} exponential(%p), {named}\n"
        "  %small = bf16[16]{0} negate(%q)\n"
        "  ROOT %r = f32[8,4]{1,0:T(8,128)} fusion(%e, %e, %p), kind=kLoop, calls=%fused",
        FUSION.replace("add(%rows, %f2)", f"add(%rows, %f2), {named}"),
    )
    first, second, third = work.movers(read)
    assert [first.instruction, second.instruction, third.instruction] == ["r", "e", "small"]
    assert (first.times, first.opcode) == (1, "fusion")
    assert first.layer == second.layer == "layer_3/attention/add"
    assert third.layer == ""
    # Its result and one operand are a tile of 8 x 128 each, of which 8 x 4 are used.
    assert first.padding == 2 * 8 * (128 - 4) * 4


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("jit(step)/jvp(layer_3)/attention/add", "layer_3/attention/add"),
        (
            "jit(step)/transpose(jvp(layer_3))/attention/dot_general;jit(step)/mul",
            "gradient of layer_3/attention/dot_general",
        ),
        ("jit(step)/while/body/closed_call/jvp()/checkpoint/mlm_head/dot_general", "mlm_head/dot_general"),
        ("jit(step)/jvp(layer_3)/attention/abx,xy->aby/dot_general", "layer_3/attention/dot_general"),
        ("jit(step)/jvp(jit(_take))/gather", "gather"),
        ("jit(step)/optimizer/mul", "optimizer/mul"),
    ],
)
def test_the_layer_is_what_jax_named(name: str, layer: str) -> None:
    read = program(f'  ROOT %r = f32[8,4]{{1,0}} negate(%p), metadata={{op_name="{name}"}}')
    assert work.movers(read)[0].layer == layer


def test_a_copy_is_named_by_what_it_takes() -> None:
    read = program(
        "  %s = (f32[8,4]{1,0:S(1)}, f32[8,4]{1,0}, u32[]) copy-start(%p)\n  %d = f32[8,4]{1,0:S(1)} copy-done(%s)\n"
        "  %e = bf16[8,4]{1,0} copy(%d)\n  ROOT %r = f32[8,4]{1,0} copy(%q)"
    )
    assert {mover.instruction: mover.layer for mover in work.movers(read)} == {
        "s": "state/params", "e": "state/params", "r": "",
    }  # fmt: skip


def test_sizes_that_a_matrix_unit_fills_up() -> None:
    read = program(
        "  %k = f32[4,200]{1,0} constant({...})\n"
        "  ROOT %r = f32[8,200]{1,0} dot(%p, %k), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    )
    assert work.product_flops(read) == 2 * 8 * 4 * 200
    assert work.product_flops(read, 128) == 2 * 8 * 128 * 256


def test_work_of_the_vector_unit() -> None:
    read = program(
        "  %e = f32[8,4]{1,0} exponential(%p)\n"
        "  %bits = u32[8,4]{1,0} bitcast(%e)\n"
        "  %mixed = u32[8,4]{1,0} xor(%bits, %bits)\n"
        "  %zero = f32[] constant(0)\n"
        "  ROOT %r = f32[8]{0} reduce(%e, %zero), dimensions={1}, to_apply=%add"
    )
    # The addition of the reduction is counted once by itself.
    assert work.vectors(read) == work.Vectors(operations=3 * 32 + 1, whole_numbers=32)
