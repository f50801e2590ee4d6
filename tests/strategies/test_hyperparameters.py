"""Hyperparameters: what is refused, and with what error; preferences."""

import math

import numpy as np
import pytest
import torch

from tests.strategies.helpers import NAN, make

REFUSED = [
    ("achievement", {"margin": 0}, "margin should be a number above 0, found 0"),
    ("adatask", {"betas": (0.9, 1.0)}, r"betas should be two numbers of at least 0 and below 1, found \(0"),
    ("adatask", {"betas": 0.9}, r"betas should be two numbers of at least 0 and below 1, found 0\.9"),
    ("adatask", {"betas": ("a", "b")}, "betas should be numbers"),
    ("aligned_mtl", {"preference": [1, math.nan, 1]}, "preference should hold finite numbers"),
    ("aligned_mtl", {"preference": [0, 0, 0]}, "at least 0, one of them above 0"),
    ("auto_lambda", {"init": 0}, "init should be a number above 0"),
    ("auto_lambda", {"eta": math.nan}, "eta should be a number above 0, found nan"),
    ("contrastive", {"decay": -0.1}, "decay should be at least 0 and below 1, found -0.1"),
    ("cosmos", {"concentration": 0}, "concentration should be a number above 0"),
    ("cosmos", {"preference": [0, 0, 0]}, "at least 0, one of them above 0"),
    ("db_mtl", {"beta": 1.0}, r"beta should be at least 0 and below 1, found 1\.0"),
    ("db_mtl", {"sigma": -1}, "sigma should be a number of at least 0, found -1"),
    ("db_mtl", {"beta": float("nan")}, "beta should be .* found nan"),
    ("dtp", {"rate": 1.1}, "rate should be above 0 and at most 1, found 1.1"),
    ("dwa", {"temperature": 0}, "temperature should be a number above 0, found 0"),
    ("epo", {"preference": [0, 1, 1]}, "preference should hold numbers above 0"),
    ("epo", {"preference": "abc"}, "preference should be numbers, found 'abc'"),
    ("excess_mtl", {"eta": 0.0}, r"eta should be a number above 0, found 0\.0"),
    ("excess_mtl", {"warmup": 0}, "warmup should be a whole number of at least 1, found 0"),
    ("famo", {"gamma": -1}, "gamma should be a number of at least 0"),
    ("go4align", {"groups": 0}, "groups should be a whole number of at least 1, found 0"),
    ("go4align", {"step_size": math.inf}, "step_size should be a number of at least 0, found inf"),
    ("graddrop", {"leak": 1.5}, r"leak should be at least 0 and at most 1, found 1\.5"),
    ("graddrop", {"leak": [0.1, 0.2]}, r"leak should have 3 numbers, one per task, found \[0\.1, 0\.2\]"),
    ("gradnorm", {"alpha": -1}, "alpha should be a number of at least 0, found -1"),
    ("igb", {"base": -1}, "base should be a whole number of at least 0, found -1"),
    ("krum", {"n_selected": 0}, "n_selected should be a whole number of at least 1, found 0"),
    ("krum", {"n_byzantine": 1.5}, "n_byzantine should be a whole number of at least 0, found 1.5"),
    ("lbtw", {"alpha": -0.1}, "alpha should be a number of at least 0, found -0.1"),
    ("ldc", {"penalty": -1}, "penalty should be a number of at least 0"),
    ("metabalance", {"r": 1.5}, r"r should be a number from 0 to 1, found 1\.5"),
    ("metabalance", {"beta": -0.1}, "beta should be at least 0 and below 1, found -0.1"),
    ("metabalance", {"target": 3}, "target should be the index of one of 3 tasks, 0 to 2, found 3"),
    ("metabalance", {"adapt": "all"}, "adapt should be one of both, shrink, enlarge, found 'all'"),
    ("metabalance", {"r": "half"}, "r should be .* found 'half'"),
    ("metabalance", {"beta": None}, "beta should be .* found None"),
    ("mgda", {"preference": [1, 0, 1]}, r"preference should hold numbers above 0, found \[1, 0, 1\]"),
    ("mgda", {"preference": [1, 2]}, "preference should have 3 numbers, one per task"),
    ("mgda", {"normalisation": "l1"}, "normalisation should be one of none, l2, loss, loss\\+"),
    ("moco", {"beta": 0.0}, r"beta should be above 0 and at most 1, found 0\.0"),
    ("moco", {"gamma": 0.0}, r"gamma should be a number above 0, found 0\.0"),
    ("moco", {"rho": -1.0}, r"rho should be a number of at least 0, found -1\.0"),
    ("moco", {"radius": 0}, "radius should be a number above 0, found 0"),
    ("modo", {"gamma": 0}, "gamma should be a number above 0, found 0"),
    ("modo", {"rho": -1}, "rho should be a number of at least 0, found -1"),
    ("pbi", {"preference": [1, -1, 1]}, "preference should hold numbers of at least 0"),
    ("pbi", {"theta": "5"}, "theta should be a number of at least 0, found '5'"),
    ("sdmgrad", {"regularisation": math.inf}, "regularisation should be a number of at least 0"),
    ("sdmgrad", {"lr": 0}, "lr should be a number above 0"),
    ("sdmgrad", {"momentum": 1}, "momentum should be at least 0 and below 1, found 1"),
    ("sdmgrad", {"momentum": "high"}, "momentum should be at least 0 and below 1, found 'high'"),
    ("sdmgrad", {"iterations": 0}, "iterations should be a whole number of at least 1, found 0"),
    ("sdmgrad", {"iterations": 2.0}, r"iterations should be a whole number of at least 1, found 2\.0"),
    ("sdmgrad", {"preference": [1, 0, 1]}, "preference should hold numbers above 0"),
    ("slaw", {"rate": 0}, "rate should be above 0 and at most 1, found 0"),
    ("stch", {"mu": 0}, "mu should be a number above 0, found 0"),
    ("stch", {"preference": [1, 2]}, r"preference should have 3 numbers, one per task, found \[1, 2\]"),
    ("stch", {"ideal": [0, 0, math.inf]}, "ideal should hold finite numbers"),
    ("stch", {"ideal": "low"}, "ideal should be numbers, found 'low'"),
    ("stch", {"preference": 2.0}, r"preference should have 3 numbers, one per task, found 2\.0"),
    ("stch_mtl", {"warmup": 1.5}, "warmup should be a whole number of at least 0, found 1.5"),
    ("trimmed_mean", {"trim": -1}, "for 3 tasks, a whole number from 0 to 1, found -1"),
    ("trimmed_mean", {"trim": 0.5}, r"trim should be .* found 0\.5"),
    ("trimmed_mean", {"trim": "1"}, r"trim should be .* found '1'"),
    ("trimmed_mean", {"trim": float("nan")}, "trim should be .* found nan"),
    ("uw", {"forms": "gaussian"}, "'regression' or 'classification', found 'gaussian'"),
    ("uw", {"forms": ["regression"]}, "forms should be one form or 3, one per task, found"),
    ("uw", {"init": float("nan")}, "init should be a finite number"),
    ("uw_so", {"temperature": NAN}, "temperature should be a number above 0, found nan"),
    ("validation", {"gamma": 0}, "gamma should be a number above 0"),
    ("validation", {"margin": float("inf")}, "margin should be a number above 0"),
    ("variational", {"decay": 1.0}, "decay should be at least 0 and below 1, found 1.0"),
    ("variational", {"pull": 0}, "pull should be above 0 and at most 1, found 0"),
    ("variational", {"pull": 1.0}, "pull should be at least 0 and below 1, found 1.0"),
]


@pytest.mark.parametrize(("name", "hyperparameters", "message"), REFUSED)
def test_bad_hyperparameters_are_refused(name, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        make(name, 3, **hyperparameters)


def test_preferences_keep_their_defaults_and_are_copied():
    for name in ("stch", "pbi", "cosmos"):
        preference = make(name, 4).preference
        assert preference.tolist() == [0.25] * 4 and preference.dtype == torch.float32
    given = np.array([1.0, 2, 3])
    for name in ("epo", "aligned_mtl", "mgda", "sdmgrad"):
        assert make(name, 4).preference.tolist() == [1.0] * 4
        strategy = make(name, 3, preference=given)
        given[0] += 1
        assert strategy.preference.tolist() == [given[0] - 1, 2, 3]
        assert strategy.preference.dtype == torch.float64


@pytest.mark.parametrize(
    ("name", "instead"), [("upgrad", "dualproj"), ("gradcraft", "pcgrad"), ("epo", "stch")]
)
def test_solvers_that_do_not_grow_with_the_tasks_say_what_does(name, instead):
    assert make(name, 256).n_tasks == 256
    with pytest.raises(ValueError, match=f"takes at most 256 tasks, found 257: .* Use '{instead}'"):
        make(name, 257)
