"""Programs of a few instructions, as text."""

from medvill_jax.compile import hlo

ADD = """
%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}
"""


def program(body: str, before: str = "") -> hlo.Program:
    """A module whose entry has these lines after two parameters."""
    return hlo.parse(f"""HloModule jit_step, entry_computation_layout={{(f32[8,4]{{1,0}})->f32[8,4]{{1,0}}}}
{ADD}{before}
ENTRY %main (p: f32[8,4], q: bf16[16]) -> f32[8,4] {{
  %p = f32[8,4]{{1,0:T(8,128)}} parameter(0), metadata={{op_name="state['params']"}}
  %q = bf16[16]{{0}} parameter(1)
{body}
}}
""")
