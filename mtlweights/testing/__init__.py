"""The contract every strategy keeps, as checks for a strategy of your own.

Run all of them with ``mtlweights test my_strategy.py``, or one test each with pytest:

    @pytest.mark.parametrize("name", CHECKS)
    def test_contract(name):
        check(name, MyStrategy)
"""

from .contract import CHECKS, check, findings
from .properties import PROPERTIES
from .subject import SIZES

__all__ = ["CHECKS", "PROPERTIES", "SIZES", "check", "findings"]
