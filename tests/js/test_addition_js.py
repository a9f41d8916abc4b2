"""The figure that adds in different orders."""

from tests.node import run_figure


def test_orders_of_addition(tmp_path):
    assert run_figure("addition", tmp_path)
