"""The reader of compiled programs, on programs written by hand."""

import pytest

from medvill_jax.compile import hlo, work
from tests.compile.programs import program


def only(text: str, devices: int = 8, before: str = "") -> dict[str, hlo.Traffic]:
    return hlo.collectives(program(text, before), devices)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[2,3]{1,0}", 24),
        ("bf16[]", 2),
        ("pred[7]", 7),
        ("s4[8]{0}", 4),
        ("f8e4m3fn[16]", 16),
        ("f32[<=8]{0}", 32),
        ("f32[30522,16]{0,1:T(8,128)S(1)}", 30522 * 64),
        ("(f32[2]{0:T(128)}, /*index=1*/(bf16[3]{0}, u32[]), token[])", 8 + 6 + 4),
    ],
)
def test_bytes_of_a_shape(shape: str, size: int) -> None:
    assert hlo.shape_bytes(shape) == size


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add", 4),
        ("replica_groups=[4,2]<=[8], to_apply=%add", 2),
        ("replica_groups=[2,4]<=[4,2]T(1,0), to_apply=%add", 4),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_1'}, to_apply=%add", 2),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0','axis_1'}", 8),
        ("replica_groups=mesh['axis_0'=1,'axis_1'=4,'axis_2'=2], device_ids=([2,4]T(1,0)) {'axis_1'}", 4),
        ("replica_groups={}, to_apply=%add", 8),
        ("to_apply=%add", 8),
    ],
)
def test_devices_of_a_group(attributes: str, size: int) -> None:
    assert hlo.group_size(attributes, 8) == size


def test_an_all_reduce_of_several_arrays() -> None:
    found = only(
        "  ROOT %r = (f32[8,4]{1,0:T(8,128)}, /*index=1*/bf16[16]{0}) all-reduce(%p, %q), channel_id=1,"
        " replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add"
    )
    assert found == {"all-reduce": hlo.Traffic(1, 128 + 32, 2 * 3 / 4 * 160)}


def test_a_pair_of_start_and_done_is_one() -> None:
    found = only(
        "  %s = (f32[8,4]{1,0}, f32[64,4]{1,0:T(8,128)}) all-gather-start(%p), replica_groups=[1,8]<=[8]\n"
        "  %d = f32[64,4]{1,0} all-gather-done(%s)\n"
        "  %t = f32[8,4]{1,0} all-reduce-start(%p), replica_groups=[1,8]<=[8], to_apply=%add\n"
        "  ROOT %e = f32[8,4]{1,0} all-reduce-done(%t)"
    )
    assert found == {
        "all-gather": hlo.Traffic(1, 1024, 1024 * 7 / 8),
        "all-reduce": hlo.Traffic(1, 128, 2 * 128 * 7 / 8),
    }


def test_a_wrapped_pair_is_one() -> None:
    wrapped = """
%wrapped (w: f32[8,4]) -> f32[1,4] {
  %w = f32[8,4]{1,0} parameter(0)
  ROOT %scatter = f32[1,4]{1,0} reduce-scatter(%w), replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}, to_apply=%add
}
"""
    found = only(
        "  %s = ((f32[8,4]{1,0}), f32[1,4]{1,0}, u32[]) async-start(%p), calls=%wrapped\n"
        "  ROOT %d = f32[1,4]{1,0} async-done(%s), calls=%wrapped",
        before=wrapped,
    )
    assert found == {"reduce-scatter": hlo.Traffic(1, 128, 128 * 7 / 8)}


def test_one_that_tpus_spread_over_several_fusions_is_one() -> None:
    part = """
%part.{number} (w: f32[1,4]) -> f32[8,4] {{
  %w = f32[1,4]{{1,0}} parameter(0)
  ROOT %gather.{number} = f32[8,4]{{1,0}} all-gather(%w), channel_id={channel}, replica_groups=[1,8]<=[8]
}}
"""
    before = "".join(part.format(number=number, channel=max(number, 2)) for number in (1, 2, 3))
    calls = "\n".join(
        f"  %f{number} = f32[8,4]{{1,0}} fusion(%p), kind=kCustom, calls=%part.{number}" for number in (1, 2, 3)
    )
    assert only(calls, before=before) == {"all-gather": hlo.Traffic(2, 256, 256 * 7 / 8)}


def test_a_reduce_scatter_of_tpus() -> None:
    fused = """
%all-reduce-scatter.1 (w: f32[8,4]) -> f32[1,4] {
  %w = f32[8,4]{1,0} parameter(0)
  %sum = f32[8,4]{1,0} all-reduce(%w), replica_groups=[1,8]<=[8], to_apply=%add
  %id = u32[] partition-id()
  %zero = u32[] constant(0)
  ROOT %own = f32[1,4]{1,0} dynamic-slice(%sum, %id, %zero), dynamic_slice_sizes={1,4}
}
"""
    found = only("  ROOT %f = f32[1,4]{1,0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.1", before=fused)
    assert found == {"reduce-scatter": hlo.Traffic(1, 128, 128 * 7 / 8)}


