"""Every statistic once more: float64 NumPy, slow and obvious, straight from the definitions.

Arrays are float64 or complex128 in the tensor's own axes. Undefined is None.
"""

from fractions import Fraction
from functools import cache
from itertools import product
from math import ceil

import numpy as np

FLOAT32_MAX = float(np.finfo(np.float32).max)


def number(value):
    """A float, None where it is not one."""
    value = float(value)
    return value if np.isfinite(value) else None


def magnitude(array):
    """|z| without overflow; a real array as it is."""
    return np.hypot(array.real, array.imag) if np.iscomplexobj(array) else array


def order_statistic(values, percent):
    """The element of rank ceil(n * percent / 100), counted from one: NumPy's inverted_cdf."""
    if values.size == 0:
        return None
    return float(np.sort(values)[max(ceil(Fraction(values.size * percent, 100)), 1) - 1])


def values(array):
    """Section 1; of |z| where the array is complex."""
    flat = magnitude(array).ravel()
    nan = int(np.isnan(array).sum())
    finite = flat[np.isfinite(array).ravel()]
    stats = {"count": flat.size, "nan_count": nan, "inf_count": flat.size - finite.size - nan}
    stats["finite_fraction"] = finite.size / flat.size if flat.size else None
    signed, absolute = (1, 5, 50, 95, 99), (50, 95, 99)
    if finite.size == 0:
        names = ["mean", "std", "rms", "min", "max", "abs_mean", "abs_std", "tail_ratio"]
        names += ["zero_fraction", "negative_fraction"]
        names += [f"p{p:02d}" for p in signed] + [f"abs_p{p:02d}" for p in absolute]
        return stats | dict.fromkeys(names)
    wide = finite.astype(np.longdouble)  # its exponents reach far beyond float64
    stats["mean"] = number(wide.mean())
    stats["std"] = number(np.sqrt(((wide - wide.mean()) ** 2).mean()))
    stats["rms"] = number(np.sqrt((wide**2).mean()))
    stats["min"], stats["max"] = number(finite.min()), number(finite.max())
    stats["abs_mean"] = number(abs(wide).mean())
    stats["abs_std"] = number(np.sqrt(((abs(wide) - abs(wide).mean()) ** 2).mean()))
    stats |= {f"p{p:02d}": order_statistic(finite, p) for p in signed}
    stats |= {f"abs_p{p:02d}": order_statistic(abs(finite), p) for p in absolute}
    middle, tail = stats["abs_p50"], stats["abs_p99"]
    stats["tail_ratio"] = tail / middle if middle else None
    stats["zero_fraction"] = int((finite == 0).sum()) / finite.size
    stats["negative_fraction"] = None if np.iscomplexobj(array) else int((finite < 0).sum()) / finite.size
    return stats


def channels(array, channel):
    """Shares of dead, constant and dormant channels, and their rms; of z the wider part counts."""
    shares = ("dead_channel_fraction", "constant_channel_fraction", "dormant_fraction")
    sizes = ("channel_rms_min", "channel_rms_max", "channel_rms_ratio")
    if channel is None or array.size == 0:
        return dict.fromkeys((*shares, *sizes)), None
    rows = np.moveaxis(array, channel, 0).reshape(array.shape[channel], -1)
    rms = values(array)["rms"]
    dead, constant, filled = 0, 0, 0
    every_rms, means = [], []
    for row in rows:
        finite = row[np.isfinite(row)]
        if finite.size == 0:
            every_rms.append(None)
            continue
        filled += 1
        wide = magnitude(finite).astype(np.longdouble)
        every_rms.append(number(np.sqrt((wide**2).mean())))
        means.append(abs(wide).mean())
        peak = magnitude(finite)
        peak = abs(peak).max()
        dead += bool(rms is not None and peak <= 1e-6 * rms)
        spread = max(np.ptp(finite.real), np.ptp(finite.imag))
        constant += bool(spread <= 1e-6 * peak)
    if filled == 0:
        return dict.fromkeys((*shares, *sizes)), None
    known = [one for one in every_rms if one is not None]
    dormant = sum(bool(mean <= 0.025 * np.mean(means)) for mean in means)
    found = (dead / filled, constant / filled if rows.shape[1] > 1 else None, dormant / filled)
    found += (min(known), max(known), max(known) / min(known) if min(known) else None)
    return dict(zip((*shares, *sizes), found, strict=True)), every_rms


