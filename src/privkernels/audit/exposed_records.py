"""Single records that an attack exposes: a p-value each, and a list with a bounded share of false entries."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from privkernels.audit._json import JsonValue
from privkernels.audit.intervals import Array
from privkernels.audit.metrics import checked_scores
from privkernels.errors import InvalidArgumentError, TooFewRecordsError

_ASSUMPTIONS = (
    "the calibration records are non-members, drawn like the audited records and exchangeable with those among them "
    "that membership did not change",
    "the attack treats audited and calibration records alike, as one does that used neither, or (shadow models trained "
    "on random halves of both) both; and the choice of the audited records did not look at scores",
)


@dataclass(frozen=True)
class ExposedRecords(JsonValue):
    """Records whose scores are too high for records that were not trained on. Private data: it names members.

    Attributes:
        records: indices into the audited scores, most exposed first.
        p_values: their p-values, in the same order.
        fdr: expected share of false entries in the list, at most.
        n_audited, n_calibration: scores of each kind.
        smallest_list: the fewest records that could be listed with so many calibration scores: with n of them no
            p-value is below 1 / (n + 1), so a single record that stands out stays unlisted unless this is 1.
        assumptions: what ``fdr`` rests on.
    """

    records: tuple[int, ...]
    p_values: tuple[float, ...]
    fdr: float
    n_audited: int
    n_calibration: int
    smallest_list: int
    assumptions: tuple[str, ...]

    def __str__(self) -> str:
        listed = f"{len(self.records)} of {self.n_audited} records are exposed by this attack"
        limit = (
            f" Fewer than {self.smallest_list} could not have been listed: more non-members are needed."
            if self.smallest_list > 1
            else ""
        )
        return (
            f"{listed}; on average at most {100 * self.fdr:g}% of such a list are there by chance.{limit} An unlisted "
            f"record is not shown to be safe. Assumed: {'; '.join(self.assumptions)}."
        )


def conformal_p_values(audited: Array, calibration: Array) -> Array:
    """p_i = (1 + number of calibration scores >= score_i) / (1 + n), float64 [m].

    If audited record i is exchangeable with the n calibration records, P[p_i <= a] <= a for every a, over the draw of
    both (Vovk, Gammerman and Shafer 2005). Equal scores count against exposure.

    Args:
        audited: float [m], higher for likelier members. calibration: float [n], of non-members.

    Raises:
        EmptyDataError, NonFiniteValueError, InvalidArgumentError: no scores, scores that are not finite or not [n].
    """
    audited = checked_scores(audited, "audited record")
    ordered = np.sort(checked_scores(calibration, "calibration"))
    as_high = len(ordered) - np.searchsorted(ordered, audited, side="left")
    values: Array = (1 + as_high) / (1 + len(ordered))
    return values


def exposed_records(audited: Array, calibration: Array, fdr: float = 0.05) -> ExposedRecords:
    """List the audited records that an attack exposes, at a false discovery rate of at most ``fdr``.

    The procedure of Benjamini and Hochberg (1995) on the p-values of :func:`conformal_p_values`. These share their
    calibration scores and so depend on each other, but positively (PRDS), under which the procedure keeps its level:
    Bates, Candes, Lei, Romano and Sesia (Annals of Statistics 51, 2023), for independent scores without ties; ties
    make the p-values larger. An entry is false when the record's score is distributed like those of the
    calibration records: when its membership left no trace that this attack sees. The rate is an average over draws
    of the calibration records, not a promise for the one at hand.

    Args:
        audited: float [m]: scores of the records in question, usually the members.
        calibration: float [n]: scores of non-members from the same source.
        fdr: in (0, 1).

    Raises:
        TooFewRecordsError: so few calibration scores that no list is possible; says how many are needed.
        Others as for :func:`conformal_p_values`.
    """
    p_values = conformal_p_values(audited, calibration)
    if not 0 < fdr < 1:
        raise InvalidArgumentError(f"a false discovery rate lies between 0 and 1, such as 0.05; got {fdr}")
    m, n = len(p_values), len(calibration)
    # k records at the smallest p-value are listed when 1 / (n + 1) <= fdr k / m.
    smallest = max(1, math.ceil(m / (fdr * (n + 1)) - 1e-9))
    if smallest > m:
        raise TooFewRecordsError(
            f"with {n} calibration scores no p-value is below {1 / (n + 1):.3g}, so nothing can be listed at a false "
            f"discovery rate of {fdr:g}: at least {math.ceil(1 / fdr - 1e-9) - 1} non-members are needed, and "
            f"{math.ceil(m / fdr - 1e-9) - 1} to list a single one of {m} records"
        )
    listed = np.flatnonzero(stats.false_discovery_control(p_values, method="bh") <= fdr * (1 + 1e-12))
    # Most exposed first; among equal p-values the higher score, then the lower index.
    order = listed[np.lexsort((listed, -np.asarray(audited, dtype=np.float64)[listed], p_values[listed]))]
    return ExposedRecords(
        records=tuple(order.tolist()),
        p_values=tuple(p_values[order].tolist()),
        fdr=fdr,
        n_audited=m,
        n_calibration=n,
        smallest_list=smallest,
        assumptions=_ASSUMPTIONS,
    )
