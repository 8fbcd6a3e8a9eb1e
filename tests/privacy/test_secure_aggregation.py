"""Secure aggregation: what is broken in the paper's S0 to S3, in toy groups, and what noise inside the sum gives."""

import hashlib
import math
from itertools import combinations

import numpy as np
import pytest
from scipy import special

from privkernels.errors import InvalidArgumentError, InvalidBudgetError, UnknownNameError
from privkernels.privacy import (
    AggregationNoise,
    AggregationPlan,
    Guarantee,
    Unit,
    aggregation_guarantee,
    isolated_clients,
)
from privkernels.privacy.secure_aggregation import bound_of, event_of, sum_excess

# A toy group: the squares modulo P = 2 Q + 1, of prime order Q. log_G(H) plays no part in the tests.
P, Q = 2039, 1019
G, H = 4, 9
RING = 2**16


def polynomial(secret, k, rng):
    return [secret, *(int(c) for c in rng.integers(0, Q, k - 1))]


def share(coefficients, j):
    return sum(c * j**o for o, c in enumerate(coefficients)) % Q


def reconstruct(shares):
    """The value at 0 of the polynomial through {j: share}."""
    total = 0
    for j, value in shares.items():
        top = math.prod(m for m in shares if m != j)
        bottom = math.prod(m - j for m in shares if m != j)
        total += value * top * pow(bottom, -1, Q)
    return total % Q


def commit(value, blinding):
    return pow(G, value, P) * pow(H, blinding, P) % P


def share_holds(value, blinding, commitments, j, *, first):
    """g^share h^blinding = product of C_o^(j^o) over o >= first."""
    product = math.prod(pow(c, pow(j, o, Q), P) for o, c in enumerate(commitments) if o >= first) % P
    return commit(value, blinding) == product


def mask(seed, size=3):
    digest = hashlib.sha256(str(seed).encode()).digest()
    return np.array([int.from_bytes(digest[4 * i : 4 * i + 4], "big") % RING for i in range(size)])


# Findings 1 to 10


def test_1_rsa_with_the_primes_of_the_commitments_hides_nothing():
    """The commitments need p and q, so everyone has the factors of n = p q and with them the secret key."""
    n, e, message = P * Q, 17, 1234
    ciphertext = pow(message, e, n)
    d = pow(e, -1, (P - 1) * (Q - 1))
    assert pow(ciphertext, d, n) == message


def test_2_xor_masks_do_not_add_up():
    inputs = [9, 7, 12]
    masks = {(0, 1): 5, (0, 2): 9, (1, 2): 3}
    masked = list(inputs)
    for pair, value in masks.items():
        for client in pair:
            masked[client] ^= value
    assert sum(inputs) == 28
    assert sum(masked) != 28
    assert masked[0] ^ masked[1] ^ masked[2] == inputs[0] ^ inputs[1] ^ inputs[2] == 2, "the xor survives, not the sum"
    found = {sum((9 ^ a ^ b, 7 ^ a ^ c, 12 ^ b ^ c)) for a in range(16) for b in range(16) for c in range(16)}
    assert 12 in found
    assert len(found) > 5


def test_3_masks_from_shares_do_not_cancel():
    """r_ij is a share of i's secret and r_ji one of j's: two numbers. The pairwise key is one."""
    rng = np.random.default_rng(0)
    secrets = polynomial(111, 3, rng), polynomial(222, 3, rng)
    r_12, r_21 = share(secrets[0], 2), share(secrets[1], 1)
    key_1, key_2 = pow(pow(G, 222, P), 111, P), pow(pow(G, 111, P), 222, P)
    assert (mask(r_12) != mask(r_21)).any()
    assert (mask(r_12) != mask(key_2)).any()
    assert (mask(key_1) == mask(key_2)).all()


