"""Writes `confseq_values.json` beside it: what the package confseq says, for `tests/test_anytime.py`.

    python tests/data/confseq_values.py

ran with confseq 0.0.11, numpy 1.26.4 and scipy 1.14.1 on Python 3.11. confseq needs Boost's headers and numpy below 2;
it was built by `pip install setuptools wheel scikit-build cmake ninja "pybind11<3" "numpy<2" "scipy<1.15" "pandas<3"`
and then `CMAKE_POLICY_VERSION_MINIMUM=3.5 pip install --no-build-isolation confseq==0.0.11`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from confseq.betting import betting_mart
from confseq.boundaries import beta_binomial_log_mixture

rng = np.random.default_rng(7)
wealth, mixture = [], []
for m, stake, p in ((0.1, 0.9, 0.3), (0.1, 0.225, 0.12), (0.01, 0.45, 0.02), (0.5, 0.05, 0.6)):
    x = rng.binomial(8, p, 20) / 8
    bets = np.full(len(x), stake / m)
    values = betting_mart(x, m, lambdas_fn_positive=lambda x, m, bets=bets: bets, theta=1, trunc_scale=1)
    wealth.append({"x": x.tolist(), "m": m, "stake": stake, "wealth": values.tolist()})
for m, v_opt in ((0.1, 10.0), (0.3, 25.0)):
    for n, k in ((1, 0), (1, 1), (20, 2), (20, 9), (200, 20), (200, 45), (1000, 150)):
        arguments = {"s": k - n * m, "v": n * m * (1 - m), "v_opt": v_opt, "g": m, "h": 1 - m, "alpha_opt": 0.05}
        value = float(beta_binomial_log_mixture(**arguments, is_one_sided=True))
        mixture.append({"n": n, "k": k, "arguments": arguments, "value": value})
found = {"betting_mart": wealth, "beta_binomial_log_mixture": mixture}
Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")