def zero_sample_fraction(array, sample):
    """The share of samples of which every element is zero."""
    if sample is None or array.size == 0:
        return None
    rows = np.moveaxis(array, sample, 0).reshape(array.shape[sample], -1)
    return sum(all(value == 0 for value in row) for row in rows) / len(rows)


def effective_rank(array, sample, channel):
    """exp of the entropy of the singular values of positions x channels; None without a channel axis."""
    if channel is None or array.size == 0:
        return None
    if sample is None:
        array, sample, channel = array[None], 0, channel + 1
    per_sample = np.moveaxis(array, (sample, channel), (0, 1)).reshape(
        array.shape[sample], array.shape[channel], -1
    )
    positions = per_sample.shape[2]
    golden = (np.sqrt(5) - 1) / 2
    most = min(max(4 * per_sample.shape[1], 64), 512)
    places = sorted({int(n * golden % 1 * positions) for n in range(1, most + 1)})
    if positions <= most:
        places = range(positions)
    rows = [field[:, place] for field in per_sample for place in places]
    rows = np.array([row for row in rows if np.isfinite(row).all()])
    if rows.size == 0 or not abs(rows).max():
        return None
    singular = np.linalg.svd(rows / abs(rows).max(), compute_uv=False)
    shares = singular[singular > np.sqrt(1e-13) * singular.max()]
    shares = shares / shares.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def sample_variation(array, sample):
    """sqrt(mean over positions of Var over samples / mean square), where two samples or more are finite."""
    if sample is None or array.size == 0:
        return None
    rows = np.moveaxis(array, sample, 0).reshape(array.shape[sample], -1)
    varying, square = np.longdouble(0), np.longdouble(0)
    for position in rows.T:
        finite = position[np.isfinite(position)].astype(np.clongdouble)
        if finite.size >= 2:
            varying += (abs(finite - finite.mean()) ** 2).sum()
            square += (abs(finite) ** 2).sum()
    return float(np.sqrt(varying / square)) if square else None


def fields(array, space):
    """Rows of fields over space: (fields, *space)."""
    moved = np.moveaxis(array, space, range(array.ndim - len(space), array.ndim))
    return moved.reshape(-1, *(array.shape[axis] for axis in space))


@cache
def signed_frequencies(sizes):
    """One exact frequency per coefficient and axis, in cycles per grid point; Nyquist is +1/2."""
    axes = [[Fraction(i if 2 * i <= size else i - size, size) for i in range(size)] for size in sizes]
    return tuple(product(*axes))


def energies(array, space):
    """Energy per coefficient of the whole transform, without that of the means, and that of the means."""
    whole = [field for field in fields(array, space) if np.isfinite(field).all()]
    sizes = tuple(array.shape[axis] for axis in space)
    total, dc = np.zeros(sizes), 0.0
    for field in whole:
        dc += abs(field.mean()) ** 2 * field.size
        total += abs(np.fft.fftn(field - field.mean(), norm="ortho")) ** 2
    return total.ravel(), dc, len(whole)


def spectrum(array, space):
    """Section 2: shares over frequency, radial bands and bands along each axis."""
    keys = ("dc_fraction", "low_frequency_fraction", "high_frequency_fraction")
    stats = dict.fromkeys((*keys, "spectral_centroid", "one_sidedness"))
    if not space or array.size == 0:
        return stats, None
    sizes = tuple(array.shape[axis] for axis in space)
    energy, dc, _ = energies(array, space)
    total = energy.sum()
    if total + dc == 0:
        return stats, None
    stats["dc_fraction"] = dc / (total + dc)
    if total <= 1e-12 * (total + dc):
        return stats, None
    places = signed_frequencies(sizes)
    radial = np.zeros(next(n for n in range(1, 99) if (Fraction(n, 32)) ** 2 >= Fraction(len(sizes), 4)))
    along = np.zeros((len(sizes), 16))
    low = high = centroid = positive = negative = 0.0
    real = not np.iscomplexobj(array)
    for place, share in zip(places, energy, strict=True):
        widest = max(abs(f) for f in place)
        square = sum(f * f for f in place)
        low += share * (widest <= Fraction(1, 8))
        high += share * (widest > Fraction(1, 4))
        centroid += share * float(square) ** 0.5
        radial[next(i for i in range(len(radial)) if square <= Fraction(i + 1, 32) ** 2)] += share
        for axis, f in enumerate(place):
            along[axis, next(i for i in range(16) if abs(f) <= Fraction(i + 1, 32))] += share
        inside = abs(place[0]) < Fraction(1, 2)
        if real:
            inside = inside and len(sizes) > 1 and 0 < place[-1] < Fraction(1, 2)
        positive += share * (inside and place[0] > 0)
        negative += share * (inside and place[0] < 0)
    stats["low_frequency_fraction"], stats["high_frequency_fraction"] = low / total, high / total
    stats["spectral_centroid"] = centroid / total
    defined = positive > 1e-12 * (total + dc) and (len(sizes) > 1 or not real)
    stats["one_sidedness"] = negative / positive if defined else None
    return stats, {"bands": radial / total, "axis_bands": along / total}