def test_4_without_signs_the_masks_double():
    inputs, masks = [9, 7, 10], {(0, 1): 8, (0, 2): 6, (1, 2): 5}
    plus, signed = list(inputs), list(inputs)
    for (i, j), value in masks.items():
        plus[i] += value
        plus[j] += value
        signed[i] += value
        signed[j] -= value
    assert sum(inputs) == 26
    assert sum(plus) == 26 + 2 * sum(masks.values()) == 64
    assert sum(signed) == 26


def test_5_a_key_agreed_from_two_public_values_is_public():
    """KA.agree(g^r_i, pk_j) has no secret argument: an eavesdropper puts in the same two numbers."""

    def agree(own, other):
        return pow(other, own, P)

    public_i, public_j = pow(G, 321, P), pow(G, 654, P)
    client, eavesdropper = agree(public_i, public_j), agree(public_i, public_j)
    assert client == eavesdropper
    assert client != pow(G, 321 * 654, P), "and it is not the Diffie-Hellman key either"
    assert agree(321, public_j) == agree(654, public_i) == pow(G, 321 * 654, P)


def test_6_the_verification_needs_the_commitment_to_the_secret_itself():
    rng = np.random.default_rng(1)
    f, t = polynomial(345, 3, rng), polynomial(678, 3, rng)
    commitments = [commit(a, b) for a, b in zip(f, t, strict=True)]
    for j in range(1, 6):
        assert not share_holds(share(f, j), share(t, j), commitments, j, first=1)
        assert share_holds(share(f, j), share(t, j), commitments, j, first=0)
        assert not share_holds(share(f, j) + 1, share(t, j), commitments, j, first=0)
    other = polynomial(679, 3, rng)  # the blinding of C_i0 has to be the blinding polynomial's value at 0
    assert not share_holds(share(f, 1), share(other, 1), commitments, 1, first=0)


def test_7_the_correction_for_dropped_clients_belongs_inside_the_mean():
    """Clients 1 and 2 stay, 3 drops out; 1 and 2 still carry their masks with it."""
    inputs, masks = np.array([10.0, 20.0]), np.array([4.0, 6.0])
    sent = inputs + masks
    assert sent.sum() / 2 + masks.sum() != inputs.mean(), "as printed"
    assert sent.sum() / 2 - masks.sum() != inputs.mean(), "with the sign right"
    assert (sent.sum() - masks.sum()) / 2 == inputs.mean()


def masked_input(value, seeds, self_seed=None):
    total = value + sum(mask(s) for s in seeds)
    return (total if self_seed is None else total + mask(self_seed)) % RING


def test_8_a_server_that_lies_about_a_drop_out_unmasks_the_client():
    rng = np.random.default_rng(2)
    value, secret, publics = np.array([5, 6, 7]), 345, [pow(G, s, P) for s in (77, 88, 99)]
    seeds = [pow(public, secret, P) for public in publics]
    f = polynomial(secret, 3, rng)
    recovered = reconstruct({j: share(f, j) for j in (1, 2, 3)})
    guessed = [pow(public, recovered, P) for public in publics]
    assert (masked_input(value, seeds) - sum(mask(s) for s in guessed)) % RING == pytest.approx(value)
    protected = masked_input(value, seeds, self_seed=4711)
    assert ((protected - sum(mask(s) for s in guessed)) % RING != value).any()


def test_9_only_a_threshold_above_the_colluders_protects():
    rng = np.random.default_rng(3)
    for k in (2, 3):
        f = polynomial(345, k, rng)
        colluders = {j: share(f, j) for j in (1, 2)}
        if k == 2:
            assert reconstruct(colluders) == 345
        else:
            third = {reconstruct({**colluders, 3: guess}) for guess in range(Q)}
            assert third == set(range(Q)), "with one share too few every secret is as likely"
    with pytest.raises(InvalidArgumentError, match="colluders alone unmask"):
        plan(colluders=3)


def test_9_every_client_receives_all_commitments():
    """n k group elements, not the O(n + gamma m) of the paper's Table 2."""
    n, k = 100, 60
    received = sum(k for dealer in range(n) if dealer != 0)
    assert received == (n - 1) * k > 50 * n


