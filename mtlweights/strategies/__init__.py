"""The methods: each strategy is the mathematics of one paper, and knows nothing of training loops.

T tasks, of which m <= T have a loss in this step; P shared parameters.

| kind | folder | sees | gives | costs, per step |
|---|---|---|---|---|
| LossStrategy | ``loss/`` | losses [m] | a scalar | 1 backward pass |
| GramStrategy | ``gram/`` | Gramian of the task gradients [m, m] | weights [m] | T backward passes |
| JacobianStrategy | ``jacobian/`` | task gradients [m, P] | a direction [P] | T passes, T x P memory |

``solvers/`` has the T x T problems, in NumPy; ``registry`` the names, ``catalogue`` what each one costs.
"""

from . import gram, jacobian, loss
from .base import ALL, GramStrategy, Index, JacobianStrategy, LossStrategy, Strategy
from .gram import *
from .jacobian import *
from .loss import *
from .registry import get, names

__all__ = ["ALL", "GramStrategy", "Index", "JacobianStrategy", "LossStrategy", "Strategy", "get", "names"]
__all__ += loss.__all__
__all__ += gram.__all__
__all__ += jacobian.__all__