def truncated_energy_fraction(array, space, kept):
    """Share of the energy around the means where `kept(f_1, f_2, ...)` is False."""
    energy, dc, _ = energies(array, space)
    if energy.sum() <= 1e-12 * (energy.sum() + dc):
        return None
    sizes = tuple(array.shape[axis] for axis in space)
    cut = [e for f, e in zip(signed_frequencies(sizes), energy, strict=True) if not kept(*f)]
    return sum(cut) / energy.sum()


def branches(spectral, local, space):
    """Section 3: of the two operands of a sum, the mean of every field removed."""
    pairs = zip(fields(spectral, space), fields(local, space), strict=True)
    whole = [(s, t) for s, t in pairs if np.isfinite(s).all() and np.isfinite(t).all()]
    keys = ("spectral_local_ratio", "spectral_share", "branch_cosine", "branch_coherence")
    stats = dict.fromkeys(keys)
    if not whole:
        return stats
    s = np.concatenate([(s - s.mean()).ravel() for s, _ in whole])
    t = np.concatenate([(t - t.mean()).ravel() for _, t in whole])
    ss, tt = (abs(s) ** 2).sum(), (abs(t) ** 2).sum()
    ss = ss if ss > 1e-12 * sum((abs(field) ** 2).sum() for field, _ in whole) else 0.0
    tt = tt if tt > 1e-12 * sum((abs(field) ** 2).sum() for _, field in whole) else 0.0
    if ss == 0 and tt == 0:
        return stats
    stats["spectral_share"] = ss / (ss + tt)
    stats["branch_coherence"] = np.sqrt((abs(s + t) ** 2).sum()) / (np.sqrt(ss) + np.sqrt(tt))
    if tt:
        stats["spectral_local_ratio"] = np.sqrt(ss / tt)
    if ss and tt:
        stats["branch_cosine"] = (s.conj() * t).real.sum() / np.sqrt(ss * tt)
    return stats


def update_ratio(before, after):
    """||y - x|| / ||x|| over the elements that are finite in both."""
    finite = np.isfinite(before) & np.isfinite(after)
    x, y = before[finite], after[finite]
    below = np.sqrt((abs(x) ** 2).sum())
    return np.sqrt((abs(y - x) ** 2).sum()) / below if below else None


def gain(before, after):
    """rms(y) / rms(x) over the finite elements of each."""
    sides = [a[np.isfinite(a)] for a in (before, after)]
    if not all(side.size for side in sides):
        return None
    rms = [np.sqrt((abs(side) ** 2).mean()) for side in sides]
    return rms[1] / rms[0] if rms[0] else None