def test_10_one_bad_share_aborts_everything_unless_somebody_is_blamed():
    rng = np.random.default_rng(4)
    dealers = {i: (polynomial(100 + i, 3, rng), polynomial(200 + i, 3, rng)) for i in range(1, 6)}
    commitments = {i: [commit(a, b) for a, b in zip(*pair, strict=True)] for i, pair in dealers.items()}

    def bad_dealers(active):
        return {
            i for i in active for j in active
            if not share_holds((share(dealers[i][0], j) + (i == 1 and j == 4)) % Q, share(dealers[i][1], j),
                               commitments[i], j, first=0)
        }  # fmt: skip

    everyone = set(dealers)
    assert bad_dealers(everyone), "S2: 'otherwise aborts', and the next run aborts again"
    blamed = bad_dealers(everyone)
    assert blamed == {1}
    assert not bad_dealers(everyone - blamed)


def test_a_protocol_with_signs_self_masks_and_checked_shares_gives_the_exact_sum():
    """Five clients, k = 3: client 5 drops out after sharing, client 1 sends a corrupted share in the last round."""
    rng = np.random.default_rng(5)
    clients, k = range(1, 6), 3
    inputs = {i: rng.integers(0, 100, 3) for i in clients}
    secret, self_mask = ({i: int(rng.integers(1, Q)) for i in clients} for _ in range(2))
    f, e, blind = ({i: polynomial(s[i], k, rng) for i in clients} for s in (secret, self_mask, secret))
    commitments = {
        ("f", i): [commit(a, b) for a, b in zip(f[i], blind[i], strict=True)] for i in clients
    } | {("e", i): [commit(a, b) for a, b in zip(e[i], blind[i], strict=True)] for i in clients}  # fmt: skip
    key = {(i, j): pow(G, secret[i] * secret[j], P) for i in clients for j in clients}

    def sign(i, j):
        return 1 if i < j else -1

    survivors = [1, 2, 3, 4]
    sent = {
        i: (inputs[i] + mask(("self", self_mask[i])) + sum(sign(i, j) * mask(key[i, j]) for j in clients if j != i))
        % RING
        for i in survivors
    }
    blamed, good = set(), {}
    for name, polynomials, owners in (("e", e, survivors), ("f", f, [5])):
        for owner in owners:
            for j in survivors:
                value = (share(polynomials[owner], j) + (j == 1)) % Q
                if share_holds(value, share(blind[owner], j), commitments[name, owner], j, first=0):
                    good.setdefault((name, owner), {})[j] = value
                else:
                    blamed.add(j)
    total = sum(sent.values())
    for i in survivors:
        total = total - mask(("self", reconstruct(good["e", i])))
    dropped = reconstruct(good["f", 5])
    for i in survivors:
        total = total - sign(i, 5) * mask(pow(pow(G, secret[i], P), dropped, P))
    assert blamed == {1}
    assert (total % RING == sum(inputs[i] for i in survivors)).all()


# What a malicious server can isolate


def test_a_malicious_server_can_isolate_two_of_seven_honest_clients():
    assert isolated_clients(10, 3, 7) == 2
    assert isolated_clients(10, 3, 10) == 7
    assert isolated_clients(10, 3, 6) == 0, "2 k <= n + c: it collects both secrets of one client"


# Noise inside the sum


def discrete_gaussian(sigma, reach):
    x = np.arange(-reach, reach + 1)
    weight = np.exp(-(x**2) / (2 * sigma**2))
    return weight / weight.sum()