def test_the_other_kinds() -> None:
    found = only(
        "  %a = f32[8,4]{1,0} all-to-all(%p), replica_groups={{0,1},{2,3},{4,5},{6,7}}, dimensions={0}\n"
        "  %c = (f32[8,4]{1,0}, f32[8,4]{1,0}, u32[], u32[]) collective-permute-start(%p), channel_id=3\n"
        "  ROOT %d = f32[8,4]{1,0} collective-permute-done(%c)"
    )
    assert found == {"all-to-all": hlo.Traffic(1, 128, 64), "collective-permute": hlo.Traffic(1, 128, 128)}


def test_a_group_of_one_sends_nothing() -> None:
    assert not only("  ROOT %r = f32[8,4]{1,0} all-reduce(%p), replica_groups=[8,1]<=[8], to_apply=%add")


LOOP = """
%body (b: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %b = (s32[], f32[8,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%b), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%i, %one)
  %x = f32[8,4]{1,0} get-tuple-element(%b), index=1
  %k = f32[4,4]{1,0} constant({...})
  %y = f32[8,4]{1,0} dot(%x, %k), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %z = f32[8,4]{1,0} all-reduce(%y), replica_groups=[1,8]<=[8], to_apply=%add
  ROOT %out = (s32[], f32[8,4]{1,0}) tuple(%next, %z)
}

%condition (c: (s32[], f32[8,4])) -> pred[] {
  %c = (s32[], f32[8,4]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%c), index=0
  %limit = s32[] constant(5)
  ROOT %less = pred[] compare(%j, %limit), direction=LT
}
"""
WHILE = "  %w = (s32[], f32[8,4]{1,0}) while(%t), condition=%condition, body=%body"


@pytest.mark.parametrize("known", ["", ', backend_config={"known_trip_count":{"n":"5"}}'])
def test_a_loop_counts_as_often_as_it_runs(known: str) -> None:
    read = program(
        f"  %zero = s32[] constant(0)\n  %t = (s32[], f32[8,4]{{1,0}}) tuple(%zero, %p)\n{WHILE}{known}\n"
        "  ROOT %r = f32[8,4]{1,0} get-tuple-element(%w), index=1",
        LOOP,
    )
    assert hlo.collectives(read, 8) == {"all-reduce": hlo.Traffic(5, 5 * 128, 5 * 2 * 128 * 7 / 8)}
    # XLA counts the body once: a product of 2 * 8 * 4 * 4, and what its instructions read and write.
    product, reduced, counter, compare = 128 + 64 + 128, 128 + 128, 4 + 4 + 4, 1 + 4 + 4
    assert work.loops(read) == work.Loops(4 * 256, 4 * (product + reduced + counter + compare), 0)


def test_a_loop_without_a_count_says_so() -> None:
    endless = LOOP.replace("%limit = s32[] constant(5)", "%limit = s32[] get-tuple-element(%c), index=0")
    read = program(f"  %t = (s32[], f32[8,4]{{1,0}}) tuple(%q, %p)\n{WHILE}", endless)
    assert work.loops(read) == work.Loops(0, 0, 1)
    assert hlo.collectives(read, 8)["all-reduce"].count == 1


@pytest.mark.parametrize(
    ("window", "image", "out", "expected"),
    [
        ("size=3x3", "6,6", "4,4", 2 * 4 * 4 * 9),
        # Without what meets the padding: of 6 places, two have two taps along an axis.
        ("size=3x3 pad=1_1x1_1", "6,6", "6,6", 2 * 16 * 16),
        # As a stride's gradient: every other element of the dilated input is a zero.
        ("size=3x3 pad=2_2x2_2 lhs_dilate=2x2", "2,2", "5,5", 2 * 6 * 6),
    ],
)
def test_flops_of_a_convolution(window: str, image: str, out: str, expected: int) -> None:
    read = program(
        f"  %i = f32[2,{image},3]{{3,2,1,0}} parameter(2)\n  %k = f32[3,3,3,5]{{3,2,1,0}} parameter(3)\n"
        f"  ROOT %c = f32[2,{out},5]{{3,2,1,0}} convolution(%i, %k), window={{{window}}}, dim_labels=b01f_01io->b01f"
    )
    table = read.computations[read.entry]
    assert hlo.instruction_flops(table, table["c"]) == expected * 2 * 3 * 5


def test_text_that_is_no_program() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule nothing")
