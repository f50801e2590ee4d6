"""The script that breaks the engine still fits the engine; running it is left to the reader."""

import pytest

from tests.breaks.break_on_purpose import BREAKS, ROOT


@pytest.mark.parametrize("fault", BREAKS, ids=lambda fault: fault.what)
def test_each_break_has_its_place_once(fault):
    text = (ROOT / "mtlweights" / fault.file).read_text(encoding="utf-8")
    assert text.count(fault.sound) == 1
    assert (ROOT / fault.tests.split()[0]).exists()