@pytest.mark.parametrize("sigma", [0.5, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("clients", [2, 5])
def test_a_sum_of_discrete_gaussians_keeps_its_rho(sigma, clients):
    """Exact Renyi divergences of the sum from the sum shifted by one step, against alpha rho."""
    noise = discrete_gaussian(sigma, math.ceil(12 * sigma))
    law = noise
    for _ in range(clients - 1):
        law = np.convolve(law, noise)
    near = np.arange(len(law)) - len(law) // 2  # beyond twelve sigma the cut of one noise would show
    log_law = np.log(law[np.abs(near) <= 12 * sigma])
    plan_ = plan(noise=noise_plan(client_sigma=sigma, sensitivity=1.0, dimension=1), clients=clients)
    rho = event_of(plan_).rho
    for alpha in (1.5, 2.0, 4.0):
        terms = alpha * log_law[1:] + (1 - alpha) * log_law[:-1]
        divergence = special.logsumexp(terms) / (alpha - 1)
        assert divergence <= alpha * rho * (1 + 1e-9)
        if sigma == 0.5 and clients == 5 and alpha < 4:
            assert divergence > 1.05 * alpha * plan_.mu**2 / 2, "one Gaussian of the sum's variance would not do"
        if sigma >= 1:
            assert divergence == pytest.approx(alpha * rho, rel=1e-2)


def test_the_excess_of_the_sum_vanishes_with_a_fine_grid():
    assert sum_excess(5.0, 100) < 1e-90
    assert sum_excess(0.5, 1) == 0
    assert sum_excess(0.5, 2) == pytest.approx(10 * math.exp(-(math.pi**2) / 4))
    of_all = 10 * math.fsum(math.exp(-(math.pi**2) / 2 * k / (k + 1)) for k in range(1, 20_000))
    assert of_all <= sum_excess(0.5, 20_000) <= of_all * (1 + 1e-3)
    assert math.isfinite(sum_excess(0.5, 2**62)), "and in no time"


def noise_plan(**changes):
    values = {"client_sigma": 20.0, "sensitivity": 30.0, "dimension": 1000, "unit": "example", "delta": 1e-5}
    return AggregationNoise(**(values | changes))


def plan(noise=None, clients=5, **changes):
    everyone = frozenset(range(1, clients + 1))
    values = {
        "num_clients": clients, "threshold": min(3, clients), "colluders": 0, "participants": everyone,
        "survivors": everyone, "noise": noise,
    }  # fmt: skip
    return AggregationPlan(**(values | changes))


def test_only_the_noise_of_those_who_do_not_collude_counts():
    alone, some = plan(noise_plan()), plan(noise_plan(), colluders=1)
    assert alone.mu == pytest.approx(30 / (20 * math.sqrt(5)))
    assert some.mu == pytest.approx(30 / (20 * math.sqrt(4)))
    assert event_of(some).rho == pytest.approx(some.mu**2 / 2)
    assert bound_of(some).epsilon > bound_of(alone).epsilon
    assert event_of(plan(noise_plan(rounds=10))).count == 10


def test_an_exact_sum_has_no_guarantee():
    """Whoever knows all inputs but one reads the last one off."""
    inputs = np.array([3, 1, 4, 1, 5])
    assert inputs.sum() - inputs[1:].sum() == inputs[0]
    guarantee = aggregation_guarantee(plan())
    assert guarantee.proven is None
    assert "sum is revealed exactly" in guarantee.not_proven_because
    assert guarantee.implementation["sum"] == "revealed exactly, DP of the sum: none"
    with pytest.raises(InvalidArgumentError, match="no privacy cost"):
        event_of(plan())


def test_the_guarantee_reads_and_survives_json():
    survivors = frozenset({2, 3, 4})
    for value in (plan(noise_plan()), plan(survivors=survivors, blamed=frozenset({1}))):
        guarantee = aggregation_guarantee(value)
        assert Guarantee.from_json(guarantee.to_json()) == guarantee
        assert f"Unit: {guarantee.unit}" in str(guarantee)
    assert guarantee.implementation["survivors_U3"] == "2 3 4"
    assert guarantee.implementation["blamed"] == "1"
    noisy = aggregation_guarantee(plan(noise_plan()))
    assert noisy.unit is Unit.EXAMPLE
    assert noisy.proven.epsilon == bound_of(plan(noise_plan())).epsilon
    assert "seed" in aggregation_guarantee(plan(noise_plan()), reproducible=True).not_proven_because


def test_what_the_library_saw_is_marked_as_checked():
    checked = {a.text for a in aggregation_guarantee(plan()).assumptions if a.checked}
    assert any("k > c" in text for text in checked)
    assert not any("server" in text for text in checked)


def test_a_weak_threshold_and_a_missing_agreement_are_said():
    weak = plan(clients=10, threshold=6, colluders=3)
    assert any("both secrets" in w for w in aggregation_guarantee(weak).warnings)
    silent = plan(clients=10, threshold=7, colluders=3)
    assert any("as few as 2" in w for w in aggregation_guarantee(silent).warnings)
    assert not aggregation_guarantee(plan(clients=10, threshold=7, colluders=3, survivors_agreed=True)).warnings


def server_of(value):
    return next(a.text for a in aggregation_guarantee(value).assumptions if a.text.startswith("The server"))


@pytest.mark.parametrize("clients", [2, 3, 5, 6])
def test_a_malicious_server_is_withstood_by_agreement_and_threshold_together(clients):
    """Two survivor sets with k signatures each: enumerated over who signs which, colluders signing both."""
    for threshold in range(1, clients + 1):
        for colluders in range(min(threshold, clients - 1)):
            honest = clients - colluders
            two_sets = any(first >= threshold - colluders <= honest - first for first in range(honest + 1))
            agreed = plan(clients=clients, threshold=threshold, colluders=colluders, survivors_agreed=True)
            assert agreed.withstands_malicious_server == (not two_sets)
            assert ("malicious" in server_of(agreed)) == (not two_sets)
            assert bool(aggregation_guarantee(agreed).warnings) == two_sets
            silent = plan(clients=clients, threshold=threshold, colluders=colluders)
            assert "semi-honest" in server_of(silent)


def test_an_agreement_among_too_few_is_not_called_safe():
    value = aggregation_guarantee(plan(clients=5, threshold=3, colluders=1, survivors_agreed=True))
    assert "semi-honest" in value.assumptions[0].text
    assert value.implementation["clients_a_malicious_server_can_isolate"] == 0
    assert "whether or not the clients signed" in value.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"threshold": 6}, "threshold"),
        ({"survivors": {1, 2}}, "cannot give the 3 shares"),
        ({"participants": {1, 2, 3}}, "survivors are participants"),
        ({"participants": {1, 2, 3, 4, 5, 6}}, "numbered 1 to 5"),
        ({"blamed": {5}}, "blamed cannot be in the sum"),
        ({"survivors": {1, 2, 3}, "colluders": 2}, "one client's input"),
        ({"survivors": 3}, "set of client numbers"),
        ({"blamed": {0}}, "client's number in blamed"),
    ],
)
def test_bad_plans(change, words):
    with pytest.raises(InvalidArgumentError, match=words):
        plan(**change)


def test_bad_noise():
    with pytest.raises(InvalidArgumentError, match="half a step"):
        noise_plan(client_sigma=0.1)
    with pytest.raises(InvalidArgumentError, match="sensitivity"):
        noise_plan(sensitivity=math.nan)
    with pytest.raises(InvalidBudgetError):
        noise_plan(delta=1.0)
    with pytest.raises(InvalidArgumentError, match="clients"):
        sum_excess(1.0, 0)
    with pytest.raises(UnknownNameError, match="galaxy"):
        noise_plan(unit="galaxy")


def test_every_pair_of_colluders_below_the_threshold_learns_nothing_from_shares():
    """Two shares of k = 3 take about as many values as there are polynomials with the same secret."""
    rng = np.random.default_rng(6)
    for pair in combinations((1, 2, 3), 2):
        seen = {tuple(share(polynomial(345, 3, rng), j) for j in pair) for _ in range(200)}
        assert len(seen) > 195
