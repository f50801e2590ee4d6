"""Figures of what a model has learnt: nothing hides what is drawn, whatever the labels."""

from types import SimpleNamespace

import numpy as np
import pytest

from mtlweights.bench.report.drawing import drawing
from mtlweights.bench.report.understanding import draw_affinity, draw_norms, draw_states


def lines(axis):
    return {line.get_label(): len(line.get_xdata()) for line in axis.get_lines()}


def clear_of_the_frame(axis):
    """Whether the legend is above the frame, and inside the figure."""
    figure = axis.figure
    figure.draw_without_rendering()
    box = axis.get_legend().get_window_extent()
    whole = figure.bbox
    return (
        box.y0 >= axis.get_window_extent().y1 - 1
        and box.x1 <= whole.x1
        and box.y1 <= whole.y1
        and not axis.get_legend().get_frame_on()
    )


@pytest.mark.parametrize("labels", [3, 10, 26])
def test_every_state_is_drawn_and_every_colour_has_one_label(labels):
    groups = [f"intent_of_{k}" for k in range(labels) for _ in range(30 - k)]
    points = np.random.default_rng(0).normal(size=(len(groups), 2))
    with drawing(1, (4.6, 3.6), "x", "x") as (figure, _):
        (axis,) = figure.get_axes()
        draw_states(axis, points, groups)
        found = lines(axis)
        assert len(found) == len({line.get_color() for line in axis.get_lines()}) == min(labels, 10)
        assert sum(found.values()) == len(groups) and found["intent_of_0"] == 30
        assert clear_of_the_frame(axis)
        if labels > 10:
            assert found[f"{labels - 9} others"] == sum(30 - k for k in range(9, labels))


@pytest.mark.parametrize(("low", "scale"), [(0.5, "linear"), (0.01, "log")])
def test_lengths_are_drawn_from_0_where_they_are_of_one_size(low, scale):
    trace = SimpleNamespace(tasks=["a", "b"], epochs=[1, 2], norms={"words": [[1.0, low], [0.9, low]]})
    with drawing(1, (4.6, 2.8), "x", "x") as (figure, _):
        (axis,) = figure.get_axes()
        draw_norms(axis, trace, "words")
        assert axis.get_yscale() == scale and (axis.get_ylim()[0] == 0) == (scale == "linear")
        assert clear_of_the_frame(axis)


def test_a_small_affinity_is_not_rounded_away():
    trace = SimpleNamespace(tasks=["a", "b"], affinity=[[[3.4e-4, 4.9e-5], [-2e-6, 0.02]]])
    with drawing(1, (3.8, 3.0), "x", "x") as (figure, _):
        (axis,) = figure.get_axes()
        draw_affinity(axis, trace)
        assert [text.get_text() for text in axis.texts] == ["+0.00034", "+4.9e-05", "-2e-06", "+0.02"]