def legacy(array):
    """Section 6, one batch: the earlier script's formulas."""
    flat = abs(array).ravel()
    keys = ("mean", "std", "p50", "p95", "p99", "sparsity", "low_freq_ratio")
    if flat.size == 0 or not np.isfinite(flat).all():
        return dict.fromkeys(keys)
    stats = {"mean": flat.mean(), "std": flat.std(ddof=1) if flat.size > 1 else None}
    stats |= {f"p{p}": np.percentile(flat, p) for p in (50, 95, 99)}
    stats["sparsity"] = (array.ravel() <= 0).mean() if not np.iscomplexobj(array) else None
    stats["low_freq_ratio"] = None
    if array.ndim == 4 and not np.iscomplexobj(array):
        power = abs(np.fft.rfft2(array, norm="ortho")) ** 2
        h, w = power.shape[-2:]
        if power.mean() > 0:
            corner = power[..., : max(1, h // 8), : max(1, w // 8)]
            stats["low_freq_ratio"] = corner.mean() / power.mean()
    return stats


def bands(sizes):
    """Radial band of every frequency without signs, n // 2 + 1 of them along each axis; by whole numbers."""
    cycles = np.meshgrid(*(np.arange(size // 2 + 1) for size in sizes), indexing="ij")
    common = np.lcm.reduce(sizes)
    squares = sum((one * (common // size)) ** 2 for one, size in zip(cycles, sizes, strict=True))
    # Band i holds i / 32 < |f| <= (i + 1) / 32, where |f| is the root of the squares over `common`.
    uppers = np.arange(1, ceil(32 * np.sqrt(len(sizes)) / 2) + 1) * common
    return np.searchsorted(uppers**2, 32**2 * squares, side="left")


def accuracy(output, target, sample, channel, space):
    """Section 7: of arrays of one shape in which every element is finite."""
    error = output - target
    stats = dict.fromkeys(("relative_l2", "relative_l2_mean", "error_to_mean_predictor"))
    stats |= dict.fromkeys(("output_to_target_rms", "effective_resolution"))
    size = np.linalg.norm(target)
    if size == 0:
        return stats, None, None
    stats["relative_l2"] = np.linalg.norm(error) / size
    stats["output_to_target_rms"] = np.sqrt((abs(output) ** 2).mean() / (abs(target) ** 2).mean())
    if sample is not None:
        pairs = zip(np.moveaxis(error, sample, 0), np.moveaxis(target, sample, 0), strict=True)
        norms = [(np.linalg.norm(e), np.linalg.norm(y)) for e, y in pairs]
        if all(y for _, y in norms):
            stats["relative_l2_mean"] = np.mean([e / y for e, y in norms])
    others = tuple(axis for axis in range(target.ndim) if axis != channel)
    around = np.linalg.norm(target - target.mean(others, keepdims=True))
    if around > 1e-6 * size:
        stats["error_to_mean_predictor"] = np.linalg.norm(error) / around
    channels = [
        np.linalg.norm(z) / np.linalg.norm(y) if y.any() else None
        for z, y in (
            [(output, target)]
            if channel is None
            else zip(np.moveaxis(output, channel, 0), np.moveaxis(target, channel, 0), strict=True)
        )
    ]
    if not space:
        return stats, None, channels
    sizes = tuple(target.shape[axis] for axis in space)
    table = bands(sizes)
    number = ceil(32 * np.sqrt(len(sizes)) / 2)
    found = {name: np.zeros(number + 1) for name in ("target", "output", "error", "product")}
    places = list(product(*(np.fft.fftfreq(n, 1 / n).astype(int) for n in sizes)))
    where = [1 + table[tuple(abs(k) for k in place)] if any(place) else 0 for place in places]
    for y, z in zip(fields(target, space), fields(output, space), strict=True):
        y, z = np.fft.fftn(y, norm="ortho").ravel(), np.fft.fftn(z, norm="ortho").ravel()
        for name, energy in (
            ("target", abs(y) ** 2),
            ("output", abs(z) ** 2),
            ("error", abs(z - y) ** 2),
            ("product", (y.conj() * z).real),
        ):
            np.add.at(found[name], where, energy)
    y, z, e, yz = found.values()
    kept = [(i, y[i] > 1e-12 * y.sum(), z[i] > 1e-12 * z.sum()) for i in range(number + 1)]
    found["band_error"] = [np.sqrt(e[i] / y[i]) if has else None for i, has, _ in kept]
    found["spectrum_ratio"] = ratio = [z[i] / y[i] if has else None for i, has, _ in kept]
    found["band_coherence"] = [
        yz[i] / np.sqrt(y[i] * z[i]) if has and both else None for i, has, both in kept
    ]
    known = [i for i in range(1, number + 1) if ratio[i] is not None]
    lost = [i for i in known if all(ratio[j] < 1 / 2 for j in known if j >= i)]
    if known:
        stats["effective_resolution"] = (lost[0] - 1) / 32 if lost else number / 32
    return stats, found, channels


def missing_share(array, space, sizes, missing):
    """Share of the energy around the means in radial bands of fields of other sizes, by cycles per field."""
    energy, dc, _ = energies(array, space)
    if energy.sum() <= 1e-12 * (energy.sum() + dc):
        return None
    own = [array.shape[axis] for axis in space]
    table, inside = bands(sizes), 0.0
    for place, share in zip(product(*(np.fft.fftfreq(n, 1 / n) for n in own)), energy, strict=True):
        cycles = tuple(int(abs(k)) for k in place)
        if all(k <= n // 2 for k, n in zip(cycles, sizes, strict=True)) and table[cycles] in missing:
            inside += share
    return inside / energy.sum()
